//! Entries that are damaged in the service's storage, according to a statement that the log's key has signed.

use super::report::DamagedEntry;
use crate::export::{Loss, UnsignedDamage};

/// How many damaged entries are named. The rest is counted.
const NAMED: usize = 50;

/// Lost entries, as spans from one number to before another, in order. Adjacent entries are one span. Even if every second entry is lost,
/// 65,536 entries have 256 statements: these spans are small compared with the lines that were read.
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

/// The damage that the lines read so far state.
#[derive(Debug, Default)]
pub(super) struct Damages {
    /// The statement whose entries are being read.
    pub at: Option<UnsignedDamage>,
    pub lost: Lost,
    pub named: Vec<DamagedEntry>,
    pub count: u64,
    /// Subtrees with a lost leaf: no root is known for the sizes within them.
    pub open: Vec<(u64, u64)>,
}

impl Damages {
    /// Begins a statement whose signature is verified. The next entries belong to it.
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

    /// The current statement, if the entry belongs to it.
    pub(super) fn of(&self, sequence: u64) -> Option<&UnsignedDamage> {
        self.at.as_ref().filter(|statement| statement.contains(sequence))
    }

    /// The first entry from `sequence` on that can have a line.
    pub(super) fn skip_lost(&self, mut sequence: u64) -> u64 {
        while self.of(sequence).is_some_and(|statement| statement.leaf(sequence).is_none()) {
            sequence = sequence.saturating_add(1);
        }
        sequence
    }
}
