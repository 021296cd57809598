//! Compares catalogue and bucket in both directions.
//!
//! A comparison adopts objects that the catalogue lacks, as after the loss of a database or of its newest changes, and reports snapshots
//! that the bucket lacks. A rebuild also reads every known object again. Both can run at any time, also while configs are stored. A damaged
//! object is reported, and the walk continues. What only the catalogue has is lost with a lost database: acknowledgements, exact numbers of
//! sightings, outcomes of attempts, and host keys pinned after the newest change of a config.

use std::collections::HashSet;

use jiff::Timestamp;
use tsujiban_core::id::SnapshotId;
use tsujiban_objects::{Cursor, Entry, StoreError};

use crate::adopt::Adopted;
use crate::damage::{Damaged, object_name};
use crate::error::{Error, Result};
use crate::expiry::Failed;
use crate::marker::MARKER;
use crate::object::{self, ObjectIds, PREFIX, ids_of_key};
use crate::reading::NOT_THERE;
use crate::service::Backup;

const BATCH: u32 = 500;
/// How many damaged things are reported by name.
const NAMED: usize = 100;

/// Which objects a walk reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// Only objects that the catalogue does not know.
    Unknown,
    Everything,
}

/// How far a walk through the bucket is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    pub objects: u64,
    /// Snapshots that were found: known or adopted.
    pub snapshots: u64,
    /// Those of them that were adopted.
    pub adopted: u64,
    /// Objects that cannot be read: of what was erased, damaged ones, and those whose epoch key is not mounted.
    pub unreadable: u64,
    pub damaged: u64,
    /// What is damaged, at most 100 of it.
    pub damaged_names: Vec<String>,
}

/// A walk under way. [`step`](Self::step) until it answers `false`.
pub struct Rebuild {
    reads: Reads,
    started: Timestamp,
    from: Option<Cursor>,
    listed: HashSet<SnapshotId>,
    unlisted: Vec<(Entry, ObjectIds)>,
    failed: Failed,
    pub progress: Progress,
}

impl Rebuild {
    /// Fails when the bucket is not the one that belongs to the catalogue, or was emptied.
    pub async fn begin(backup: &Backup, reads: Reads) -> Result<Self> {
        backup.check_marker().await?;
        backup.catalogue.read_all_rows().await?;
        backup.heal_rows().await?;
        let (from, listed, unlisted, progress) = (None, HashSet::new(), Vec::new(), Progress::default());
        Ok(Self { reads, started: backup.now(), from, listed, unlisted, failed: Failed::default(), progress })
    }

    /// Works through one page of the bucket. Answers whether there is more.
    pub async fn step(&mut self, backup: &Backup) -> Result<bool> {
        let page = backup.store.list(PREFIX, self.from.take()).await?;
        for entry in page.entries {
            let Some(ids) = ids_of_key(&entry.key).filter(|_| !entry.delete_marker) else { continue };
            self.progress.objects += 1;
            let key = entry.key.clone();
            let taken = self.take(backup, entry, ids).await;
            if self.failed.note(&key, taken)?.is_none() {
                self.progress.unreadable += 1;
            }
        }
        self.from = page.next;
        if self.from.is_some() {
            return Ok(true);
        }
        for (entry, ids) in &self.unlisted {
            backup.list_damaged(entry, ids).await?;
        }
        self.look_for_missing(backup).await?;
        backup.forget_missing_unlisted().await?;
        backup.heal_rows().await?;
        std::mem::take(&mut self.failed).or(false)
    }

    async fn take(&mut self, backup: &Backup, entry: Entry, ids: ObjectIds) -> Result<()> {
        let was_known = backup.catalogue.has_snapshot(&ids.snapshot).await?;
        if self.reads == Reads::Unknown && backup.catalogue.knows_object(&entry.key, ids.snapshot.as_str(), &entry.version).await? {
            if was_known {
                self.listed.insert(ids.snapshot);
                self.progress.snapshots += 1;
            }
            return Ok(());
        }
        match backup.adopt_reachable(&entry, &ids).await? {
            Adopted::Snapshot => {
                if !was_known {
                    self.progress.adopted += 1;
                    tracing::warn!(object = entry.key, "the catalogue did not know an object of the bucket; it was taken in");
                }
                self.listed.insert(ids.snapshot);
                self.progress.snapshots += 1;
            }
            Adopted::Damaged(damaged) => {
                self.progress.unreadable += 1;
                self.damaged(&damaged);
                self.listed.insert(ids.snapshot.clone());
                self.unlisted.push((entry, ids));
            }
            Adopted::Unopened => {
                self.progress.unreadable += 1;
                self.listed.insert(ids.snapshot);
            }
            Adopted::Erased => self.progress.unreadable += 1,
            Adopted::OtherVersion | Adopted::Foreign | Adopted::Gone => {}
        }
        Ok(())
    }

    fn damaged(&mut self, damaged: &Damaged) {
        self.progress.damaged += 1;
        if self.progress.damaged_names.len() < NAMED {
            self.progress.damaged_names.push(damaged.name.clone());
        }
    }

    /// Reports snapshots that are not in the bucket, but for those stored since the walk began, which may not have been listed.
    async fn look_for_missing(&mut self, backup: &Backup) -> Result<()> {
        let mut after: Option<SnapshotId> = None;
        loop {
            let rows = backup.catalogue.snapshots_taken_before(self.started, after.as_ref(), BATCH).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = Some(last.id.clone());
            for row in &rows {
                if self.listed.contains(&row.id) {
                    continue;
                }
                let object = object::object_key(&row.group, &row.device, &row.id);
                match backup.store.head(&object, Some(&row.version)).await {
                    Err(StoreError::NotFound { .. }) => {}
                    found => {
                        found?;
                        continue;
                    }
                }
                if row.locked_until <= self.started {
                    tracing::warn!(object, "a snapshot whose lock has run out has left the storage; taken out of the catalogue");
                    backup.catalogue.forget_snapshot(&row.id).await?;
                    continue;
                }
                let damaged = Damaged::object(&object, NOT_THERE);
                backup.found_damaged_snapshot(row, &damaged).await?;
                self.damaged(&damaged);
            }
        }
    }
}

impl Backup {
    /// A whole rebuild.
    pub async fn rebuild(&self) -> Result<Progress> {
        self.walk(Reads::Everything).await
    }

    /// A whole comparison. Until the first one since the start has succeeded, nothing expires.
    pub async fn compare(&self) -> Result<Progress> {
        let mut compared = self.compared.lock().await;
        let (started, progress) = (self.now(), self.walk(Reads::Unknown).await?);
        *compared = Some(started);
        Ok(progress)
    }

    /// Compares, unless a comparison began at `since` or later; for `None`, since the service started.
    pub(crate) async fn ensure_compared(&self, since: Option<Timestamp>) -> Result<()> {
        let mut compared = self.compared.lock().await;
        if compared.is_some_and(|compared| since.is_none_or(|since| compared >= since)) {
            return Ok(());
        }
        let started = self.now();
        self.walk(Reads::Unknown).await?;
        *compared = Some(started);
        Ok(())
    }

    pub(crate) async fn walk(&self, reads: Reads) -> Result<Progress> {
        let mut walk = Rebuild::begin(self, reads).await?;
        while walk.step(self).await? {
            tracing::info!(objects = walk.progress.objects, snapshots = walk.progress.snapshots, "comparing catalogue and bucket");
        }
        let Progress { objects, snapshots, adopted, unreadable, damaged, .. } = walk.progress;
        tracing::info!(objects, snapshots, adopted, unreadable, damaged, "catalogue and bucket compared");
        Ok(walk.progress)
    }

    /// Adopts an object. One that cannot be read although the storage answers is damaged.
    async fn adopt_reachable(&self, entry: &Entry, ids: &ObjectIds) -> Result<Adopted> {
        let failed = match self.adopt(entry, ids).await {
            Err(Error::Store(error @ (StoreError::Unreachable { .. } | StoreError::Odd { .. } | StoreError::Refused { .. }))) => error,
            adopted => return adopted,
        };
        self.store.get(MARKER, None).await?;
        match self.adopt(entry, ids).await {
            Err(Error::Store(StoreError::Unreachable { .. } | StoreError::Odd { .. } | StoreError::Refused { .. })) => {
                let damaged = Damaged::object(&entry.key, format!("it alone cannot be read: {failed}"));
                self.found_damaged(&damaged, &whose(ids)).await?;
                Ok(Adopted::Damaged(damaged))
            }
            adopted => adopted,
        }
    }

    /// Forgets the damage of objects that are not in the catalogue and were deleted from the bucket.
    async fn forget_missing_unlisted(&self) -> Result<()> {
        for row in self.catalogue.unlisted_damage().await? {
            let Some(key) = row.name.strip_prefix(&object_name("")) else { continue };
            if let Err(StoreError::NotFound { .. }) = self.store.head(key, None).await {
                self.found_sound(&row.name).await?;
            }
        }
        Ok(())
    }
}

fn whose(ids: &ObjectIds) -> crate::damage::DamageScope {
    crate::damage::DamageScope { group: Some(ids.group.clone()), device: Some(ids.device.clone()), snapshot: Some(ids.snapshot.clone()) }
}
