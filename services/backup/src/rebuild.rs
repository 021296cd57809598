//! The catalogue from the bucket. Everything is in the objects: who, when, how long; the key table's copy has the keys.
//!
//! A rebuild adds what is missing, corrects what differs and takes out what is not in the bucket; it can run at any time, also
//! while configs are taken in. What the bucket does not know is lost with a lost database: acknowledgements, exact numbers of
//! sightings, outcomes of attempts, and host keys pinned after the newest change of a config.

use std::collections::HashSet;

use jiff::Timestamp;
use tsujiban_core::id::{DeviceName, SnapshotId};
use tsujiban_core::retention;
use tsujiban_objects::{Cursor, Entry, Head, StoreError};
use tsujiban_sealing::KeyError;

use crate::catalogue::{CatalogueError, LeftoverRow, SnapshotRow};
use crate::device::{Details, Named, OpenGroup};
use crate::error::{Error, Result};
use crate::intake;
use crate::object::{self, ObjectError, ObjectIds, PREFIX, ids_of_key};
use crate::service::Backup;

const BATCH: u32 = 500;

/// How far a rebuild is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    pub objects: u64,
    pub snapshots: u64,
    /// Objects that could not be read, such as those of erased devices.
    pub unreadable: u64,
}

/// A rebuild under way. [`step`](Self::step) until it answers `false`.
pub struct Rebuild {
    started: Timestamp,
    from: Option<Cursor>,
    listed: HashSet<SnapshotId>,
    pub progress: Progress,
}

enum Adopted {
    Snapshot,
    Unreadable,
}

impl Rebuild {
    /// Starts with what the key table says is erased: an old database may still have rows of it.
    pub async fn begin(backup: &Backup) -> Result<Self> {
        for group in backup.catalogue.groups(None).await?.iter().filter(|group| group.state == crate::catalogue::GroupState::Erased) {
            backup.catalogue.erase_group(group).await?;
        }
        for device in backup.catalogue.keyless_devices().await? {
            backup.catalogue.erase_device(&device).await?;
        }
        Ok(Self { started: backup.now(), from: None, listed: HashSet::new(), progress: Progress::default() })
    }

    /// Works through one page of the bucket. Answers whether there is more.
    pub async fn step(&mut self, backup: &Backup) -> Result<bool> {
        let page = backup.store.list(PREFIX, self.from.take()).await?;
        for entry in page.entries {
            let Some(ids) = ids_of_key(&entry.key).filter(|_| !entry.delete_marker) else { continue };
            self.progress.objects += 1;
            match backup.adopt(&entry, &ids).await? {
                Some(Adopted::Snapshot) => {
                    self.listed.insert(ids.snapshot);
                    self.progress.snapshots += 1;
                }
                Some(Adopted::Unreadable) => self.progress.unreadable += 1,
                // deleted since it was listed
                None => {}
            }
        }
        self.from = page.next;
        if self.from.is_some() {
            return Ok(true);
        }
        backup.drop_missing(self.started, &self.listed).await?;
        Ok(false)
    }
}

impl Backup {
    /// A whole rebuild.
    pub async fn rebuild(&self) -> Result<Progress> {
        let mut rebuild = Rebuild::begin(self).await?;
        while rebuild.step(self).await? {
            tracing::info!(objects = rebuild.progress.objects, snapshots = rebuild.progress.snapshots, "rebuilding the catalogue");
        }
        let Progress { objects, snapshots, unreadable } = rebuild.progress;
        tracing::info!(objects, snapshots, unreadable, "catalogue rebuilt");
        Ok(rebuild.progress)
    }

    async fn adopt(&self, entry: &Entry, ids: &ObjectIds) -> Result<Option<Adopted>> {
        let head = match self.store.head(&entry.key, Some(&entry.version)).await {
            Err(StoreError::NotFound { .. }) => return Ok(None),
            head => head?,
        };
        let _turn = self.turn(&ids.device).await;
        match self.adopt_readable(entry, ids, &head).await {
            Err(Error::Key(KeyError::Destroyed) | Error::Catalogue(CatalogueError::Gone)) => {
                self.catalogue.note_leftover(&leftover(entry, ids, &head)).await?;
                Ok(Some(Adopted::Unreadable))
            }
            Err(Error::Object(error)) => {
                tracing::error!(object = entry.key, %error, "an object in the storage cannot be read");
                Ok(Some(Adopted::Unreadable))
            }
            Err(Error::Store(StoreError::NotFound { .. })) => Ok(None),
            adopted => adopted.map(|()| Some(Adopted::Snapshot)),
        }
    }

    async fn adopt_readable(&self, entry: &Entry, ids: &ObjectIds, head: &Head) -> Result<()> {
        let key_id = self.catalogue.key_of(&ids.device).await?.ok_or(KeyError::Destroyed)?;
        let key = self.data_key(&key_id).await?;
        let group = self.catalogue.group(&ids.group).await?.ok_or(KeyError::Destroyed)?;
        let group = self.open_group(group).await?;
        let object = self.store.get(&entry.key, Some(&entry.version)).await?;
        let opened = object::open(&object, &key)?;
        let header = &opened.header;
        if (&header.group, &header.device, &header.snapshot) != (&ids.group, &ids.device, &ids.snapshot) {
            return Err(ObjectError::Contents("it lies under the key of another object").into());
        }
        self.adopt_device(&group, &opened, &key_id).await?;
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
        };
        Ok(self.catalogue.adopt_snapshot(&snapshot, &entry.key).await?)
    }

    /// Makes the device as its newest snapshot knew it. A device that is in the catalogue knows better.
    async fn adopt_device(&self, group: &OpenGroup, opened: &object::Opened, key_id: &tsujiban_core::id::KeyId) -> Result<()> {
        let (header, meta) = (&opened.header, &opened.meta);
        let name: DeviceName = meta.name.parse().map_err(|_| ObjectError::Contents("it is of a device without a valid name"))?;
        let mut details = Details::new(&Named { serial: meta.serial.clone(), name });
        details.pinned_host_key.clone_from(&meta.pinned_host_key);
        details.observed_host_key.clone_from(&meta.host_key);
        details.model.clone_from(&meta.model);
        details.firmware.clone_from(&meta.firmware);
        let row = self.seal_device(group, header.device.clone(), key_id.clone(), &details)?;
        if self.catalogue.add_device(&row, &[], None).await? {
            return Ok(());
        }
        let Some(device) = self.find_device(group, &meta.serial).await?.filter(|device| device.row.incarnation == header.device) else {
            return Err(ObjectError::Contents("another device has its serial number now").into());
        };
        // objects come in the order of their ids, so while a lost catalogue is rebuilt each one is newer than the one before
        let newest = self.catalogue.newest_snapshot(&header.device).await?;
        let noted = self.catalogue.has_attempt(&header.device).await?;
        if noted || newest.is_some_and(|newest| newest.id >= header.snapshot) {
            return Ok(());
        }
        self.change_device(group, device, |known| known.clone_from(&details)).await.map(drop)
    }

    /// Takes out of the catalogue what is not in the bucket. What was stored since the start may not have been listed.
    async fn drop_missing(&self, started: Timestamp, listed: &HashSet<SnapshotId>) -> Result<()> {
        let mut after: Option<SnapshotId> = None;
        loop {
            let rows = self.catalogue.snapshots_taken_before(started, after.as_ref(), BATCH).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = Some(last.id.clone());
            for row in rows.iter().filter(|row| !listed.contains(&row.id)) {
                let object = object::object_key(&row.group, &row.device, &row.id);
                if let Err(error) = self.store.head(&object, Some(&row.version)).await {
                    let StoreError::NotFound { .. } = error else { return Err(error.into()) };
                    tracing::error!(object, "a snapshot in the catalogue is not in the storage; taken out of the catalogue");
                    self.catalogue.forget_snapshot(&row.id).await?;
                }
            }
        }
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
