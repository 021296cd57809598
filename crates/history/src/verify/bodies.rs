//! Which bodies are missing in the export, and whether a recorded expiry of their day explains it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tsujiban_core::history::Day;

use super::damage::Lost;
use super::heads::{Listed, TOLERANCE};
use super::report::{Findings, Flaw, Location};
use crate::leaf::Retention;
use crate::{DayKeyId, JstTime, Operation};

/// More days than any log has: 179 years of them.
const MOST_KEYS: usize = 1 << 16;

/// The entries of the range under one key.
#[derive(Debug, Clone, Copy)]
struct Entries {
    first: u64,
    last: u64,
    count: u64,
    /// The first and the last entry without a body, and how many there are.
    missing: Option<(u64, u64, u64)>,
    /// The latest time of an operation before `first`: no entry under this key can be of an earlier day.
    after: Option<[u8; 32]>,
}

/// The entries of the range by their day keys. Entries of one day are adjacent, so the newest key is outside of the map.
#[derive(Debug, Default)]
pub(super) struct Bodies {
    keys: BTreeMap<DayKeyId, Entries>,
    newest: Option<(DayKeyId, Entries)>,
    /// The earliest and the latest time in a body.
    earliest: Option<[u8; 32]>,
    latest: Option<[u8; 32]>,
}

/// The state of an entry's body.
#[derive(Debug, Clone, Copy)]
pub(super) enum Body<'a> {
    Here(&'a [u8]),
    /// The service has signed that it is damaged.
    Damaged,
    Missing,
}

impl Bodies {
    /// Returns `false` if there are more keys than any log has.
    pub(super) fn count(&mut self, sequence: u64, key: DayKeyId, body: Body<'_>) -> bool {
        let after = self.latest;
        let has_body = !matches!(body, Body::Missing);
        if let Some(time) = if let Body::Here(body) = body { Operation::time_in(body) } else { None } {
            self.latest = after.max(Some(time));
            self.earliest = Some(self.earliest.map_or(time, |earliest| earliest.min(time)));
        }
        match &mut self.newest {
            Some((newest, entries)) if *newest == key => entries.count(sequence, has_body),
            newest => {
                if self.keys.len() >= MOST_KEYS - 1 {
                    return false;
                }
                if let Some((key, entries)) = newest.take() {
                    self.keys.insert(key, entries);
                }
                let first = Entries { first: sequence, last: sequence, count: 0, missing: None, after };
                let mut entries = self.keys.get(&key).copied().unwrap_or(first);
                entries.count(sequence, has_body);
                *newest = Some((key, entries));
            }
        }
        true
    }

    /// The earliest and the latest time in the bodies that were read.
    pub(super) fn times(&self) -> Option<(JstTime, JstTime)> {
        Some((time(self.earliest?)?, time(self.latest?)?))
    }

    /// The days that expired lawfully. `retentions` are those whose inclusion is proven, with their sequence numbers.
    pub(super) fn judge(mut self, retentions: &[(u64, Retention)], judge: &Judge<'_>, findings: &mut Findings) -> Vec<Day> {
        if let Some((key, entries)) = self.newest.take() {
            self.keys.insert(key, entries);
        }
        let mut gone: BTreeMap<DayKeyId, &Retention> = BTreeMap::new();
        for (sequence, retention) in retentions {
            if judge.holds(*sequence, retention, self.keys.get(&retention.key), findings) {
                gone.insert(retention.key, retention);
            }
        }
        let mut days = Vec::new();
        for (key, entries) in &self.keys {
            let Some((first, last, count)) = entries.missing else { continue };
            match gone.get(key).filter(|retention| retention.first <= first && last <= retention.last) {
                Some(retention) => days.push(retention.day),
                None => findings.add(Location::Entries { from: first, to: last.saturating_add(1) }, Flaw::NoBody(count)),
            }
        }
        days.sort_unstable();
        days.dedup();
        days
    }
}

impl Entries {
    fn count(&mut self, sequence: u64, has_body: bool) {
        self.last = sequence;
        self.count = self.count.saturating_add(1);
        if !has_body {
            let (first, _, count) = self.missing.unwrap_or((sequence, sequence, 0));
            self.missing = Some((first, sequence, count.saturating_add(1)));
        }
    }
}

fn time(text: [u8; 32]) -> Option<JstTime> {
    std::str::from_utf8(&text).ok()?.parse().ok()
}

/// What retentions are checked against.
pub(super) struct Judge<'a> {
    pub now: Timestamp,
    /// The exported range, of which all entries were read.
    pub first: u64,
    pub end: u64,
    pub listed: &'a Listed,
    /// Entries of the range whose leaves are lost, according to a signed statement.
    pub lost: &'a Lost,
}

impl Judge<'_> {
    fn holds(&self, sequence: u64, retention: &Retention, entries: Option<&Entries>, findings: &mut Findings) -> bool {
        let Retention { day, first, last, count, .. } = *retention;
        let place = Location::Entry { sequence };
        if !day.is_expired(self.now) || self.listed.had(sequence, day.expires_at()).is_some() {
            findings.add(place, Flaw::TooEarly(day));
            return false;
        }
        let is_whole = self.first <= first && last < self.end;
        let lost = self.lost.between(first, last);
        let is_counted = if lost == 0 {
            entries.is_some_and(|found| (found.first, found.last, found.count) == (first, last, count))
        } else {
            // the lost entries may have been of this day
            let found = entries.map_or(0, |found| found.count);
            let has =
                |sequence, is_at: fn(&Entries) -> u64| self.lost.has(sequence) || entries.is_some_and(|found| is_at(found) == sequence);
            found <= count && count <= found.saturating_add(lost) && has(first, |found| found.first) && has(last, |found| found.last)
        };
        let is_within = entries.is_none_or(|found| first <= found.first && found.last <= last && found.count <= count);
        let is_possible = first <= last && last < sequence && count > 0 && count <= last.saturating_sub(first).saturating_add(1);
        if !is_possible || !is_within || (is_whole && !is_counted) {
            findings.add(place, Flaw::OtherCount { day, first, last, count });
            return false;
        }
        let after = entries.and_then(|entries| entries.after).and_then(time);
        if let Some(after) = after.filter(|after| after.timestamp().checked_sub(TOLERANCE).is_ok_and(|at| at >= day.plus(1).starts())) {
            findings.add(place, Flaw::Younger { day, after });
            return false;
        }
        let before = self.listed.had(first, day.starts());
        if let Some(list) = before.or_else(|| self.listed.had_not(last, day.plus(1).starts())) {
            findings.add(place, Flaw::OtherDay { day, list });
            return false;
        }
        true
    }
}
