//! The rotation of epoch keys.
//!
//! After a rotation the previous epoch key still opens everything for a day, new data included. So nothing is lost when the cluster, and
//! with it the Secret of the epoch keys, is restored from a backup made before the rotation.

use tsujiban_core::error::chain;
use tsujiban_core::id::KeyId;
use tsujiban_sealing::{OVERLAP, SealedEpochKey};

use crate::error::Result;
use crate::keys;
use crate::service::Backup;

const BATCH: u32 = 500;

/// The result of [`Backup::rotate_keys`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rotation {
    pub rewrapped: u64,
    /// Wrappings that were destroyed.
    pub dropped: u64,
    /// Keys that no epoch key opens.
    pub unopened: u64,
}

impl Backup {
    /// Loads the mounted epoch keys, wraps every data key with the newest one, destroys wrappings that were superseded a day ago, and
    /// renews the copy in the bucket. A key that none of them opens stays as it is.
    pub async fn rotate_keys(&self, mounted: &[SealedEpochKey]) -> Result<Rotation> {
        self.keyring.replace_epochs(mounted)?;
        let epoch = self.keyring.newest_epoch()?;
        let mut rotation = Rotation::default();
        let mut after: Option<KeyId> = None;
        loop {
            let old = self.catalogue.keys_not_under(epoch.id(), after.as_ref(), BATCH).await?;
            let Some(last) = old.last() else { break };
            after = Some(last.key_id.clone());
            let mut new = Vec::new();
            for wrappings in old.chunk_by(|a, b| a.key_id == b.key_id) {
                match keys::rewrap(&self.keyring, wrappings, &epoch, &self.random) {
                    Ok(row) => {
                        rotation.rewrapped += 1;
                        new.push(row);
                    }
                    Err(error) => {
                        let Some(row) = wrappings.first() else { continue };
                        if !self.catalogue.is_replaced(&row.key_id, &row.subject).await? {
                            rotation.unopened += 1;
                            let key = &row.key_id;
                            tracing::error!(%key, error = chain(&error), "a data key cannot be opened; what it seals is unreadable until it can");
                        }
                    }
                }
            }
            if !new.is_empty() {
                self.catalogue.rewrap(&new, self.now()).await?;
            }
        }
        self.keyring.forget_unmounted();
        if rotation.unopened > 0 || self.metrics.keys_unopened.get() > 0 {
            self.check_wrappings().await?;
        }
        rotation.dropped = self.catalogue.drop_superseded(self.now() - OVERLAP, epoch.id()).await?;
        if rotation.dropped > 0 {
            self.catalogue.flush_log().await?;
        }
        if rotation != Rotation::default() {
            tracing::info!(epoch = %epoch.id(), ?rotation, "data keys follow the epoch");
        }
        // without a current copy nothing new is stored, and the next run tries again
        self.renew_copy().await?;
        Ok(rotation)
    }
}
