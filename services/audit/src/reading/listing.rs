//! Operations, newest first. Only bodies decide what is shown and what fits a filter: columns of rows are not signed.

use std::collections::{BTreeMap, HashSet};

use jiff::Timestamp;
use tsujiban_history::operation::{Outcome, Phase};
use tsujiban_history::{Day, EntryId, Operation};

use super::Log;
use super::bundle::{Bundle, ENTRIES};
use super::keys::DayKeys;
use super::slot::{Found, Slot, Wrong};
use crate::error::Result;
use crate::service::Audit;

/// The most entries that are read for one page.
const LOOKED_AT: u64 = 5_000;
/// How many entries after a page are searched for outcomes of its intents.
const LOOKED_AHEAD: u64 = 1_024;
/// How many bytes of entries make a page full: an answer of a service has 4 MiB at most. The last entry of a page may go over it.
const FULL: usize = 2 << 20;
/// How many damaged entries a page names at most.
const NAMED: usize = 1_000;
/// By how much the clocks of services may differ: an operation's time may be that much later than its entry's.
const SKEW_US: i64 = 60 * 60 * 1_000_000;

/// Which operations a caller wants.
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

/// An operation and its place in the log.
#[derive(Debug, Clone)]
pub struct Listed {
    pub sequence: u64,
    /// From the row. It is only shown: nothing depends on it.
    pub appended_us: i64,
    pub operation: Operation,
}

#[derive(Debug, Clone, Default)]
pub struct Page {
    pub entries: Vec<Listed>,
    /// The next page has the entries before this one.
    pub next: Option<u64>,
    /// The damaged ones among the entries that were read.
    pub damaged: BTreeMap<u64, Wrong>,
}

impl Audit {
    /// Operations before an entry, newest first. A page may be short, since the number of entries that are read for it is bounded.
    pub async fn list(&self, log: &Log, filter: &Filter, before: Option<u64>, size: usize) -> Result<Page> {
        let mut keys = DayKeys::default();
        let mut page = Page::default();
        let mut end = before.unwrap_or(u64::MAX).min(log.size());
        let floor = end.saturating_sub(LOOKED_AT);
        let mut ended = self.outcomes(log, end..end.saturating_add(LOOKED_AHEAD).min(log.size()), &mut keys).await?;
        // the outcomes from here on are known
        let mut known_from = end;
        let mut bytes = 0;
        while end > floor {
            let bundle = self.examine(log, Bundle::of(end - 1), &mut keys).await?;
            for slot in bundle.between(bundle.begin, end).iter().rev() {
                if page.entries.len() == size || page.damaged.len() == NAMED || bytes >= FULL {
                    page.next = Some(end);
                    return Ok(page);
                }
                if filter.is_before(&bundle, slot) {
                    return Ok(page);
                }
                end = slot.sequence;
                let read = operation(slot).transpose();
                if let Some(wrong) = slot.wrong.or(read.as_ref().err().copied()) {
                    page.damaged.insert(slot.sequence, wrong);
                }
                let Ok(Some(mut operation)) = read else { continue };
                if operation.phase == Phase::Intent && !ended.contains(&operation.id) {
                    // an intent that was lost and sent again is after its outcome
                    let from = slot.sequence.saturating_sub(LOOKED_AHEAD).min(known_from);
                    ended.extend(self.outcomes(log, from..known_from.min(slot.sequence), &mut keys).await?);
                    known_from = from;
                }
                match operation.phase {
                    Phase::Outcome => drop(ended.insert(operation.id)),
                    Phase::Intent if !ended.contains(&operation.id) => operation.result = Outcome::Unknown,
                    Phase::Intent if !filter.intents => continue,
                    Phase::Intent | Phase::Observed => {}
                }
                if filter.takes(&operation) {
                    let appended_us = slot.stored.as_ref().map_or(0, |row| row.appended_us);
                    bytes += body_length(slot);
                    page.entries.push(Listed { sequence: slot.sequence, appended_us, operation });
                }
            }
        }
        page.next = (end > 0).then_some(end);
        Ok(page)
    }

    /// The operations whose outcomes are in a span of entries.
    pub(crate) async fn outcomes(&self, log: &Log, span: std::ops::Range<u64>, keys: &mut DayKeys) -> Result<HashSet<EntryId>> {
        let mut ended = HashSet::new();
        let mut at = span.start;
        while at < span.end {
            let bundle = self.examine(log, Bundle::of(at), keys).await?;
            let operations = bundle.between(at, span.end).iter().filter_map(operation).filter_map(std::result::Result::ok);
            ended.extend(operations.filter(|operation| operation.phase == Phase::Outcome).map(|operation| operation.id));
            at = bundle.begin + ENTRIES;
        }
        Ok(ended)
    }
}

fn body_length(slot: &Slot) -> usize {
    if let Found::Body { body, .. } = &slot.found { body.len() } else { 0 }
}

/// The operation of a slot; `None` if it has none, or none that may be shown. A sealed body that is no operation is damaged.
pub(crate) fn operation(slot: &Slot) -> Option<std::result::Result<Operation, Wrong>> {
    let Found::Body { body, .. } = &slot.found else { return None };
    Some(Operation::parse(body).map_err(|_| Wrong::Unreadable))
}

impl Filter {
    /// Whether no wanted operation is at this slot or before it: a proven entry was recorded before the first day of the span, or its day,
    /// and so all days before it, have expired.
    fn is_before(&self, bundle: &Bundle, slot: &Slot) -> bool {
        match slot.found {
            Found::Expired(_) => bundle.is_proven(slot),
            Found::Body { day, .. } => self.first_day().is_some_and(|first| day < first),
            Found::Record | Found::Nothing => false,
        }
    }

    /// The first day on which a wanted operation may have been recorded.
    fn first_day(&self) -> Option<Day> {
        let from = self.from?.as_microsecond().saturating_sub(SKEW_US);
        Timestamp::from_microsecond(from).ok().map(Day::of)
    }

    fn takes(&self, operation: &Operation) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        let time = operation.time.timestamp();
        self.from.is_none_or(|from| from <= time)
            && self.to.is_none_or(|to| time < to)
            && is(&self.actor, &operation.actor.id)
            && is(&self.function, &operation.function)
            && is(&self.target, &operation.target)
            && self.result.is_none_or(|result| result == operation.result)
    }
}
