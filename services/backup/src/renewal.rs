//! A new data key for a device whose key is damaged in the database and in the bucket's copy. The old key and the snapshots that it sealed
//! are kept as damaged.

use tsujiban_sealing::{DataKey, KeyError};

use crate::catalogue::{CatalogueError, DeviceRow};
use crate::damage::{DamageScope, Damaged};
use crate::device::{Device, OpenGroup};
use crate::error::{Error, Result};
use crate::keys;
use crate::service::Backup;

impl Backup {
    /// The key that seals the device's next object. Should it be damaged, and in the bucket's copy too, the device gets a new one.
    pub(crate) async fn sealing_key(&self, group: &OpenGroup, device: Device) -> Result<(Device, DataKey)> {
        let damaged = match self.data_key(&device.row.key_id, &device.row.incarnation).await {
            Err(Error::Damaged(damaged)) => damaged,
            key => return Ok((device, key?)),
        };
        // another call may have renewed the key while this one waited for its turn
        let row = self.catalogue.device(&device.row.incarnation).await?.ok_or(CatalogueError::Gone)?;
        let device = Device { row: DeviceRow { key_id: row.key_id, ..device.row }, ..device };
        if let Some(epoch) = self.compare_key_table().await?.unopened {
            return Err(KeyError::EpochMissing(epoch).into()); // the copy may have the key
        }
        match self.data_key(&device.row.key_id, &device.row.incarnation).await {
            Err(Error::Damaged(_)) => self.renew_key(group, device, &damaged).await,
            key => Ok((device, key?)),
        }
    }

    async fn renew_key(&self, group: &OpenGroup, device: Device, damaged: &Damaged) -> Result<(Device, DataKey)> {
        let subject = &device.row.incarnation;
        let (key_id, wrappings) = keys::new_data_key(&self.keyring, (group.incarnation(), subject), &self.random, self.now())?;
        let whose = DamageScope { group: Some(group.incarnation().clone()), device: Some(subject.clone()), snapshot: None };
        // before the renewal: after it only the scrub would read these snapshots again
        self.check_snapshots_of(group.incarnation(), subject).await?;
        self.found_damaged(damaged, &whose).await?;
        if !self.catalogue.renew_key(&device.row, &key_id, &wrappings, device.life.as_ref()).await? {
            return Err(CatalogueError::Gone.into());
        }
        tracing::error!(device = %subject, key = %device.row.key_id, "a data key is damaged everywhere; the device goes on with a new one");
        let key = self.data_key(&key_id, subject).await?;
        Ok((Device { row: DeviceRow { key_id, ..device.row }, ..device }, key))
    }
}
