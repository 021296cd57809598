//! What is read of the logs: their heads, their tiles, their entries.

mod listing;
mod tree;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use tsujiban_database::on;
use tsujiban_history::merkle::{Hash, Range};
use tsujiban_history::{Day, LogId, Operation, TreeHead};
use tsujiban_proto::error::Kind;

pub use self::listing::{Filter, Listed, Page};
use crate::bodies::DayKey;
use crate::engine;
use crate::error::{Error, Result};
use crate::owner::Owner;
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
}

/// An entry as it is stored.
#[derive(Debug, Clone)]
pub struct Stored {
    pub sequence: u64,
    pub day: Day,
    pub time_us: i64,
    pub appended_us: i64,
    pub leaf: Vec<u8>,
    /// Whether it is, or was, an operation: no gap and no retention.
    pub has_id: bool,
    /// Not there for a gap, a retention, and a day that went.
    pub sealed: Option<Vec<u8>>,
}

/// Keys of days that one call needs. They are not kept longer: what is destroyed is destroyed.
#[derive(Debug, Default)]
pub struct DayKeys(HashMap<(i64, Day), Option<DayKey>>);

impl Log {
    pub fn size(&self) -> u64 {
        self.edge.end()
    }

    pub fn head(&self) -> TreeHead {
        TreeHead { size: self.edge.end(), root: self.edge.root().unwrap_or(Hash::EMPTY) }
    }
}

type LogRow = (i64, Vec<u8>, String, i64, Vec<u8>, i64);
type StoredRow = (i64, i64, i64, i64, Vec<u8>, bool, Option<Vec<u8>>);

/// A statement that reads logs.
macro_rules! logs {
    ($rest:literal) => {
        concat!("SELECT l.number, l.log_id, l.group_id, h.size, h.peaks, h.day FROM logs l JOIN heads h ON h.log = l.number ", $rest)
    };
}

impl Audit {
    /// The log of an owner's newest incarnation; `None` before its first entry.
    pub async fn log_of(&self, owner: &Owner) -> Result<Option<Log>> {
        const OF: &str = logs!("WHERE l.group_id = $1 ORDER BY l.number DESC LIMIT 1");
        let row: Option<LogRow> = on!(self.database.reads(), p => sqlx::query_as(OF).bind(owner.as_str()).fetch_optional(p).await)?;
        row.map(log).transpose()
    }

    /// The same, for whoever cannot do without.
    pub async fn some_log_of(&self, owner: &Owner) -> Result<Log> {
        let none = || Error::refuse(Kind::NotFound, "NO_HISTORY", format!("{owner} has no history yet"));
        self.log_of(owner).await?.ok_or_else(none)
    }

    pub async fn log_by_id(&self, id: &LogId) -> Result<Option<Log>> {
        const OF: &str = logs!("WHERE l.log_id = $1");
        let id = id.as_bytes().to_vec();
        let row: Option<LogRow> = on!(self.database.reads(), p => sqlx::query_as(OF).bind(id).fetch_optional(p).await)?;
        row.map(log).transpose()
    }

    pub async fn log_by_number(&self, number: i64) -> Result<Option<Log>> {
        const OF: &str = logs!("WHERE l.number = $1");
        let row: Option<LogRow> = on!(self.database.reads(), p => sqlx::query_as(OF).bind(number).fetch_optional(p).await)?;
        row.map(log).transpose()
    }

    /// Entries from one on, up to so many, in their order.
    pub async fn entries(&self, log: i64, from: u64, limit: u32) -> Result<Vec<Stored>> {
        const OF: &str = "SELECT sequence, day, time_us, appended_us, leaf, id IS NOT NULL, sealed FROM entries
             WHERE log = $1 AND sequence >= $2 ORDER BY sequence LIMIT $3";
        let rows: Vec<StoredRow> = on!(self.database.reads(), p => sqlx::query_as(OF)
            .bind(log).bind(from.cast_signed()).bind(i64::from(limit)).fetch_all(p).await)?;
        rows.into_iter().map(stored).collect()
    }

    /// The key of a log's day; `None` once it is destroyed, or when it may not be used any more.
    pub async fn day_key<'a>(&self, log: &Log, day: Day, keys: &'a mut DayKeys) -> Result<Option<&'a DayKey>> {
        if let Entry::Vacant(vacant) = keys.0.entry((log.number, day)) {
            vacant.insert(if day.is_expired(self.now()) { None } else { self.load_day_key(log, day).await? });
        }
        Ok(keys.0.get(&(log.number, day)).and_then(Option::as_ref))
    }

    async fn load_day_key(&self, log: &Log, day: Day) -> Result<Option<DayKey>> {
        let wrappings = engine::wrappings(&self.database, log.number, day).await?;
        if wrappings.is_empty() {
            return Ok(None);
        }
        Ok(Some(engine::open_day_key(&self.keyring, &log.id, day, &wrappings)?))
    }

    /// The operation of an entry; `None` for what is no operation, and for what has expired.
    pub async fn operation(&self, log: &Log, entry: &Stored, keys: &mut DayKeys) -> Result<Option<Operation>> {
        let Some(body) = self.body(log, entry, keys).await? else { return Ok(None) };
        let damaged = |_| Error::Damaged(format!("entry {} of log {} is no operation", entry.sequence, log.id));
        Operation::parse(&body).map(Some).map_err(damaged)
    }

    /// The body of an entry as it was committed to.
    pub async fn body(&self, log: &Log, entry: &Stored, keys: &mut DayKeys) -> Result<Option<zeroize::Zeroizing<Vec<u8>>>> {
        let Some(sealed) = &entry.sealed else { return Ok(None) };
        let Some(key) = self.day_key(log, entry.day, keys).await? else { return Ok(None) };
        let damaged = |_| Error::Damaged(format!("entry {} of log {} does not open", entry.sequence, log.id));
        key.open(&log.id, entry.sequence, sealed).map(Some).map_err(damaged)
    }
}

fn log((number, id, owner, size, peaks, day): LogRow) -> Result<Log> {
    let damaged = || Error::Damaged(format!("the head of log {number}"));
    let id = LogId::from_bytes(id.try_into().map_err(|_| damaged())?);
    let edge = engine::edge(size, &peaks).ok_or_else(damaged)?;
    Ok(Log { number, id, owner, edge, day: Day::from_number(day).ok_or_else(damaged)? })
}

fn stored((sequence, day, time_us, appended_us, leaf, has_id, sealed): StoredRow) -> Result<Stored> {
    let day = Day::from_number(day).ok_or_else(|| Error::Damaged(format!("the day of entry {sequence}")))?;
    Ok(Stored { sequence: sequence.cast_unsigned(), day, time_us, appended_us, leaf, has_id, sealed })
}
