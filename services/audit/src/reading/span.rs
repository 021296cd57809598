//! Which entries a span of time has. An entry's key binds it to the day on which it was recorded; the time within that day is in a column
//! that is not signed, so it may widen a span and never narrow it.

use jiff::Timestamp;
use tsujiban_database::on;
use tsujiban_history::Day;

use super::Log;
use super::bundle::{Bundle, ENTRIES};
use super::keys::DayKeys;
use super::listing::operation;
use super::slot::{Found, Slot};
use crate::error::Result;
use crate::service::Audit;

/// How often a search starts again after it found days that contradict each other.
const TRIES: u32 = 8;

impl Audit {
    /// The first entry that was recorded at a time or later. Includes earlier entries of which it is unknown when they were recorded, or
    /// whose operation was done at the time or later.
    pub async fn first_since(&self, log: &Log, time: Timestamp) -> Result<u64> {
        const SINCE: &str = "SELECT MIN(sequence) FROM entries WHERE log = $1 AND sequence >= $2 AND sequence < $3 AND appended_us >= $4";
        let (day, mut keys) = (Day::of(time), DayKeys::default());
        let first = self.first_of(log, day, &mut keys).await?;
        if day.starts() == time {
            return Ok(first);
        }
        let end = self.first_of(log, day.plus(1), &mut keys).await?.max(first);
        let by_column = self.edge_by_column(SINCE, log, (first, end), time).await?.unwrap_or(end);
        let done = self.any(log, first..by_column, &mut keys, |slot| may_be_done(slot, |done| done >= time)).await?;
        Ok(done.into_iter().min().map_or(by_column, |done| done.min(by_column)))
    }

    /// One past the last entry that was recorded before a time. Includes later entries of which it is unknown when they were recorded, or
    /// whose operation was done before the time.
    pub async fn end_before(&self, log: &Log, time: Timestamp) -> Result<u64> {
        const BEFORE: &str = "SELECT MAX(sequence) FROM entries WHERE log = $1 AND sequence >= $2 AND sequence < $3 AND appended_us < $4";
        let (day, mut keys) = (Day::of(time), DayKeys::default());
        let first = self.first_of(log, day, &mut keys).await?;
        if day.starts() == time {
            return self.behind_undated(log, first, &mut keys).await;
        }
        let end = self.first_of(log, day.plus(1), &mut keys).await?.max(first);
        let by_column = self.edge_by_column(BEFORE, log, (first, end), time).await?.map_or(first, |last| last + 1);
        let done = self.any(log, by_column..end, &mut keys, |slot| may_be_done(slot, |done| done < time)).await?;
        Ok(done.into_iter().max().map_or(by_column, |last| last + 1))
    }

    /// Skips entries of which it is unknown when they were recorded, up to the end of their bundle.
    async fn behind_undated(&self, log: &Log, from: u64, keys: &mut DayKeys) -> Result<u64> {
        if from >= log.size() {
            return Ok(from);
        }
        let bundle = self.examine(log, Bundle::of(from), keys).await?;
        let undated = bundle.between(from, log.size()).iter().take_while(|slot| matches!(slot.found, Found::Nothing));
        Ok(undated.last().map_or(from, |slot| slot.sequence + 1))
    }

    async fn edge_by_column(&self, query: &'static str, log: &Log, (first, end): (u64, u64), time: Timestamp) -> Result<Option<u64>> {
        let edge: Option<i64> = on!(self.database.reads(), p => sqlx::query_scalar(query)
            .bind(log.number)
            .bind(first.cast_signed())
            .bind(end.cast_signed())
            .bind(time.as_microsecond())
            .fetch_one(p)
            .await)?;
        Ok(edge.map(i64::cast_unsigned))
    }

    /// The first and the last entry of each bundle of a span for which `holds` is true.
    async fn any(&self, log: &Log, span: std::ops::Range<u64>, keys: &mut DayKeys, holds: impl Fn(&Slot) -> bool) -> Result<Vec<u64>> {
        let (mut found, mut at) = (Vec::new(), span.start);
        while at < span.end {
            let bundle = self.examine(log, Bundle::of(at), keys).await?;
            let mut holding = bundle.between(at, span.end).iter().filter(|slot| holds(slot)).map(|slot| slot.sequence);
            found.extend(holding.next().into_iter().chain(holding.next_back()));
            at = bundle.begin + ENTRIES;
        }
        Ok(found)
    }

    /// The first entry that was recorded on a day or later: a binary search, whose result is checked against the entries before it.
    async fn first_of(&self, log: &Log, day: Day, keys: &mut DayKeys) -> Result<u64> {
        let mut end = log.size();
        for _ in 0..TRIES {
            let (mut low, mut high) = (0, end);
            while low < high {
                let middle = low + (high - low) / 2;
                match self.recorded(log, middle..high, keys).await? {
                    Some((_, found)) if found >= day => high = middle,
                    Some((at, _)) => low = at + 1,
                    // entries of unknown days count as later
                    None => high = middle,
                }
            }
            let before = Bundle::span(Bundle::of(low.saturating_sub(1)), log.size()).start;
            match self.recorded_last(log, before..low, keys).await? {
                Some((at, found)) if found >= day => end = at,
                _ => return Ok(low),
            }
        }
        Ok(0)
    }

    /// The first entry of a span, within its first bundle, whose day of recording is known.
    async fn recorded(&self, log: &Log, span: std::ops::Range<u64>, keys: &mut DayKeys) -> Result<Option<(u64, Day)>> {
        let bundle = self.examine(log, Bundle::of(span.start), keys).await?;
        Ok(bundle.between(span.start, span.end).iter().find_map(|slot| recorded(&bundle, slot)))
    }

    /// The last such entry whose body proves its leaf.
    async fn recorded_last(&self, log: &Log, span: std::ops::Range<u64>, keys: &mut DayKeys) -> Result<Option<(u64, Day)>> {
        if span.is_empty() {
            return Ok(None);
        }
        let bundle = self.examine(log, Bundle::of(span.start), keys).await?;
        Ok(bundle.between(span.start, span.end).iter().rev().filter(|slot| slot.is_authentic()).find_map(|slot| recorded(&bundle, slot)))
    }
}

fn recorded(bundle: &Bundle, slot: &Slot) -> Option<(u64, Day)> {
    match slot.found {
        Found::Body { day, .. } => Some((slot.sequence, day)),
        Found::Expired(day) if bundle.is_proven(slot) => Some((slot.sequence, day)),
        _ => None,
    }
}

/// Whether `holds` may be true of the time of the operation: for a damaged entry it always may. Gaps, retentions and expired entries are
/// dated by their columns alone.
fn may_be_done(slot: &Slot, holds: impl Fn(Timestamp) -> bool) -> bool {
    match slot.found {
        Found::Record | Found::Expired(_) => false,
        Found::Nothing => true,
        Found::Body { .. } => operation(slot).is_none_or(|read| read.is_ok_and(|operation| holds(operation.time.timestamp()))),
    }
}
