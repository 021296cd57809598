//! Reads the whole stored history again, newest first, and reports damage before a reader needs the data. Heals what can be computed from
//! intact data or has a copy elsewhere. Stores its progress in the database, so that it resumes after a restart.

mod damages;
mod heal;
mod history;
mod integrity;
mod log;
mod nodes;
pub mod pace;
mod shared;

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use tsujiban_database::on;
use tsujiban_history::LogId;

pub(crate) use self::damages::{Damaged, Kind, PUT_HEALED_HEAD};
pub use self::integrity::Integrity;
use crate::error::Result;
use crate::reading::Stored;
use crate::service::Audit;
use crate::signing::NO_LOG;

/// A source of copies of entries. Its copies are not trusted: a copy is used only if its body or the tree proves it.
#[async_trait]
pub trait EntrySource: Send + Sync {
    /// Entries of a log as they were appended, without those that the source lacks.
    async fn entries(&self, log: &LogId, sequences: &[u64]) -> Result<Vec<Stored>>;
}

/// The result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It read a part again, and so many parts are left that have to be read until a time.
    Read { left: u64, until: Timestamp },
    /// Nothing is due.
    Idle,
}

/// A scrub that never ends, a step at a time.
pub struct Scrub {
    /// The time within which everything is read again.
    period: SignedDuration,
    source: Option<Arc<dyn EntrySource>>,
    queue: VecDeque<Pass>,
    until: Timestamp,
}

/// One pass over a log, or over the data that belongs to no log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pass {
    log: i64,
    began_at: i64,
    /// The entry, or root list, before which the pass continues.
    before: u64,
}

impl Scrub {
    pub fn new(period: SignedDuration) -> Self {
        Self { period, source: None, queue: VecDeque::new(), until: Timestamp::UNIX_EPOCH }
    }

    /// Heals from these copies, too.
    #[must_use]
    pub fn healing_from(self, source: Arc<dyn EntrySource>) -> Self {
        Self { source: Some(source), ..self }
    }

    /// Reads the next part again.
    pub async fn step(&mut self, audit: &Audit) -> Result<Step> {
        if self.queue.is_empty() {
            self.queue = audit.scrubs_due(self.period).await?;
            self.until = audit.now().checked_add(self.period / 2).unwrap_or(Timestamp::MAX);
        }
        let Some(pass) = self.queue.front_mut() else {
            audit.bring_missing_keys(true).await?;
            audit.record_damage().await?;
            audit.show_scrub().await?;
            return Ok(Step::Idle);
        };
        let before = if pass.log == NO_LOG {
            audit.scrub_shared(pass.before).await?
        } else {
            audit.scrub_log(pass.log, pass.before, self.source.as_deref()).await?
        };
        let is_whole = before == 0;
        audit.save_scrub(Pass { before, ..*pass }, is_whole).await?;
        pass.before = before;
        if is_whole {
            self.queue.pop_front();
        }
        audit.bring_missing_keys(false).await?;
        audit.record_damage().await?;
        audit.show_scrub().await?;
        let left = self.queue.iter().map(|pass| 1 + pass.before / pace::PART).fold(0, u64::saturating_add);
        Ok(Step::Read { left, until: self.until })
    }
}

impl Audit {
    /// The passes in progress and those that are due: first the data that belongs to no log, then the newest logs.
    async fn scrubs_due(&self, period: SignedDuration) -> Result<VecDeque<Pass>> {
        const OF: &str = "SELECT h.log, h.size, s.began_at, s.before FROM heads h LEFT JOIN scrubs s ON s.log = h.log ORDER BY h.log DESC";
        const SHARED: &str = "SELECT s.began_at, s.before FROM scrubs s WHERE s.log = $1";
        const LISTS: &str = "SELECT COALESCE(MAX(number), 0) + 1 FROM root_lists";
        type Row = (i64, i64, Option<i64>, Option<i64>);
        let now = self.now();
        let logs: Vec<Row> = on!(self.database.reads(), p => sqlx::query_as(OF).fetch_all(p).await)?;
        let shared: Option<(i64, i64)> = on!(self.database.reads(), p => sqlx::query_as(SHARED).bind(NO_LOG).fetch_optional(p).await)?;
        // lists begin with number 1: starting one past the newest list makes a pass also when there are no lists
        let lists: i64 = on!(self.database.reads(), p => sqlx::query_scalar(LISTS).fetch_one(p).await)?;
        let shared = (NO_LOG, lists, shared.map(|(began_at, _)| began_at), shared.map(|(_, before)| before));
        let pass = |(log, size, began_at, before): Row| {
            let begun = began_at.and_then(|at| Timestamp::from_microsecond(at).ok());
            let before = before.map(i64::cast_unsigned);
            match pace::due(begun, before, (now, period)) {
                pace::Due::No => None,
                pace::Due::GoOn => Some(Pass { log, began_at: began_at?, before: before?.min(size.cast_unsigned()) }),
                pace::Due::Begin => Some(Pass { log, began_at: now.as_microsecond(), before: size.cast_unsigned() }),
            }
        };
        Ok(std::iter::once(shared).chain(logs).filter_map(pass).collect())
    }

    /// Stores the progress of a pass.
    async fn save_scrub(&self, pass: Pass, is_whole: bool) -> Result<()> {
        const PUT: &str = "INSERT INTO scrubs (log, began_at, before, whole_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (log) DO UPDATE SET began_at = excluded.began_at, before = excluded.before,
                 whole_at = COALESCE(excluded.whole_at, scrubs.whole_at)";
        on!(self.database.writes(), p => sqlx::query(PUT)
            .bind(pass.log)
            .bind(pass.began_at)
            .bind(pass.before.cast_signed())
            .bind(is_whole.then_some(pass.began_at))
            .execute(p)
            .await
            .map(drop))?;
        Ok(())
    }
}
