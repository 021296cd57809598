//! An object of the bucket into the catalogue. Everything is in the objects: who, when, how long; the key table has the keys.

use jiff::Timestamp;
use tsujiban_core::id::{DeviceName, KeyId};
use tsujiban_core::retention;
use tsujiban_objects::{Entry, Head, StoreError};
use tsujiban_sealing::KeyError;

use crate::catalogue::{CatalogueError, LeftoverRow, SnapshotRow};
use crate::damage::{Damaged, Whose, object_name};
use crate::device::{Details, Named, OpenGroup};
use crate::error::{Error, Result};
use crate::intake;
use crate::object::{self, ObjectIds, Opened};
use crate::service::Backup;

/// What became of an object.
pub(crate) enum Adopted {
    Snapshot,
    /// It is on record that its device or group was erased: it goes when its lock has run out.
    Erased,
    Damaged(Damaged),
    /// Another version of the object is the snapshot's.
    OtherVersion,
    /// It cannot be opened and was never locked: this service did not put it.
    Foreign,
    /// The epoch key that it needs is not mounted.
    Unopened,
    /// Deleted or erased since it was listed.
    Gone,
}

impl Backup {
    pub(crate) async fn adopt(&self, entry: &Entry, ids: &ObjectIds) -> Result<Adopted> {
        let _turn = self.turn(&ids.device).await;
        self.adopt_in_turn(entry, ids).await
    }

    /// The same for a caller that has the turn of the device.
    pub(crate) async fn adopt_in_turn(&self, entry: &Entry, ids: &ObjectIds) -> Result<Adopted> {
        let head = match self.store.head(&entry.key, Some(&entry.version)).await {
            Err(StoreError::NotFound { .. }) => return Ok(Adopted::Gone),
            head => head?,
        };
        if self.catalogue.is_erased(&ids.group, &ids.device).await? {
            self.catalogue.note_leftover(&leftover(entry, ids, &head)).await?;
            return Ok(Adopted::Erased);
        }
        match self.adopt_readable(entry, ids, &head).await {
            Ok(()) => {
                self.found_sound(&object_name(&entry.key)).await?;
                Ok(Adopted::Snapshot)
            }
            Err(Error::Damaged(damaged)) => self.keep_damaged(entry, ids, &head, damaged).await,
            Err(Error::Key(KeyError::EpochMissing(epoch))) => {
                tracing::error!(object = entry.key, %epoch, "an object cannot be opened before its epoch key is mounted again");
                Ok(Adopted::Unopened)
            }
            Err(Error::Key(KeyError::Destroyed) | Error::Catalogue(CatalogueError::Gone) | Error::Store(StoreError::NotFound { .. })) => {
                Ok(Adopted::Gone)
            }
            Err(error) => Err(error),
        }
    }

    async fn adopt_readable(&self, entry: &Entry, ids: &ObjectIds, head: &Head) -> Result<()> {
        let missing = |what: &str| Damaged::object(&entry.key, format!("{what} is not in the key table, and no erasure is on record"));
        let key_id = self.catalogue.key_of(&ids.device).await?.ok_or_else(|| missing("the data key of its device"))?;
        let key = self.data_key(&key_id, &ids.device).await?;
        let group = self.catalogue.group(&ids.group).await?.ok_or_else(|| missing("its group"))?;
        let group = self.open_group(group).await?;
        let opened = self.open_object(&entry.key, &entry.version, &key).await?;
        let header = &opened.header;
        self.adopt_device(&group, &opened, &entry.key, &key_id).await?;
        let before = self.catalogue.trusted_size(&ids.device, &ids.snapshot).await?;
        let locked_until = head.lock.map_or(header.taken_at, |lock| lock.until);
        let seen_once = locked_until <= object::lock_of_sighting(header.taken_at).time();
        let snapshot = SnapshotRow {
            id: ids.snapshot.clone(),
            device: ids.device.clone(),
            group: ids.group.clone(),
            version: entry.version.clone(),
            driver: opened.meta.driver,
            taken_at: header.taken_at,
            seen_at: if seen_once { header.taken_at } else { retention::last_sighting(locked_until) },
            sightings: if seen_once { 1 } else { 2 },
            locked_until,
            bytes: header.bytes,
            stored_bytes: head.bytes,
            stable_mac: intake::stable_mac(&key, opened.meta.driver, &opened.config),
            shrunk: seen_once && before.is_some_and(|before| retention::shrunk(before, header.bytes)),
            damaged: false,
        };
        Ok(self.catalogue.adopt_snapshot(&snapshot, &entry.key).await?)
    }

    /// Makes the device as its newest snapshot knew it. A device that is in the catalogue knows better.
    async fn adopt_device(&self, group: &OpenGroup, opened: &Opened, object: &str, key_id: &KeyId) -> Result<()> {
        let (header, meta) = (&opened.header, &opened.meta);
        let name: DeviceName = meta.name.parse().map_err(|_| Damaged::object(object, "it is of a device without a valid name"))?;
        let mut details = Details::new(&Named { serial: meta.serial.clone(), name });
        details.pinned_host_key.clone_from(&meta.pinned_host_key);
        details.observed_host_key.clone_from(&meta.host_key);
        details.model.clone_from(&meta.model);
        details.firmware.clone_from(&meta.firmware);
        let row = self.seal_device(group, header.device.clone(), key_id.clone(), &details)?;
        if self.catalogue.add_device(&row, &[], None).await? {
            return Ok(());
        }
        let known = match self.find_device(group, &meta.serial).await {
            Err(Error::Damaged(damaged)) => return self.heal_device(&row, &damaged).await,
            known => known?.filter(|device| device.row.incarnation == header.device),
        };
        let Some(device) = known else {
            return Err(Damaged::object(object, "another device has its serial number now").into());
        };
        // objects come in the order of their ids, so while a lost catalogue is rebuilt each one is newer than the one before
        let newest = self.catalogue.newest_snapshot(&header.device).await?;
        let noted = self.catalogue.has_attempt(&header.device).await?;
        if noted || newest.is_some_and(|newest| newest.id >= header.snapshot) {
            return Ok(());
        }
        self.change_device(group, device, |known| known.clone_from(&details)).await.map(drop)
    }

    /// The description of a device is damaged, and the object has what it said.
    async fn heal_device(&self, row: &crate::catalogue::DeviceRow, damaged: &Damaged) -> Result<()> {
        let Some(known) = self.catalogue.device(&row.incarnation).await? else { return Err(CatalogueError::Gone.into()) };
        if self.catalogue.update_device(row, &known.sealed, None).await? {
            self.found_sound(&damaged.name).await?;
        }
        Ok(())
    }

    async fn keep_damaged(&self, entry: &Entry, ids: &ObjectIds, head: &Head, damaged: Damaged) -> Result<Adopted> {
        let known = self.catalogue.snapshot(&ids.group, &ids.snapshot).await?;
        if known.is_some_and(|known| known.version != entry.version) {
            return Ok(Adopted::OtherVersion);
        }
        if head.lock.is_none() {
            tracing::warn!(object = entry.key, "an object was never locked and cannot be opened: this service did not put it");
            return Ok(Adopted::Foreign);
        }
        let mut whose = Whose { group: Some(ids.group.clone()), device: Some(ids.device.clone()), snapshot: None };
        if damaged.name == object_name(&entry.key) {
            whose.snapshot = Some(ids.snapshot.clone());
        }
        self.found_damaged(&damaged, &whose).await?;
        Ok(Adopted::Damaged(damaged))
    }

    /// Lists a damaged snapshot among those of its device, if that is known by others.
    pub(crate) async fn list_damaged(&self, entry: &Entry, ids: &ObjectIds) -> Result<()> {
        if self.catalogue.has_snapshot(&ids.snapshot).await? {
            return Ok(());
        }
        // of a device that no sound object describes nothing is known but the object's name
        let Some(sound) = self.catalogue.newest_sound_snapshot(&ids.device).await? else { return Ok(()) };
        let head = match self.store.head(&entry.key, Some(&entry.version)).await {
            Err(StoreError::NotFound { .. }) => return Ok(()),
            head => head?,
        };
        let locked_until = head.lock.map_or(Timestamp::UNIX_EPOCH, |lock| lock.until);
        let taken_at = object::time_of(&ids.snapshot).unwrap_or(locked_until);
        let row = SnapshotRow {
            id: ids.snapshot.clone(),
            device: ids.device.clone(),
            group: ids.group.clone(),
            version: entry.version.clone(),
            driver: sound.driver,
            taken_at,
            seen_at: retention::last_sighting(locked_until).max(taken_at),
            sightings: 1,
            locked_until,
            bytes: 0,
            stored_bytes: head.bytes,
            stable_mac: Vec::new(),
            shrunk: false,
            damaged: true,
        };
        self.catalogue.list_damaged_snapshot(&row).await?;
        self.tell_newest_damaged(&row).await
    }
}

fn leftover(entry: &Entry, ids: &ObjectIds, head: &Head) -> LeftoverRow {
    LeftoverRow {
        object: entry.key.clone(),
        version: entry.version.clone(),
        group: ids.group.clone(),
        locked_until: head.lock.map_or(Timestamp::UNIX_EPOCH, |lock| lock.until),
        stored_bytes: head.bytes,
    }
}
