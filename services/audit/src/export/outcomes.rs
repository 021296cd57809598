//! Which operations have an outcome, as far as an export looks ahead of what it writes.

use std::collections::{HashSet, VecDeque};

use tsujiban_history::EntryId;

use crate::error::Result;
use crate::reading::{DayKeys, Log};
use crate::service::Audit;

/// How far an export looks ahead for the outcome of an intent.
const AHEAD: u64 = 4_096;
/// How many outcomes are remembered at most: those of all that is looked ahead at.
const REMEMBERED: usize = 8_192;

#[derive(Debug, Default)]
pub(super) struct Outcomes {
    ended: HashSet<EntryId>,
    order: VecDeque<EntryId>,
    /// Up to where entries were looked at.
    seen: u64,
}

impl Outcomes {
    /// Looks at the entries behind `next` that were not looked at yet, and at those that lie before it.
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
