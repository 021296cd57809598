//! Database and key table lost at the same time: nothing that was stored before can be opened, and all else works (ADR 17).
//!
//! Only the names and clear headers of objects remain: incarnations, devices and times. So the loss is noted, objects are kept and reported
//! as damaged, the operator says which group an incarnation belongs to, and devices get new keys. A restored key table is merged like any
//! other, and objects that its keys open are read again.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use tsujiban_core::id::{GroupId, IncarnationId, SnapshotId};
use tsujiban_objects::list_all;

use crate::catalogue::{CatalogueError, GroupState, Meta};
use crate::damage::{DamageScope, Damaged, KEY_TABLE, object_name};
use crate::error::Result;
use crate::life::REMEMBERED;
use crate::object::{PREFIX, ids_of_key};
use crate::service::Backup;

const BATCH: u32 = 500;

impl Backup {
    /// Notes that the keys are lost. From now on the key table counts as newer than any copy that may be restored.
    pub(crate) async fn begin_without_keys(&self, why: &str) -> Result<()> {
        let now = self.now();
        self.catalogue.raise_generation(u64::try_from(now.as_microsecond()).unwrap_or_default()).await?;
        self.catalogue.set_meta(Meta::KeysLost, &now.as_microsecond().to_string()).await?;
        self.catalogue.set_meta(Meta::RebuildDue, "yes").await?;
        let detail = format!(
            "it was lost with the database, and its copy in the bucket {why}: what was stored before cannot be opened until a copy of it is \
             brought back"
        );
        self.found_damaged(&Damaged::key_table(detail), &DamageScope::default()).await.map(drop)
    }

    /// Whether an incarnation that the catalogue does not know may be one whose row was lost with the keys.
    pub(crate) async fn was_lost(&self, incarnation: &IncarnationId) -> Result<bool> {
        if self.catalogue.group(incarnation).await?.is_some() {
            return Ok(false);
        }
        if let Some(at) = self.keys_lost_at().await? {
            return Ok(self.now().duration_since(at) < REMEMBERED);
        }
        Ok(!self.store.list(&format!("{PREFIX}{incarnation}/"), None).await?.entries.is_empty())
    }

    async fn keys_lost_at(&self) -> Result<Option<Timestamp>> {
        let Some(text) = self.catalogue.meta(Meta::KeysLost).await? else { return Ok(None) };
        let at = text.parse().ok().and_then(|micros| Timestamp::from_microsecond(micros).ok());
        Ok(Some(at.ok_or(CatalogueError::Corrupt { column: "keys lost", value: text })?))
    }

    /// Adds an incarnation that the operator names as a group's, with a new key.
    pub(crate) async fn adopt_incarnation(&self, group: &GroupId, incarnation: &IncarnationId) -> Result<()> {
        tracing::warn!(%group, %incarnation, "a group whose keys are lost was named by the operator; it goes on with a new key");
        self.begin_group(group, incarnation).await
    }

    /// Lists damaged objects whose group has become known since they were found.
    pub async fn list_unlisted(&self) -> Result<()> {
        let present = self.present_groups().await?;
        for row in self.catalogue.unlisted_damage().await? {
            let Some(key) = row.name.strip_prefix(&object_name("")) else { continue };
            let Some(ids) = ids_of_key(key).filter(|ids| present.contains(&ids.group)) else { continue };
            for entry in list_all(&*self.store, key).await?.into_iter().filter(|entry| entry.key == key && !entry.delete_marker) {
                self.list_damaged(&entry, &ids).await?;
            }
        }
        Ok(())
    }

    /// Works off the loss: lists objects whose group has become known, reads damaged snapshots again when keys were restored, and ends the
    /// loss when the group of every object is known. Objects that stay unreadable are damage of their groups.
    pub async fn follow_key_loss(&self) -> Result<()> {
        let mut is_lost = self.catalogue.is_damaged(KEY_TABLE).await?;
        if is_lost {
            self.list_unlisted().await?;
        }
        if self.keys_restored.swap(false, Ordering::SeqCst)
            && let Err(error) = self.read_damaged_again().await
        {
            self.keys_restored.store(true, Ordering::SeqCst);
            return Err(error);
        }
        if is_lost && !self.has_objects_of_unknown_groups().await? {
            self.found_sound(KEY_TABLE).await?;
            is_lost = false;
        }
        self.metrics.key_table_lost.set(i64::from(is_lost));
        Ok(())
    }

    /// Whether the key table was lost at the last [`follow_key_loss`](Self::follow_key_loss).
    pub fn key_table_is_lost(&self) -> bool {
        self.metrics.key_table_lost.get() > 0
    }

    /// Newest first: the newest object describes its device.
    async fn read_damaged_again(&self) -> Result<()> {
        self.list_unlisted().await?;
        let mut before: Option<SnapshotId> = None;
        loop {
            let rows = self.catalogue.damaged_snapshots(before.as_ref(), BATCH).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            before = Some(last.id.clone());
            for row in &rows {
                self.adopt_listed(row).await?;
            }
        }
    }

    async fn has_objects_of_unknown_groups(&self) -> Result<bool> {
        let present = self.present_groups().await?;
        let unlisted = self.catalogue.unlisted_damage().await?;
        Ok(unlisted.iter().filter_map(|row| row.group.as_ref()).any(|group| !present.contains(group)))
    }

    async fn present_groups(&self) -> Result<BTreeSet<IncarnationId>> {
        let groups = self.catalogue.groups(None).await?.into_iter();
        Ok(groups.filter(|group| group.state != GroupState::Erased).map(|group| group.incarnation).collect())
    }
}
