//! Entries that the history has acknowledged and, as far as this process knows, no root list covers yet: which questions are asked about
//! them, and what follows from the answers. Pure.
//!
//! An acknowledged entry can still be lost with the database that holds it, until a root list in the bucket shows that it is missing. So it
//! is kept until then, and added again when the history does not know it.

use std::collections::{BTreeMap, HashMap};

use jiff::{SignedDuration, Timestamp};
use tsujiban_proto::audit::v1::{Coverage, CoveredRequest, CoveredResponse, LogEntries};

/// How old an entry may be to be added again. The history recognises a repeated id for 48 hours; the rest is for clocks that differ.
const ADDED_AGAIN: SignedDuration = SignedDuration::from_hours(47);
/// The most ids that one question may have.
const QUESTION: usize = 1000;

/// In which order entries were acknowledged.
pub type Order = u64;

/// What is known of a kept entry without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The group in whose history it is; empty: the platform's own.
    pub group: String,
    pub id: Vec<u8>,
    pub acknowledged: Timestamp,
    /// How much room it takes.
    pub bytes: u64,
}

/// The kept entries.
#[derive(Debug, Default)]
pub struct Kept {
    entries: BTreeMap<Order, Entry>,
    next: Order,
    bytes: u64,
}

/// A request to the history, and the entries that it is about.
#[derive(Debug)]
pub struct Question {
    pub request: CoveredRequest,
    /// By group as in the request.
    orders: Vec<Vec<Order>>,
    /// The last entry that the question is about.
    pub last: Order,
}

/// What follows from an answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// To be added again, in this order.
    pub lost: Vec<Order>,
    /// Need not be kept any more.
    pub done: Vec<Order>,
    /// How many of `done` a root list covers.
    pub covered: u64,
    /// How many of `done` are of an erased group.
    pub erased: u64,
    /// How many of `done` are unknown to the history, and too old to be added again.
    pub possibly_lost: u64,
}

/// An answer that does not fit the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer does not fit the question")]
pub struct Mismatch;

impl Kept {
    /// Empty, for entries from `next` on.
    pub fn starting_at(next: Order) -> Self {
        Self { next, ..Self::default() }
    }

    /// Adds an entry that an earlier process kept.
    pub fn reload(&mut self, order: Order, entry: Entry) {
        self.next = self.next.max(order.saturating_add(1));
        self.bytes = self.bytes.saturating_add(entry.bytes);
        if let Some(before) = self.entries.insert(order, entry) {
            self.bytes = self.bytes.saturating_sub(before.bytes);
        }
    }

    /// Adds an entry that was acknowledged after all earlier ones.
    pub fn acknowledged(&mut self, entry: Entry) -> Order {
        let order = self.next;
        self.reload(order, entry);
        order
    }

    /// Gives later entries no number below this one.
    pub fn skip_to(&mut self, next: Order) {
        self.next = self.next.max(next);
    }

    /// The order of the next entry.
    pub fn next(&self) -> Order {
        self.next
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number of the oldest entry, or of the next one when there is none.
    pub fn oldest(&self) -> Order {
        self.entries.keys().next().copied().unwrap_or(self.next)
    }

    /// Drops the oldest entries until the others take no more than `bound` bytes.
    pub fn drop_beyond(&mut self, bound: u64) -> Vec<Order> {
        let mut dropped = Vec::new();
        while self.bytes > bound
            && let Some((order, entry)) = self.entries.pop_first()
        {
            self.bytes = self.bytes.saturating_sub(entry.bytes);
            dropped.push(order);
        }
        dropped
    }

    /// Drops all entries up to one.
    pub fn drop_through(&mut self, last: Order) -> Vec<Order> {
        let dropped: Vec<Order> = self.entries.range(..=last).map(|(order, _)| *order).collect();
        for order in &dropped {
            self.forget(*order);
        }
        dropped
    }

    /// Forgets an entry.
    pub fn forget(&mut self, order: Order) {
        if let Some(entry) = self.entries.remove(&order) {
            self.bytes = self.bytes.saturating_sub(entry.bytes);
        }
    }

    /// The next question: about the entries behind `after` and before `end`, with as many ids as a question may have.
    pub fn question(&self, after: Option<Order>, end: Order) -> Option<Question> {
        let from = after.map_or(0, |after| after.saturating_add(1));
        let mut places = HashMap::<&str, usize>::new();
        let mut question = Question { request: CoveredRequest::default(), orders: Vec::new(), last: from };
        for (order, entry) in self.entries.range(from.min(end)..end).take(QUESTION) {
            let place = *places.entry(&entry.group).or_insert_with(|| {
                question.request.logs.push(LogEntries { group: entry.group.clone(), ids: Vec::new() });
                question.orders.push(Vec::new());
                question.orders.len() - 1
            });
            if let (Some(log), Some(orders)) = (question.request.logs.get_mut(place), question.orders.get_mut(place)) {
                log.ids.push(entry.id.clone());
                orders.push(*order);
            }
            question.last = *order;
        }
        (!question.orders.is_empty()).then_some(question)
    }

    /// Applies an answer: forgets the entries that need not be kept any more.
    pub fn answered(&mut self, question: &Question, answer: &CoveredResponse, now: Timestamp) -> Result<Verdict, Mismatch> {
        if answer.logs.len() != question.orders.len() {
            return Err(Mismatch);
        }
        let mut verdict = Verdict::default();
        for (orders, log) in question.orders.iter().zip(&answer.logs) {
            if log.entries.len() != orders.len() {
                return Err(Mismatch);
            }
            for (order, coverage) in orders.iter().zip(log.entries()) {
                // the entry may have been dropped meanwhile
                let Some(entry) = self.entries.get(order) else { continue };
                let count = match coverage {
                    _ if log.is_erased => &mut verdict.erased,
                    Coverage::Covered => &mut verdict.covered,
                    Coverage::Unknown if now.duration_since(entry.acknowledged) >= ADDED_AGAIN => &mut verdict.possibly_lost,
                    Coverage::Unknown => {
                        verdict.lost.push(*order);
                        continue;
                    }
                    Coverage::Pending | Coverage::Unspecified => continue,
                };
                *count += 1;
                verdict.done.push(*order);
            }
        }
        verdict.lost.sort_unstable();
        verdict.done.sort_unstable();
        verdict.done.iter().for_each(|order| self.forget(*order));
        Ok(verdict)
    }
}

#[cfg(test)]
mod tests;
