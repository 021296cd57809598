//! Deletes expired snapshots for good (C23), and the leftover objects of erased devices and groups (C24, C25).
//!
//! It deletes versions, never by delete markers: what is deleted is gone. The storage's lock decides: an object that is locked for longer
//! than the catalogue has stays, and the catalogue is updated.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};
use tsujiban_core::error::chain;
use tsujiban_core::id::SnapshotId;
use tsujiban_core::retention;
use tsujiban_objects::{Entry, Head, StoreError, Version};

use crate::catalogue::{Due, LeftoverRow, SnapshotRow};
use crate::erasure_record;
use crate::error::{Error, Result};
use crate::life::REMEMBERED;
use crate::metrics;
use crate::object::{self, PREFIX, ids_of_key};
use crate::service::Backup;

const BATCH: u32 = 500;
/// A sweep accepts a comparison of the past hour: after a start, the one that expiry waited for.
const COMPARED: SignedDuration = SignedDuration::from_hours(1);
/// For how long a repeated call is recognised.
const ANSWERS: SignedDuration = SignedDuration::from_hours(48);

/// What one run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expiry {
    pub snapshots: u64,
    pub leftovers: u64,
}

/// Keeps the failure of one object, so that the run continues with the rest. A storage or database that cannot be reached ends the run.
#[derive(Default)]
pub(crate) struct Failed(Option<Error>);

impl Failed {
    pub(crate) fn note<T>(&mut self, object: &str, done: Result<T>) -> Result<Option<T>> {
        match done {
            Ok(done) => Ok(Some(done)),
            Err(error) if error.concerns_all() => Err(error),
            Err(error) => {
                tracing::error!(object, error = chain(&error), "an object could not be dealt with; the others are");
                self.0 = Some(error);
                Ok(None)
            }
        }
    }

    /// The failure noted last, or `done` without one.
    pub(crate) fn or<T>(self, done: T) -> Result<T> {
        self.0.map_or(Ok(done), Err)
    }
}

impl Backup {
    /// Deletes everything that has expired. Waits for the first comparison of catalogue and bucket since the start: a catalogue that lacks
    /// the newest snapshot of a device would mistake an older one for it.
    pub async fn expire(&self) -> Result<Expiry> {
        self.check_marker().await?;
        self.ensure_compared(None).await?;
        let now = self.now();
        self.measure_overdue(now).await?;
        let done = Expiry { snapshots: self.expire_snapshots(now).await?, leftovers: self.expire_leftovers(now).await? };
        self.catalogue.forget_answers(now - ANSWERS).await?;
        self.catalogue.forget_erased_groups(now).await?;
        self.catalogue.forget_erasures(now).await?;
        self.catalogue.forget_ended(now - REMEMBERED).await?;
        self.measure_overdue(now).await?;
        self.metrics.expired.inc_by(done.snapshots + done.leftovers);
        if done != Expiry::default() {
            tracing::info!(snapshots = done.snapshots, leftovers = done.leftovers, "expired objects deleted for good");
        }
        Ok(done)
    }

    async fn measure_overdue(&self, now: Timestamp) -> Result<()> {
        let due = self.catalogue.oldest_due(now).await?;
        self.metrics.expiry_overdue_seconds.set(due.map_or(0.0, |due| metrics::seconds(now) - metrics::seconds(due)));
        Ok(())
    }

    async fn expire_snapshots(&self, now: Timestamp) -> Result<u64> {
        let (mut expired, mut after, mut failed) = (0, String::new(), Failed::default());
        let mut read = HashSet::new();
        loop {
            let due = self.catalogue.snapshots_due(now, &after, BATCH).await?;
            let Some(last) = due.last() else { return failed.or(expired) };
            last.snapshot.id.as_str().clone_into(&mut after);
            for due in due {
                let object = object::object_key(&due.snapshot.group, &due.snapshot.device, &due.snapshot.id);
                let done = self.expire_snapshot(&due, &object, now, &mut read).await;
                expired += u64::from(failed.note(&object, done)?.unwrap_or(false));
            }
        }
    }

    /// Answers whether it was deleted.
    async fn expire_snapshot(&self, due: &Due, object: &str, now: Timestamp, read: &mut HashSet<SnapshotId>) -> Result<bool> {
        let Due { snapshot, spared } = due;
        // a device in the catalogue is not erased: erasing deletes its row
        if !retention::expired(snapshot.seen_at, *spared, now) {
            return Ok(false);
        }
        if let Some(until) = self.locked_until(object, &snapshot.version, now).await? {
            self.catalogue.follow_lock(&snapshot.id, retention::last_sighting(until), until).await?;
            return Ok(false);
        }
        if !snapshot.damaged && !self.keeps_another(snapshot, read).await? {
            return Ok(false);
        }
        self.store.delete(object, &snapshot.version).await?;
        self.catalogue.forget_snapshot(&snapshot.id).await?;
        tracing::info!(object, "an expired snapshot was deleted for good");
        Ok(true)
    }

    /// Whether the device has a newer snapshot that is known to be sound. One that was not read again lately is read now.
    async fn keeps_another(&self, snapshot: &SnapshotRow, read: &mut HashSet<SnapshotId>) -> Result<bool> {
        let Some(kept) = self.catalogue.newest_sound_snapshot(&snapshot.device).await? else { return Ok(false) };
        if kept.id == snapshot.id {
            return Ok(false);
        }
        if read.contains(&kept.id) || self.was_scrubbed(&kept).await? {
            return Ok(true);
        }
        let is_sound = self.check_snapshot(&kept).await?;
        if is_sound {
            read.insert(kept.id);
        }
        Ok(is_sound)
    }

    async fn expire_leftovers(&self, now: Timestamp) -> Result<u64> {
        let (mut expired, mut failed) = (0, Failed::default());
        let mut after: Option<(Timestamp, String)> = None;
        loop {
            let due = self.catalogue.leftovers_due(now, after.as_ref(), BATCH).await?;
            let Some(last) = due.last() else { return failed.or(expired) };
            after = Some((last.locked_until, last.object.clone()));
            for leftover in due {
                let done = self.expire_leftover(&leftover, now).await;
                expired += u64::from(failed.note(&leftover.object, done)?.unwrap_or(false));
            }
        }
    }

    async fn expire_leftover(&self, leftover: &LeftoverRow, now: Timestamp) -> Result<bool> {
        if let Some(until) = self.locked_until(&leftover.object, &leftover.version, now).await? {
            self.catalogue.note_leftover(&LeftoverRow { locked_until: until, ..leftover.clone() }).await?;
            return Ok(false);
        }
        self.store.delete(&leftover.object, &leftover.version).await?;
        self.catalogue.forget_leftover(&leftover.object, &leftover.version).await?;
        tracing::info!(object = leftover.object, "what was left of something erased was deleted for good");
        Ok(true)
    }

    /// Compares catalogue and bucket, which adopts objects that no row refers to, such as one that was stored just before a crash. Then
    /// deletes delete markers, which hide objects, and other versions of snapshots in the catalogue whose lock has run out. An object that
    /// is not in the catalogue, damaged or not, is never deleted here.
    pub async fn sweep(&self) -> Result<u64> {
        let now = self.now();
        self.check_marker().await?;
        self.ensure_compared(Some(now - COMPARED)).await?;
        let (mut swept, mut from, mut failed) = (0, None, Failed::default());
        loop {
            let page = self.store.list(PREFIX, from).await?;
            for Entry { key, version, delete_marker } in page.entries {
                let Some(ids) = ids_of_key(&key) else { continue };
                let goes = delete_marker
                    || (self.catalogue.has_snapshot(&ids.snapshot).await?
                        && !self.catalogue.knows_object(&key, ids.snapshot.as_str(), &version).await?
                        && self.ran_out(&key, &version, now).await?);
                if !goes {
                    continue;
                }
                let deleted = self.store.delete(&key, &version).await;
                if failed.note(&key, deleted.map_err(Error::from))?.is_some() {
                    tracing::warn!(object = key, %version, delete_marker, "deleted for good: nothing refers to it");
                    swept += 1;
                }
            }
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        let records = self.expire_erasure_records(now).await;
        swept += failed.note(erasure_record::PREFIX, records)?.unwrap_or_default();
        self.metrics.expired.inc_by(swept);
        failed.or(swept)
    }

    /// Until when the storage keeps a version locked, if it does.
    async fn locked_until(&self, object: &str, version: &Version, now: Timestamp) -> Result<Option<Timestamp>> {
        match self.store.head(object, Some(version)).await {
            Ok(Head { lock, .. }) => Ok(lock.map(|lock| lock.until).filter(|until| *until > now)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a version had a lock and it has run out. Something without any lock was not put by this service, and stays.
    pub(crate) async fn ran_out(&self, object: &str, version: &Version, now: Timestamp) -> Result<bool> {
        match self.store.head(object, Some(version)).await {
            Ok(Head { lock, .. }) => Ok(lock.is_some_and(|lock| lock.until <= now)),
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
