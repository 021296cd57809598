//! Stores configs: a changed one becomes a new object, an unchanged one prolongs the lock of the stored object.

use bytes::Bytes;
use jiff::Timestamp;
use tsujiban_core::driver::Driver;
use tsujiban_core::id::SnapshotId;
use tsujiban_core::outcome::Reason;
use tsujiban_core::retention;
use tsujiban_objects::{StoreError, list_all};
use tsujiban_proto::error::Kind;
use tsujiban_sealing::DataKey;
use tsujiban_service::caller::GroupScope;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::adopt::Adopted;
use crate::catalogue::{Answered, CatalogueError, LeftoverRow, NewAttempt, SnapshotRow};
use crate::damage::Damaged;
use crate::device::{Declared, Details, Device, Named, OpenGroup};
use crate::error::{Error, Result};
use crate::object::{self, Header, Meta, ObjectIds};
use crate::reading::NOT_THERE;
use crate::service::Backup;

/// A fetched config whose upload was complete; whether the device sent all of it is not checked yet.
pub struct Fetched {
    pub device: Declared,
    pub driver: Driver,
    pub idempotency_key: Uuid,
    pub host_key: String,
    pub model: String,
    pub firmware: String,
    pub config: Zeroizing<Vec<u8>>,
}

/// The result of storing a config.
pub struct Stored {
    pub snapshot: SnapshotRow,
    pub details: Details,
    pub changed: bool,
}

impl Backup {
    /// Stores a config. Answers when the storage holds it under its lock (C23), never before.
    pub async fn store_config(&self, scope: &GroupScope, fetched: Fetched) -> Result<Stored> {
        fetched.driver.check_whole(&fetched.config).map_err(|defect| {
            Error::refuse(Kind::Invalid, "NOT_WHOLE", format!("the config is not whole, so it is not stored: {defect}; fetch it again"))
        })?;
        let stored = self.take_in_whole(scope, &fetched).await;
        self.prefer_life_ended(&fetched.device.life, stored).await
    }

    async fn take_in_whole(&self, scope: &GroupScope, fetched: &Fetched) -> Result<Stored> {
        let group = self.living_group(scope).await?;
        let key = fetched.idempotency_key.to_string();
        if let Some(answered) = self.catalogue.answered(group.incarnation(), &key).await? {
            return self.repeat(&group, &fetched.device.named, answered).await;
        }
        let device = self.device_for(&group, &fetched.device).await?;
        let device = self.change_device(&group, device, |details| {
            details.observed_host_key.clone_from(&fetched.host_key);
            if details.pinned_host_key.is_empty() {
                // the collector used the key of the Device's spec: pinned here, it stays known if the Device loses it
                details.pinned_host_key.clone_from(&fetched.host_key);
            }
            details.model.clone_from(&fetched.model);
            details.firmware.clone_from(&fetched.firmware);
        });
        let device = device.await?;
        let _turn = self.turn(&device.row.incarnation).await;
        // a repetition of this call may have stored it while this one waited for its turn
        if let Some(answered) = self.catalogue.answered(group.incarnation(), &key).await? {
            return self.repeat(&group, &fetched.device.named, answered).await;
        }
        let (device, stored) = match self.sealing_key(&group, device.clone()).await {
            Ok((device, key)) => {
                let stored = self.store_or_touch(&group, &device, fetched, &key).await;
                (device, stored)
            }
            Err(error) => (device, Err(error)),
        };
        match stored {
            Err(Error::Store(error)) => {
                let message = "the config was fetched, but the storage did not take it";
                self.note_attempt(&group, &device, Some(Reason::Store), message, None).await?;
                Err(error.into())
            }
            Err(Error::Damaged(damaged)) => {
                self.note_attempt(&group, &device, Some(Reason::Store), &damaged.to_string(), None).await?;
                Err(damaged.into())
            }
            other => other,
        }
    }

    async fn store_or_touch(&self, group: &OpenGroup, device: &Device, fetched: &Fetched, key: &DataKey) -> Result<Stored> {
        let stable_mac = object::stable_mac(key, fetched.driver, &fetched.config);
        let found = self.finish_upload(group, device).await?;
        let newest = self.catalogue.newest_snapshot(&device.row.incarnation).await?;
        let newest_id = newest.as_ref().map(|newest| newest.id.clone());
        // in the place of a damaged one the config is stored anew, although it has not changed
        let same = newest.filter(|newest| !newest.damaged && newest.stable_mac == stable_mac);
        if let Some(newest) = self.still_stored(same).await? {
            // a snapshot that was adopted only now was reported to no caller yet
            let is_new = found.as_ref() == Some(&newest.id);
            match self.record_sighting(group, device, fetched, &newest, is_new).await {
                Err(Error::Store(StoreError::NotFound { key })) => {
                    self.found_damaged_snapshot(&newest, &Damaged::object(&key, NOT_THERE)).await?;
                }
                other => return other,
            }
        }
        let id = self.snapshot_id(newest_id.as_ref())?;
        self.store_new(group, device, fetched, key, (id, stable_mac)).await
    }

    /// The snapshot, if the storage has its object in its size; one that is gone, cut or emptied is not reported as unchanged. The scrub
    /// checks its bytes.
    async fn still_stored(&self, newest: Option<SnapshotRow>) -> Result<Option<SnapshotRow>> {
        let Some(newest) = newest else { return Ok(None) };
        let object = object::object_key(&newest.group, &newest.device, &newest.id);
        let head = self.store.head(&object, Some(&newest.version)).await;
        if head.is_ok_and(|head| head.bytes == newest.stored_bytes) {
            return Ok(Some(newest));
        }
        if !self.check_snapshot(&newest).await? {
            return Ok(None);
        }
        // the check may have replaced a damaged version of the object by another one
        Ok(self.catalogue.snapshot(&newest.group, &newest.id).await?)
    }

    /// Adopts the object of an earlier upload of the device that the storage has and this service did not record, since the storage's
    /// answer was lost or the database failed. So no try leaves an unknown object behind.
    async fn finish_upload(&self, group: &OpenGroup, device: &Device) -> Result<Option<SnapshotId>> {
        let Some(snapshot) = self.catalogue.upload(&device.row.incarnation).await? else { return Ok(None) };
        let ids = ObjectIds { group: group.incarnation().clone(), device: device.row.incarnation.clone(), snapshot };
        let object = object::object_key(&ids.group, &ids.device, &ids.snapshot);
        let mut found = None;
        if self.catalogue.has_snapshot(&ids.snapshot).await? {
            self.catalogue.end_upload(&ids.device).await?;
            return Ok(None);
        }
        for entry in list_all(&*self.store, &object).await?.into_iter().filter(|entry| entry.key == object && !entry.delete_marker) {
            if let Adopted::Snapshot = self.adopt_in_turn(&entry, &ids).await? {
                tracing::warn!(object, "an upload that did not end was found in the storage and taken in");
                found = Some(ids.snapshot.clone());
            }
        }
        self.catalogue.end_upload(&ids.device).await?;
        Ok(found)
    }

    async fn record_sighting(
        &self,
        group: &OpenGroup,
        device: &Device,
        fetched: &Fetched,
        newest: &SnapshotRow,
        is_new: bool,
    ) -> Result<Stored> {
        let attempt = self.succeeded(group, device, fetched, newest.id.clone(), is_new)?;
        let lock = object::lock_of_sighting(attempt.time);
        let object = object::object_key(group.incarnation(), &device.row.incarnation, &newest.id);
        if lock.time() > newest.locked_until {
            self.store.set_lock(&object, &newest.version, lock).await?;
        }
        self.catalogue.record_sighting(&newest.id, lock.time(), &attempt).await?;
        self.metrics.unchanged.inc();
        self.stored(group, device, newest.id.clone(), is_new).await
    }

    async fn store_new(
        &self,
        group: &OpenGroup,
        device: &Device,
        fetched: &Fetched,
        key: &DataKey,
        (id, stable_mac): (SnapshotId, Vec<u8>),
    ) -> Result<Stored> {
        // an object whose key is not in the bucket's copy of the key table would be lost with the database
        self.copy_key_table().await?;
        let attempt = self.succeeded(group, device, fetched, id.clone(), true)?;
        let sealed = self.seal_snapshot(group, device, fetched, key, (&id, attempt.time))?;
        let (bytes, stored_bytes) = (length(&fetched.config), length(&sealed));
        let before = self.catalogue.trusted_size(&device.row.incarnation, &id).await?;
        let lock = object::lock_of_sighting(attempt.time);
        let object = object::object_key(group.incarnation(), &device.row.incarnation, &id);
        // before the put: nothing is put while the database cannot be written and so could not record it
        self.catalogue.begin_upload(&device.row.incarnation, &id, device.life.as_ref()).await?;
        let version = self.store.put(&object, sealed, Some(lock)).await?;
        let snapshot = SnapshotRow {
            id,
            device: device.row.incarnation.clone(),
            group: group.incarnation().clone(),
            version,
            driver: Some(fetched.driver.into()),
            taken_at: attempt.time,
            seen_at: attempt.time,
            sightings: 1,
            locked_until: lock.time(),
            bytes,
            stored_bytes,
            stable_mac,
            shrunk: before.is_some_and(|before| retention::shrunk(before, bytes)),
            damaged: false,
        };
        let recorded = self.catalogue.record_stored(&snapshot, &attempt).await;
        if let Err(CatalogueError::LifeEnded | CatalogueError::Gone) = recorded {
            // erased meanwhile: the object is as unreadable as those that the erasure found, and expires like them
            self.catalogue.note_leftover(&leftover(&snapshot, object)).await?;
        }
        recorded?;
        self.metrics.stored.inc();
        self.stored(group, device, snapshot.id, true).await
    }

    fn seal_snapshot(
        &self,
        group: &OpenGroup,
        device: &Device,
        fetched: &Fetched,
        key: &DataKey,
        (id, taken_at): (&SnapshotId, Timestamp),
    ) -> Result<Bytes> {
        let header = Header {
            environment: self.environment.clone(),
            group: group.incarnation().clone(),
            device: device.row.incarnation.clone(),
            snapshot: id.clone(),
            key: device.row.key_id.clone(),
            taken_at,
            bytes: 0,
            sealed_bytes: 0,
        };
        let meta = Meta {
            group: group.row.group.clone(),
            serial: device.details.serial.clone(),
            name: device.details.name.to_string(),
            driver: fetched.driver.into(),
            host_key: fetched.host_key.clone(),
            pinned_host_key: device.details.pinned_host_key.clone(),
            model: fetched.model.clone(),
            firmware: fetched.firmware.clone(),
            sha256: object::sha256(&fetched.config),
        };
        Ok(object::seal(header, &meta, &fetched.config, key, &self.random)?)
    }

    /// The record of a call that stored a snapshot or saw it again.
    fn succeeded(&self, group: &OpenGroup, device: &Device, fetched: &Fetched, snapshot: SnapshotId, changed: bool) -> Result<NewAttempt> {
        Ok(NewAttempt {
            device: device.row.incarnation.clone(),
            group: group.incarnation().clone(),
            life: device.life.clone(),
            time: self.now(),
            reason: None,
            changed,
            sealed: self.seal_message(group, &device.row.incarnation, "")?,
            snapshot: Some(snapshot),
            idempotency_key: Some(fetched.idempotency_key.to_string()),
        })
    }

    async fn stored(&self, group: &OpenGroup, device: &Device, id: SnapshotId, changed: bool) -> Result<Stored> {
        let snapshot = self.catalogue.snapshot(group.incarnation(), &id).await?.ok_or_else(|| Error::no_snapshot(id.as_str()))?;
        Ok(Stored { snapshot, details: device.details.clone(), changed })
    }

    /// Gives a repeated call the answer of the first one.
    async fn repeat(&self, group: &OpenGroup, named: &Named, answered: Answered) -> Result<Stored> {
        let device = self.find_device(group, &named.serial).await?.filter(|device| device.row.incarnation == answered.device);
        let (Some(device), Some(snapshot)) = (device, answered.snapshot) else {
            let message = "the idempotency key belongs to another call; make a new one for each call";
            return Err(Error::refuse(Kind::Invalid, "KEY_REUSED", message));
        };
        self.stored(group, &device, snapshot, answered.changed).await
    }

    /// A new id, ordered by time (UUID version 7), and after the device's newest even if the clock was set back.
    fn snapshot_id(&self, after: Option<&SnapshotId>) -> Result<SnapshotId> {
        let mut random = [0; 10];
        self.random.fill(&mut random)?;
        let newest = after.and_then(|id| id.as_str().get(..12)).and_then(|millis| u64::from_str_radix(millis, 16).ok());
        let now = u64::try_from(self.now().as_millisecond()).unwrap_or_default();
        let millis = now.max(newest.map_or(0, |newest| newest + 1));
        Ok(SnapshotId::from_bytes(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid().into_bytes()))
    }
}

fn leftover(snapshot: &SnapshotRow, object: String) -> LeftoverRow {
    LeftoverRow {
        object,
        version: snapshot.version.clone(),
        group: snapshot.group.clone(),
        locked_until: snapshot.locked_until,
        stored_bytes: snapshot.stored_bytes,
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
