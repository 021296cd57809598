//! Lives of Devices. After a Device was erased nothing is stored for it again: a collector that listed the Device before is refused, while
//! a new Device with the same serial number is another life (C24).

use jiff::SignedDuration;
use ring::digest::{SHA256, digest};
use tsujiban_sealing::KeyError;
use tsujiban_service::caller::GroupScope;
use uuid::Uuid;

use crate::catalogue::CatalogueError;
use crate::error::{Error, Result};
use crate::service::Backup;

/// For how long an ended life is remembered. A collection lasts for a window of its group, so that no collector uploads as late as this.
pub(crate) const REMEMBERED: SignedDuration = SignedDuration::from_hours(35 * 24);

/// One life of a Device: the SHA-256 of the resource's uid, which itself is not stored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceUidHash(Vec<u8>);

impl DeviceUidHash {
    pub fn of(uid: &Uuid) -> Self {
        Self(digest(&SHA256, uid.as_bytes()).as_ref().to_vec())
    }

    pub(crate) fn from_digest(digest: Vec<u8>) -> Self {
        Self(digest)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Backup {
    /// Refuses an upload that could not be stored, before the config is sent. Every write checks again in its own transaction.
    pub async fn admit(&self, scope: &GroupScope, life: &DeviceUidHash) -> Result<()> {
        self.living_group(scope).await?;
        self.check_alive(life).await
    }

    /// The ended lives that are still remembered.
    pub async fn ended_lives(&self) -> Result<Vec<DeviceUidHash>> {
        Ok(self.catalogue.ended_lives().await?.into_iter().map(|(life, _)| life).collect())
    }

    pub(crate) async fn check_alive(&self, life: &DeviceUidHash) -> Result<()> {
        if self.catalogue.has_ended(life).await? {
            return Err(CatalogueError::LifeEnded.into());
        }
        Ok(())
    }

    /// Replaces the error by its cause: a call whose Device is erased meanwhile may fail on a missing row or key first.
    pub(crate) async fn prefer_life_ended<T: Send>(&self, life: &DeviceUidHash, result: Result<T>) -> Result<T> {
        if let Err(Error::Catalogue(CatalogueError::Gone) | Error::Key(KeyError::Destroyed)) = &result {
            self.check_alive(life).await?;
        }
        result
    }
}
