//! Entries that are damaged in the service's storage, by a statement that the log's key has signed.

use super::report::DamagedEntry;
use crate::export::{Loss, UnsignedDamage};

/// How many damaged entries are named. The rest is counted.
const NAMED: usize = 50;

/// Entries of which nothing is left, as spans from one to before another, in order. Those that follow each other are one span, and a log
/// whose every second entry is lost has 256 statements for 65,536 entries: what is kept is small beside what was read.
#[derive(Debug, Default)]
pub(super) struct Lost(Vec<(u64, u64)>);

impl Lost {
    pub(super) fn add(&mut self, sequence: u64) {
        match self.0.last_mut() {
            Some((_, end)) if *end == sequence => *end = sequence.saturating_add(1),
            _ => self.0.push((sequence, sequence.saturating_add(1))),
        }
    }

    /// How many are lost from `first` to `last`, both included.
    pub(super) fn between(&self, first: u64, last: u64) -> u64 {
        let within = |(begin, end): &(u64, u64)| (*end).min(last.saturating_add(1)).saturating_sub((*begin).max(first));
        self.0.iter().map(within).fold(0, u64::saturating_add)
    }

    pub(super) fn has(&self, sequence: u64) -> bool {
        self.between(sequence, sequence) > 0
    }
}

/// What the export says of damage, as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Damages {
    /// The statement whose entries are being read.
    pub at: Option<UnsignedDamage>,
    pub lost: Lost,
    pub named: Vec<DamagedEntry>,
    pub count: u64,
    /// Subtrees of which some leaf is lost: no size within is known.
    pub open: Vec<(u64, u64)>,
}

impl Damages {
    /// Takes a statement whose signature holds, and which the next entries are of.
    pub(super) fn begin(&mut self, statement: UnsignedDamage) {
        for lost in &statement.lost {
            self.count = self.count.saturating_add(1);
            if self.named.len() < NAMED {
                self.named.push(DamagedEntry { sequence: lost.sequence, loss: lost.loss });
            }
            if lost.loss == Loss::Entry {
                self.lost.add(lost.sequence);
            }
        }
        if statement.is_open() {
            self.open.push((statement.damaged, statement.end));
        }
        self.at = Some(statement);
    }

    /// The statement that an entry is of.
    pub(super) fn of(&self, sequence: u64) -> Option<&UnsignedDamage> {
        self.at.as_ref().filter(|statement| statement.contains(sequence))
    }

    /// The next entry that can have a line, from one on.
    pub(super) fn skip_lost(&self, mut sequence: u64) -> u64 {
        while self.of(sequence).is_some_and(|statement| statement.leaf(sequence).is_none()) {
            sequence = sequence.saturating_add(1);
        }
        sequence
    }
}
