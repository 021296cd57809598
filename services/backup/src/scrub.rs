//! The scrub: every sealed object is read again, opened and checked at least once in a period, newest first, so that damage is found
//! before anybody needs the data. Wrapped keys, the key table and its copy are checked every few minutes besides ([`crate::wrappings`],
//! [`crate::keytable`]).

pub mod pace;

use std::collections::VecDeque;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tsujiban_core::error::chain;
use tsujiban_core::id::SnapshotId;
use tsujiban_objects::{LockUntil, Version, list_all};
use tsujiban_sealing::KeyError;

use crate::catalogue::{CatalogueError, Meta, SnapshotRow};
use crate::damage::{DATABASE, DamageScope, Damaged, object_name};
use crate::error::{Error, Result};
use crate::marker::MARKER;
use crate::metrics;
use crate::object::{self, ObjectError, Opened};
use crate::service::Backup;

/// How many snapshots are read before the progress is stored.
const BATCH: u32 = 50;

/// The progress of the scrub, from which it resumes after a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Progress {
    /// When this round began.
    round: Timestamp,
    /// The last snapshot that was read in it.
    last: Option<SnapshotId>,
    is_over: bool,
    /// When the newest round began that read everything.
    whole: Option<Timestamp>,
}

/// What is to be read next.
#[derive(Debug, Default)]
pub struct Scrub {
    next: VecDeque<SnapshotRow>,
    left: u64,
}

impl Backup {
    /// Reads the next object, or begins or ends a round. Answers how long to wait before the next step.
    pub async fn scrub_step(&self, scrub: &mut Scrub, period: SignedDuration) -> Result<Duration> {
        let now = self.now();
        let mut progress = match self.scrub_progress().await? {
            Some(progress) => progress,
            None => self.begin_round(None).await?,
        };
        self.metrics.scrub_oldest_check.set(progress.whole.map(metrics::seconds).unwrap_or_default());
        let mut end = progress.round + pace::round(period);
        if progress.is_over {
            if now < end {
                return Ok(pace::before_round(now, end));
            }
            progress = self.begin_round(progress.whole).await?;
            end = progress.round + pace::round(period);
        }
        if scrub.next.is_empty() {
            scrub.left = self.catalogue.count_snapshots(progress.last.as_ref()).await?;
            scrub.next = self.catalogue.snapshots_before(progress.last.as_ref(), BATCH).await?.into();
        }
        let Some(row) = scrub.next.front().cloned() else {
            self.scrub_database().await?;
            let whole = Some(progress.round);
            self.note_scrub(&Progress { is_over: true, whole, ..progress }).await?;
            self.report_damage().await?;
            tracing::info!("a whole scrub has ended");
            return Ok(pace::before_round(now, end));
        };
        match self.check_snapshot(&row).await {
            Ok(_) => {}
            // the storage or the database is unavailable: this snapshot is tried again
            Err(error) if error.concerns_all() => return Err(error),
            Err(error) => tracing::error!(snapshot = %row.id, error = chain(&error), "a snapshot could not be checked; the others are"),
        }
        self.metrics.scrub_checked.inc();
        scrub.next.pop_front();
        scrub.left = scrub.left.saturating_sub(1);
        if scrub.next.is_empty() {
            self.note_scrub(&Progress { last: Some(row.id), ..progress }).await?;
            self.report_damage().await?;
        }
        Ok(pace::before_next(scrub.left, now, end))
    }

    /// When the newest scrub began that read everything; `None` before the first one has ended.
    pub async fn whole_scrub(&self) -> Result<Option<Timestamp>> {
        Ok(self.scrub_progress().await?.and_then(|progress| progress.whole))
    }

    /// Whether a snapshot was read by the newest whole scrub.
    pub(crate) async fn was_scrubbed(&self, row: &SnapshotRow) -> Result<bool> {
        Ok(self.whole_scrub().await?.is_some_and(|whole| whole > row.taken_at && self.now().duration_since(whole) < RECENT))
    }

    /// Reads a snapshot and checks it. Answers whether it is sound; what is damaged is noted, what is sound again too.
    pub(crate) async fn check_snapshot(&self, row: &SnapshotRow) -> Result<bool> {
        let object = object::object_key(&row.group, &row.device, &row.id);
        match self.open_while_reachable(row, &object).await {
            Ok(_) => {
                self.found_sound_snapshot(row).await?;
                Ok(true)
            }
            Err(Error::Damaged(damaged)) => {
                if damaged.name == object_name(&object) && self.take_other_version(row, &object).await? {
                    return Ok(true);
                }
                self.found_damaged_snapshot(row, &damaged).await?;
                Ok(false)
            }
            // expired or erased since it was listed
            Err(Error::Catalogue(CatalogueError::Gone) | Error::Key(KeyError::Destroyed)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Opens a snapshot. An object that cannot be read although the storage answers is damaged.
    async fn open_while_reachable(&self, row: &SnapshotRow, object: &str) -> Result<Opened> {
        let failed = match self.open_snapshot(row).await {
            Err(Error::Store(error)) => error,
            opened => return opened,
        };
        self.store.get(MARKER, None).await?;
        match self.open_snapshot(row).await {
            Err(Error::Store(_)) => Err(Damaged::object(object, format!("it alone cannot be read: {failed}")).into()),
            opened => opened,
        }
    }

    /// Replaces a damaged version by another one that is sound, such as one that a later put hid.
    async fn take_other_version(&self, row: &SnapshotRow, object: &str) -> Result<bool> {
        let entries = list_all(&*self.store, object).await?;
        let others = entries.into_iter().filter(|entry| entry.key == object && !entry.delete_marker && entry.version != row.version);
        for Version(version) in others.map(|entry| entry.version) {
            let other = SnapshotRow { version: Version(version), ..row.clone() };
            if self.open_snapshot(&other).await.is_ok() {
                if let Err(error) = self.lock_as_before(&other, object).await {
                    tracing::error!(
                        object,
                        error = chain(&error),
                        "a sound version of a damaged object could not be locked; it may be deleted"
                    );
                }
                self.catalogue.adopt_snapshot(&other, object).await?;
                self.found_sound_snapshot(&other).await?;
                tracing::warn!(object, version = %other.version, "a damaged version of an object was replaced by another one that is sound");
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Locks a version, which may have been restored without a lock, for as long as the damaged one.
    async fn lock_as_before(&self, row: &SnapshotRow, object: &str) -> Result<()> {
        let until = row.locked_until;
        let head = self.store.head(object, Some(&row.version)).await?;
        if until <= self.now() || head.lock.is_some_and(|lock| lock.until >= until) {
            return Ok(());
        }
        Ok(self.store.set_lock(object, &row.version, LockUntil::at_least(until)).await?)
    }

    async fn scrub_database(&self) -> Result<()> {
        self.catalogue.read_all_rows().await?;
        self.heal_rows().await?;
        let wrong = self.catalogue.database().damage().await.map_err(CatalogueError::from)?;
        if wrong.is_empty() {
            return self.found_sound(DATABASE).await.map(drop);
        }
        self.found_damaged(&Damaged::database(wrong.join("; ")), &DamageScope::default()).await.map(drop)
    }

    async fn begin_round(&self, whole: Option<Timestamp>) -> Result<Progress> {
        let progress = Progress { round: self.now(), last: None, is_over: false, whole };
        self.note_scrub(&progress).await?;
        Ok(progress)
    }

    async fn scrub_progress(&self) -> Result<Option<Progress>> {
        Ok(self.catalogue.meta(Meta::Scrub).await?.and_then(|text| serde_json::from_str(&text).ok()))
    }

    async fn note_scrub(&self, progress: &Progress) -> Result<()> {
        let text = serde_json::to_string(progress).map_err(|_| ObjectError::Contents("the scrub's progress cannot be written"))?;
        Ok(self.catalogue.set_meta(Meta::Scrub, &text).await?)
    }
}

/// A scrub older than this no longer counts as proof that a snapshot is sound.
const RECENT: SignedDuration = SignedDuration::from_hours(8 * 24);
