//! Rows of the catalogue that cannot be decoded: reported as damaged, and healed where the bucket has their content. Rows of the key table
//! are healed by its comparison with the copy ([`crate::keytable`]), rows of attempts by the device's next attempt.

use tsujiban_core::id::{IncarnationId, SnapshotId};
use tsujiban_objects::{Entry, list_all};

use crate::catalogue::{ROW, Rows, Unreadable};
use crate::damage::{DamageScope, Damaged};
use crate::error::Result;
use crate::object::{self, ObjectIds};
use crate::service::Backup;

impl Backup {
    /// Notes rows that were left out of lists as damaged.
    pub(crate) async fn note_unreadable(&self) -> Result<()> {
        for row in self.catalogue.take_unreadable() {
            let damaged = Damaged { name: row.name(), detail: format!("its column {} cannot be read", row.column) };
            self.found_damaged(&damaged, &DamageScope { group: row.group, device: row.device, snapshot: None }).await?;
        }
        Ok(())
    }

    /// Heals what can be healed, and notes what is sound again.
    pub async fn heal_rows(&self) -> Result<()> {
        self.note_unreadable().await?;
        for name in self.catalogue.damaged_names(ROW).await? {
            let Some((table, key)) = Unreadable::of_name(&name) else { continue };
            if !self.catalogue.is_readable(table, key).await? {
                match (table, key.parse(), key.parse()) {
                    (Rows::Snapshots, Ok(id), _) => self.heal_snapshot_row(&id).await?,
                    (Rows::Devices, _, Ok(device)) => self.heal_device_row(&device).await?,
                    _ => {}
                }
            }
            if self.catalogue.is_readable(table, key).await? {
                self.found_sound(&name).await?;
            }
        }
        Ok(())
    }

    /// Adopts a snapshot again if its object opens. Its acknowledgement and its number of sightings are lost.
    async fn heal_snapshot_row(&self, id: &SnapshotId) -> Result<()> {
        let Some((group, device)) = self.catalogue.place_of(id).await? else { return Ok(()) };
        let ids = ObjectIds { group, device, snapshot: id.clone() };
        if let Some(entry) = self.sound_version(&ids).await? {
            let turn = self.turn(&ids.device).await;
            self.catalogue.drop_snapshot_row(id).await?;
            drop(turn);
            self.adopt(&entry, &ids).await?;
        }
        Ok(())
    }

    /// Restores the key id in a device's row from its newest object.
    async fn heal_device_row(&self, device: &IncarnationId) -> Result<()> {
        let Some(newest) = self.catalogue.newest_sound_snapshot(device).await? else { return Ok(()) };
        let key = object::object_key(&newest.group, &newest.device, &newest.id);
        if let Ok((opened, _)) = self.open_object(&key, &newest.version, device).await {
            self.catalogue.follow_key(device, &opened.header.key).await?;
        }
        Ok(())
    }

    async fn sound_version(&self, ids: &ObjectIds) -> Result<Option<Entry>> {
        let key = object::object_key(&ids.group, &ids.device, &ids.snapshot);
        for entry in list_all(&*self.store, &key).await?.into_iter().filter(|entry| entry.key == key && !entry.delete_marker) {
            if self.open_object(&key, &entry.version, &ids.device).await.is_ok() {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}
