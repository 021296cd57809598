//! Operations, newest first.

use std::collections::HashSet;

use jiff::Timestamp;
use tsujiban_database::on;
use tsujiban_history::Operation;
use tsujiban_history::operation::{Outcome, Phase};

use super::{DayKeys, Log, Stored, StoredRow, stored};
use crate::error::Result;
use crate::service::Audit;

/// How many bodies are opened for one page at most, and how many entries are looked at.
const OPENED: usize = 5_000;
const LOOKED_AT: u64 = 50_000;
/// How many entries are read at once at least.
const CHUNK: usize = 128;
/// By how much the clocks of services may differ: an operation's time may be that much later than its entry's.
const SKEW_US: i64 = 60 * 60 * 1_000_000;

/// What is wanted.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub from: Option<Timestamp>,
    /// Not included.
    pub to: Option<Timestamp>,
    pub actor: Option<String>,
    pub function: Option<String>,
    pub target: Option<String>,
    pub result: Option<Outcome>,
    /// Also intents with an outcome.
    pub intents: bool,
}

/// An operation and where it stands.
#[derive(Debug, Clone)]
pub struct Listed {
    pub sequence: u64,
    pub appended_us: i64,
    pub operation: Operation,
}

#[derive(Debug, Clone, Default)]
pub struct Page {
    pub entries: Vec<Listed>,
    /// Before which entry to go on.
    pub next: Option<u64>,
}

impl Audit {
    /// Operations before an entry, newest first. A page may be short: how much is looked at for one is bounded.
    pub async fn list(&self, log: &Log, filter: &Filter, before: Option<u64>, size: usize) -> Result<Page> {
        let open = self.open_intents(log.number).await?;
        let begin = match filter.from {
            Some(from) => self.first_appended(log, from.as_microsecond().saturating_sub(SKEW_US)).await?,
            None => 0,
        };
        let mut keys = DayKeys::default();
        let mut page = Page::default();
        let mut end = before.unwrap_or(u64::MAX).min(log.size());
        let floor = end.saturating_sub(LOOKED_AT).max(begin);
        let mut opened = 0;
        let chunk = size.max(CHUNK);
        while end > floor {
            let rows = self.matching(log.number, filter, (floor, end), chunk).await?;
            let all = rows.len() < chunk;
            for row in rows {
                if page.entries.len() == size || opened == OPENED {
                    page.next = Some(end);
                    return Ok(page);
                }
                end = row.sequence;
                opened += 1;
                let Some(mut operation) = self.operation(log, &row, &mut keys).await? else { continue };
                if operation.phase == Phase::Intent {
                    if open.contains(&row.sequence) {
                        operation.result = Outcome::Unknown;
                    } else if !filter.intents {
                        continue;
                    }
                }
                if filter.takes(&operation) {
                    page.entries.push(Listed { sequence: row.sequence, appended_us: row.appended_us, operation });
                }
            }
            if all {
                end = floor;
            }
        }
        page.next = (end > begin).then_some(end);
        Ok(page)
    }

    async fn matching(&self, log: i64, filter: &Filter, (floor, end): (u64, u64), limit: usize) -> Result<Vec<Stored>> {
        const OF: &str = "SELECT sequence, day, time_us, appended_us, leaf, id IS NOT NULL, sealed FROM entries
             WHERE log = $1 AND sequence >= $2 AND sequence < $3 AND time_us >= $4 AND time_us < $5 AND sealed IS NOT NULL
             ORDER BY sequence DESC LIMIT $6";
        let rows: Vec<StoredRow> = on!(self.database.reads(), p => sqlx::query_as(OF)
            .bind(log)
            .bind(floor.cast_signed())
            .bind(end.cast_signed())
            .bind(filter.from.map_or(i64::MIN, Timestamp::as_microsecond))
            .bind(filter.to.map_or(i64::MAX, Timestamp::as_microsecond))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(p)
            .await)?;
        rows.into_iter().map(stored).collect()
    }

    /// The entries that are intents without an outcome.
    pub async fn open_intents(&self, log: i64) -> Result<HashSet<u64>> {
        const OF: &str = "SELECT sequence FROM intents WHERE log = $1";
        let rows: Vec<i64> = on!(self.database.reads(), p => sqlx::query_scalar(OF).bind(log).fetch_all(p).await)?;
        Ok(rows.into_iter().map(i64::cast_unsigned).collect())
    }

    /// The first entry that was appended at a time or later.
    pub async fn first_appended(&self, log: &Log, time_us: i64) -> Result<u64> {
        const AT: &str = "SELECT appended_us FROM entries WHERE log = $1 AND sequence = $2";
        let (mut low, mut high) = (0, log.size());
        while low < high {
            let middle = low + (high - low) / 2;
            let at: Option<i64> = on!(self.database.reads(), p => sqlx::query_scalar(AT)
                .bind(log.number).bind(middle.cast_signed()).fetch_optional(p).await)?;
            if at.is_some_and(|at| at < time_us) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}

impl Filter {
    fn takes(&self, operation: &Operation) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        is(&self.actor, &operation.actor.id)
            && is(&self.function, &operation.function)
            && is(&self.target, &operation.target)
            && self.result.is_none_or(|result| result == operation.result)
    }
}
