//! Deleting for good what is past its time (C23), and what is left of the erased (C24, C25).
//!
//! It deletes versions, never by delete markers: what is deleted is gone. The storage has the last word; an object that turns
//! out to be locked for longer than the catalogue knew stays, and the catalogue learns.

use jiff::{SignedDuration, Timestamp};
use tsujiban_core::retention;
use tsujiban_objects::{Entry, Head, StoreError, Version};

use crate::catalogue::{Due, LeftoverRow};
use crate::error::Result;
use crate::life::REMEMBERED;
use crate::metrics;
use crate::object::{self, PREFIX, ids_of_key};
use crate::service::Backup;

const BATCH: u32 = 500;
/// For how long a repeated call is recognised.
const ANSWERS: SignedDuration = SignedDuration::from_hours(48);

/// What one run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expiry {
    pub snapshots: u64,
    pub leftovers: u64,
}

impl Backup {
    /// Deletes everything whose time has come.
    pub async fn expire(&self) -> Result<Expiry> {
        let now = self.now();
        self.measure_overdue(now).await?;
        let done = Expiry { snapshots: self.expire_snapshots(now).await?, leftovers: self.expire_leftovers(now).await? };
        self.catalogue.forget_answers(now - ANSWERS).await?;
        self.catalogue.forget_erased_groups(now).await?;
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
        let (mut expired, mut after) = (0, String::new());
        loop {
            let due = self.catalogue.snapshots_due(now, &after, BATCH).await?;
            let Some(last) = due.last() else { return Ok(expired) };
            last.snapshot.id.as_str().clone_into(&mut after);
            for Due { snapshot, newest } in due {
                // a device that is in the catalogue lives: erasing takes it out
                if !retention::expired(snapshot.seen_at, newest, now) {
                    continue;
                }
                let object = object::object_key(&snapshot.group, &snapshot.device, &snapshot.id);
                if let Some(until) = self.locked_until(&object, &snapshot.version, now).await? {
                    self.catalogue.follow_lock(&snapshot.id, retention::last_sighting(until), until).await?;
                    continue;
                }
                self.store.delete(&object, &snapshot.version).await?;
                self.catalogue.forget_snapshot(&snapshot.id).await?;
                expired += 1;
            }
        }
    }

    async fn expire_leftovers(&self, now: Timestamp) -> Result<u64> {
        let mut expired = 0;
        loop {
            let due = self.catalogue.leftovers_due(now, BATCH).await?;
            if due.is_empty() {
                return Ok(expired);
            }
            for leftover in due {
                if let Some(until) = self.locked_until(&leftover.object, &leftover.version, now).await? {
                    self.catalogue.note_leftover(&LeftoverRow { locked_until: until, ..leftover }).await?;
                    continue;
                }
                self.store.delete(&leftover.object, &leftover.version).await?;
                self.catalogue.forget_leftover(&leftover.object, &leftover.version).await?;
                expired += 1;
            }
        }
    }

    /// Deletes what nothing refers to, such as an object that was stored just before a crash, once its lock has run out. What
    /// is being stored at this moment has its lock still before it. Delete markers go as well: they hide what is there.
    pub async fn sweep(&self) -> Result<u64> {
        let now = self.now();
        let (mut swept, mut from) = (0, None);
        loop {
            let page = self.store.list(PREFIX, from).await?;
            for Entry { key, version, delete_marker } in page.entries {
                let known = match ids_of_key(&key) {
                    Some(ids) => self.catalogue.knows_object(&key, ids.snapshot.as_str(), &version).await?,
                    None => continue,
                };
                if !delete_marker && (known || !self.ran_out(&key, &version, now).await?) {
                    continue;
                }
                self.store.delete(&key, &version).await?;
                swept += 1;
            }
            from = page.next;
            if from.is_none() {
                self.metrics.expired.inc_by(swept);
                return Ok(swept);
            }
        }
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
    async fn ran_out(&self, object: &str, version: &Version, now: Timestamp) -> Result<bool> {
        match self.store.head(object, Some(version)).await {
            Ok(Head { lock, .. }) => Ok(lock.is_some_and(|lock| lock.until <= now)),
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
