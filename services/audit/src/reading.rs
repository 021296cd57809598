//! Reads logs: their heads, tiles and entries.

mod bundle;
mod keys;
mod listing;
mod slot;
mod span;
mod stored;
mod tree;

use tsujiban_database::on;
use tsujiban_history::merkle::{Hash, Range};
use tsujiban_history::{Day, LogId, TreeHead};
use tsujiban_proto::error::Kind;

pub(crate) use self::bundle::{Bundle, root};
pub(crate) use self::keys::{DayKeys, KeyState};
pub(crate) use self::listing::operation;
pub use self::listing::{Filter, Listed, Page};
pub use self::slot::Wrong;
pub(crate) use self::slot::{Found, Slot, judge_all};
pub(crate) use self::stored::Rows;
pub use self::stored::Stored;
use crate::engine;
use crate::error::{Error, Result};
use crate::log_row::{LogTuple, logs};
use crate::owner::Owner;
use crate::seals;
use crate::service::Audit;

/// A log as it is now.
#[derive(Debug, Clone)]
pub struct Log {
    /// Its name in the database.
    pub number: i64,
    pub id: LogId,
    pub owner: String,
    pub edge: Range,
    /// The day of its newest entry.
    pub day: Day,
    /// Whether a seal proves that it is the owner's.
    pub is_sealed: bool,
}

impl Log {
    pub fn size(&self) -> u64 {
        self.edge.end()
    }

    pub fn head(&self) -> TreeHead {
        TreeHead { size: self.edge.end(), root: self.edge.root().unwrap_or(Hash::EMPTY) }
    }
}

impl Audit {
    /// The log of an owner's newest incarnation; `None` before its first entry. Fails if the log is not sealed as the owner's.
    pub async fn log_of(&self, owner: &Owner) -> Result<Option<Log>> {
        const OF: &str = logs!("WHERE l.group_id = $1 ORDER BY l.number DESC LIMIT 1");
        let row: Option<LogTuple> = on!(self.database.reads(), p => sqlx::query_as(OF).bind(owner.as_str()).fetch_optional(p).await)?;
        let log = row.map(|row| self.log(row)).transpose()?;
        match log {
            Some(log) if !log.is_sealed => Err(Error::Damaged(seals::other_owner(log.number, owner.as_str()))),
            log => Ok(log),
        }
    }

    /// Like [`Audit::log_of`], but fails if there is no log.
    pub async fn some_log_of(&self, owner: &Owner) -> Result<Log> {
        let none = || Error::refuse(Kind::NotFound, "NO_HISTORY", format!("{owner} has no history yet"));
        self.log_of(owner).await?.ok_or_else(none)
    }

    pub async fn log_by_id(&self, id: &LogId) -> Result<Option<Log>> {
        const OF: &str = logs!("WHERE l.log_id = $1");
        let id = id.as_bytes().to_vec();
        let row: Option<LogTuple> = on!(self.database.reads(), p => sqlx::query_as(OF).bind(id).fetch_optional(p).await)?;
        row.map(|row| self.log(row)).transpose()
    }

    pub async fn log_by_number(&self, number: i64) -> Result<Option<Log>> {
        const OF: &str = logs!("WHERE l.number = $1");
        let row: Option<LogTuple> = on!(self.database.reads(), p => sqlx::query_as(OF).bind(number).fetch_optional(p).await)?;
        row.map(|row| self.log(row)).transpose()
    }

    pub(crate) fn log(&self, (number, id, owner, size, peaks, day, seal): LogTuple) -> Result<Log> {
        let damaged = || Error::Damaged(format!("the head of log {number} is not there or cannot be read"));
        let id = LogId::from_bytes(id.try_into().map_err(|_| damaged())?);
        let edge = engine::edge(size, &peaks).ok_or_else(damaged)?;
        let is_sealed = seals::is_sealed(&self.keyring, number, &id, &owner, seal.as_deref());
        Ok(Log { number, id, owner, edge, day: Day::from_number(day).ok_or_else(damaged)?, is_sealed })
    }
}
