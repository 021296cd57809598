//! Pinned host keys. A caller that replaces one names the key that it expects to be pinned, so that it cannot overwrite a concurrent
//! change.

use tsujiban_core::id::SerialNumber;
use tsujiban_proto::error::Kind;
use tsujiban_service::caller::GroupScope;

use crate::device::{Declared, Details};
use crate::error::{Error, Result};
use crate::service::Backup;

/// The host keys of a device; empty ones are not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostKeys {
    pub pinned: String,
    pub observed: String,
}

impl Backup {
    /// A device that was never reached has no host keys yet; that is no error.
    pub async fn host_keys(&self, scope: &GroupScope, serial: &SerialNumber) -> Result<HostKeys> {
        let group = self.group(scope).await?;
        let device = self.find_device(&group, serial).await?;
        Ok(device.map_or_else(HostKeys::default, |device| HostKeys {
            pinned: device.details.pinned_host_key,
            observed: device.details.observed_host_key,
        }))
    }

    /// Pins the key of a first contact. Pinning the pinned key again succeeds.
    pub async fn pin_host_key(&self, scope: &GroupScope, declared: &Declared, key: &str) -> Result<()> {
        let group = self.living_group(scope).await?;
        let device = self.device_for(&group, declared).await?;
        let pin = |details: &mut Details| {
            if !details.pinned_host_key.is_empty() && details.pinned_host_key != key {
                return Err(changed_meanwhile("another host key is pinned already; compare the two before you trust the new one"));
            }
            key.clone_into(&mut details.pinned_host_key);
            key.clone_into(&mut details.observed_host_key);
            Ok(())
        };
        let pinned = self.try_change_device(&group, device, pin).await.map(drop);
        self.prefer_life_ended(&declared.life, pinned).await
    }

    /// Replaces the pinned key; an empty one lets the next contact pin.
    pub async fn replace_host_key(&self, scope: &GroupScope, serial: &SerialNumber, expected: &str, key: &str) -> Result<()> {
        let group = self.group(scope).await?;
        let device = self.find_device(&group, serial).await?.ok_or_else(|| {
            let message = format!("group {} has no device {serial}; its name is not enough, give the serial number", scope.group());
            Error::refuse(Kind::NotFound, "NO_DEVICE", message)
        })?;
        let replace = |details: &mut Details| {
            if details.pinned_host_key != expected {
                return Err(changed_meanwhile("the expected host key is not the pinned one; read the pinned one, then decide"));
            }
            key.clone_into(&mut details.pinned_host_key);
            Ok(())
        };
        self.try_change_device(&group, device, replace).await.map(drop)
    }
}

fn changed_meanwhile(message: &str) -> Error {
    Error::refuse(Kind::Aborted, "HOST_KEY_PINNED", message)
}
