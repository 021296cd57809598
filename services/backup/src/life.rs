//! Lives of Devices. What was erased with one is never stored again for it: a collector that listed a Device before it was
//! erased is refused, while a new Device with the same serial number is another life (C24).

use jiff::SignedDuration;
use ring::digest::{SHA256, digest};
use tsujiban_sealing::KeyError;
use tsujiban_service::caller::GroupScope;
use uuid::Uuid;

use crate::catalogue::CatalogueError;
use crate::error::{Error, Result};
use crate::service::Backup;

/// For how long it is remembered that a life has ended. A collection lasts for a window of its group, so that nobody comes as
/// late as this.
pub(crate) const REMEMBERED: SignedDuration = SignedDuration::from_hours(35 * 24);

/// One life of a Device: the SHA-256 of the resource's uid, which itself is kept nowhere.
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
    /// Refuses what could not be stored anyway, before it is sent. Whatever is written asks again, in its own transaction.
    pub async fn admit(&self, scope: &GroupScope, life: &DeviceUidHash) -> Result<()> {
        self.living_group(scope).await?;
        self.check_alive(life).await
    }

    /// The lives of which it is remembered that they have ended.
    pub async fn ended_lives(&self) -> Result<Vec<DeviceUidHash>> {
        Ok(self.catalogue.ended_lives().await?.into_iter().map(|(life, _)| life).collect())
    }

    pub(crate) async fn check_alive(&self, life: &DeviceUidHash) -> Result<()> {
        if self.catalogue.has_ended(life).await? {
            return Err(CatalogueError::LifeEnded.into());
        }
        Ok(())
    }

    /// Names the cause: a call during which its Device is erased may stumble over a missing row or key first.
    pub(crate) async fn or_tombstoned<T: Send>(&self, life: &DeviceUidHash, result: Result<T>) -> Result<T> {
        if let Err(Error::Catalogue(CatalogueError::Gone) | Error::Key(KeyError::Destroyed)) = &result {
            self.check_alive(life).await?;
        }
        result
    }
}
