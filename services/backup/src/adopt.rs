//! Adds an object of the bucket to the catalogue. The object has everything about the snapshot; its key is in the key table.

use jiff::Timestamp;
use tsujiban_core::id::DeviceName;
use tsujiban_core::retention;
use tsujiban_objects::{Entry, Head, StoreError};
use tsujiban_sealing::KeyError;

use crate::catalogue::{CatalogueError, DeviceRow, GroupState, LeftoverRow, SnapshotRow};
use crate::damage::{DamageScope, Damaged, object_name};
use crate::device::{Details, Named, OpenGroup, open_device};
use crate::error::{Error, Result};
use crate::object::{self, Header, ObjectIds, Opened};
use crate::service::Backup;

/// The result of adopting an object.
pub(crate) enum Adopted {
    Snapshot,
    /// Its device or group is recorded as erased: expiry deletes the object when its lock has run out.
    Erased,
    Damaged(Damaged),
    /// It is damaged, and the catalogue's snapshot is another version of it.
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

    /// The same for a caller that already holds the device's mutex (`turn`).
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
        if !self.catalogue.has_keys(&ids.device).await? {
            return Err(missing("the data key of its device").into());
        }
        let group = self.catalogue.group(&ids.group).await?.ok_or_else(|| missing("its group"))?;
        let group = self.open_group(group).await?;
        let (opened, key) = self.open_object(&entry.key, &entry.version, &ids.device).await?;
        let header = &opened.header;
        self.adopt_device(&group, &opened, &entry.key).await?;
        let before = self.catalogue.trusted_size(&ids.device, &ids.snapshot).await?;
        let locked_until = head.lock.map_or(header.taken_at, |lock| lock.until);
        let seen_once = locked_until <= object::lock_of_sighting(header.taken_at).time();
        let snapshot = SnapshotRow {
            id: ids.snapshot.clone(),
            device: ids.device.clone(),
            group: ids.group.clone(),
            version: entry.version.clone(),
            driver: Some(opened.meta.driver.clone()),
            taken_at: header.taken_at,
            seen_at: if seen_once { header.taken_at } else { retention::last_sighting(locked_until) },
            sightings: if seen_once { 1 } else { 2 },
            locked_until,
            bytes: header.bytes,
            stored_bytes: head.bytes,
            // an unknown driver cannot say which lines change by themselves: without a MAC the next backup is stored anew
            stable_mac: opened.meta.driver.known().map(|driver| object::stable_mac(&key, driver, &opened.config)).unwrap_or_default(),
            shrunk: seen_once && before.is_some_and(|before| retention::shrunk(before, header.bytes)),
            damaged: false,
        };
        Ok(self.catalogue.adopt_snapshot(&snapshot, &entry.key).await?)
    }

    /// Adds or updates the device as its newest snapshot describes it. What the catalogue has stays when it is newer.
    async fn adopt_device(&self, group: &OpenGroup, opened: &Opened, object: &str) -> Result<()> {
        let (header, meta) = (&opened.header, &opened.meta);
        let name: DeviceName = meta.name.parse().map_err(|_| Damaged::object(object, "it is of a device without a valid name"))?;
        let mut details = Details::new(&Named { serial: meta.serial.clone(), name });
        details.pinned_host_key.clone_from(&meta.pinned_host_key);
        details.observed_host_key.clone_from(&meta.host_key);
        details.model.clone_from(&meta.model);
        details.firmware.clone_from(&meta.firmware);
        let row = self.seal_device(group, header.device.clone(), header.key.clone(), &details)?;
        let Some(known) = self.catalogue.device(&header.device).await? else { return self.add_adopted(group, row, header, object).await };
        if !known.is_described() {
            return self.describe(group, &row, header).await;
        }
        let is_earlier = known.serial_mac != row.serial_mac;
        let row = if is_earlier { earlier(group, row) } else { row };
        let device = match open_device(group, known.clone()) {
            Err(Error::Damaged(damaged)) => return self.heal_device(&row, &known, &damaged).await,
            device => device?,
        };
        if is_earlier {
            return Ok(());
        }
        // objects come in the order of their ids, so while a lost catalogue is rebuilt each one is newer than the one before
        let newest = self.catalogue.newest_snapshot(&header.device).await?;
        let noted = self.catalogue.has_attempt(&header.device).await?;
        if noted || newest.is_some_and(|newest| newest.id >= header.snapshot) {
            return Ok(());
        }
        self.catalogue.follow_key(&header.device, &header.key).await?;
        self.change_device(group, device, |known| known.clone_from(&details)).await.map(drop)
    }

    /// Adds a device that the catalogue does not have. If another one has its serial number, as after a loss of the keys, this one is added
    /// as an earlier device of that number.
    async fn add_adopted(&self, group: &OpenGroup, row: DeviceRow, header: &Header, object: &str) -> Result<()> {
        if self.catalogue.serial_erased_since(&row.serial_mac, header.taken_at).await? {
            return Err(Damaged::object(object, "the device with its serial number was erased after it was stored").into());
        }
        if self.catalogue.add_device(&row, &[], None).await? || self.catalogue.add_device(&earlier(group, row), &[], None).await? {
            return Ok(());
        }
        Err(CatalogueError::Gone.into()) // a concurrent call is adding it
    }

    /// Describes a device that was known only by its objects. If the device with its serial number was erased since the object was taken,
    /// it was this one, and it is erased now.
    async fn describe(&self, group: &OpenGroup, row: &DeviceRow, header: &Header) -> Result<()> {
        if self.catalogue.serial_erased_since(&row.serial_mac, header.taken_at).await? {
            self.catalogue.erase_incarnation(&row.incarnation, self.now()).await?;
            tracing::warn!(device = %row.incarnation, "the key of a device came back that was erased meanwhile; it was destroyed");
            self.renew_copy().await?;
            return Err(CatalogueError::Gone.into());
        }
        if self.catalogue.describe_device(row).await? || self.catalogue.describe_device(&earlier(group, row.clone())).await? {
            tracing::warn!(device = %row.incarnation, "a device of which only objects were known is known again");
            return Ok(());
        }
        Err(CatalogueError::Gone.into())
    }

    /// Replaces a device's damaged description by the one in the object.
    async fn heal_device(&self, row: &DeviceRow, known: &DeviceRow, damaged: &Damaged) -> Result<()> {
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
        let mut whose = DamageScope { group: Some(ids.group.clone()), device: Some(ids.device.clone()), snapshot: None };
        if damaged.name == object_name(&entry.key) {
            whose.snapshot = Some(ids.snapshot.clone());
        }
        self.found_damaged(&damaged, &whose).await?;
        Ok(Adopted::Damaged(damaged))
    }

    /// Adds a damaged snapshot to the catalogue, if the catalogue has its device or can add it (`ensure_device_row`).
    pub(crate) async fn list_damaged(&self, entry: &Entry, ids: &ObjectIds) -> Result<()> {
        if self.catalogue.has_snapshot(&ids.snapshot).await? {
            return Ok(());
        }
        if !self.ensure_device_row(entry, ids).await? {
            return Ok(());
        }
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
            driver: None,
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
        self.republish_newest_damaged(&row).await
    }

    /// Whether the catalogue has the device of a damaged object; if not, adds it without a description, by the object's clear header.
    /// `false`: its group is not known, or the header cannot be read.
    async fn ensure_device_row(&self, entry: &Entry, ids: &ObjectIds) -> Result<bool> {
        if self.catalogue.has_device(&ids.device).await? {
            return Ok(true);
        }
        if self.catalogue.group(&ids.group).await?.is_none_or(|group| group.state == GroupState::Erased) {
            return Ok(false);
        }
        let bytes = match self.store.get(&entry.key, Some(&entry.version)).await {
            Err(StoreError::NotFound { .. } | StoreError::Damaged { .. }) => return Ok(false),
            bytes => bytes?,
        };
        let header = object::header(&bytes).ok().filter(|header| header.device == ids.device && header.group == ids.group);
        let Some(header) = header else { return Ok(false) };
        self.catalogue.add_device(&DeviceRow::undescribed(ids.device.clone(), ids.group.clone(), header.key), &[], None).await?;
        Ok(true)
    }

    /// Adopts again a snapshot that was listed without having been read.
    pub(crate) async fn adopt_listed(&self, row: &SnapshotRow) -> Result<()> {
        let ids = ObjectIds { group: row.group.clone(), device: row.device.clone(), snapshot: row.id.clone() };
        let key = object::object_key(&ids.group, &ids.device, &ids.snapshot);
        let entry = Entry { key, version: row.version.clone(), delete_marker: false };
        self.adopt(&entry, &ids).await.map(drop)
    }
}

/// The row of an earlier device, whose serial number another one has now: its `name_mac` holds the number's MAC, so that a search finds it
/// too.
fn earlier(group: &OpenGroup, row: DeviceRow) -> DeviceRow {
    DeviceRow { serial_mac: group.earlier_mac(&row.incarnation).to_vec(), name_mac: row.serial_mac, ..row }
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
