//! Which operations have an outcome, as far as an export reads ahead of what it writes.

use std::collections::{HashSet, VecDeque};

use tsujiban_history::EntryId;

use crate::error::Result;
use crate::reading::{DayKeys, Log};
use crate::service::Audit;

/// How many entries an export reads ahead for the outcome of an intent.
const AHEAD: u64 = 4_096;
/// How many outcomes are retained at most: more than there can be in the entries that are read ahead.
const REMEMBERED: usize = 8_192;

#[derive(Debug, Default)]
pub(super) struct Outcomes {
    ended: HashSet<EntryId>,
    order: VecDeque<EntryId>,
    /// One past the last entry that was read.
    seen: u64,
}

impl Outcomes {
    /// Reads the entries after `next` that were not read yet, and, on the first call, the last ones before it.
    pub(super) async fn look_ahead(&mut self, audit: &Audit, log: &Log, next: u64, keys: &mut DayKeys) -> Result<()> {
        let until = next.saturating_add(AHEAD).min(log.size());
        let from = self.seen.max(next.saturating_sub(256));
        if from >= until {
            return Ok(());
        }
        for id in audit.outcomes(log, from..until, keys).await? {
            if self.ended.insert(id) {
                self.order.push_back(id);
            }
        }
        self.seen = until;
        while self.order.len() > REMEMBERED {
            if let Some(old) = self.order.pop_front() {
                self.ended.remove(&old);
            }
        }
        Ok(())
    }

    pub(super) fn has(&self, id: &EntryId) -> bool {
        self.ended.contains(id)
    }
}
