//! What is known about the rights of each group's owners, and which group's turn it is to be checked.
//!
//! A group is checked when something changed, and otherwise every ten minutes. All groups together are checked at a steady pace: a thousand
//! groups that are due at once, as after a start, are spread over minutes.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tsujiban_conformance::{Access, Answer};

/// How old answers may be.
const FRESH: SignedDuration = SignedDuration::from_mins(10);
/// Answers that deviate are asked for again sooner, so that a fix is noticed.
const FRESH_WHEN_WRONG: SignedDuration = SignedDuration::from_secs(45);
/// Questions a second, of all groups together, and how many may be asked at once after a quiet time.
const PACE: i64 = 200;
const BURST: i64 = 1000;

/// An answer that is not what the catalogue expects. A group that conforms has none, so that a thousand of them take no memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deviation {
    /// Which of the owners.
    pub owner: usize,
    pub access: Access,
    pub answer: Answer,
}

#[derive(Debug, Default)]
pub struct AccessReviewCache(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    groups: HashMap<String, Entry>,
    failing: HashSet<String>,
    pace: Option<Pace>,
}

#[derive(Debug)]
struct Entry {
    key: u64,
    /// A fingerprint of the owners that were asked about.
    whose: u64,
    asked: Timestamp,
    /// Something has changed that is not part of the key.
    is_stale: bool,
    deviations: Vec<Deviation>,
}

#[derive(Debug)]
struct Pace {
    left: i64,
    since: Timestamp,
}

impl Inner {
    fn pace(&mut self, now: Timestamp) -> &mut Pace {
        self.pace.get_or_insert(Pace { left: BURST, since: now })
    }
}

impl Pace {
    /// Takes questions, also more than are left: a group with many questions makes the next one wait longer.
    fn take(&mut self, now: Timestamp, questions: i64) -> bool {
        let has_some = self.has_some(now);
        if has_some {
            self.left -= questions;
        }
        has_some
    }

    fn has_some(&mut self, now: Timestamp) -> bool {
        let seconds = now.duration_since(self.since).as_secs().max(0);
        if seconds > 0 {
            self.left = self.left.saturating_add(seconds.saturating_mul(PACE)).min(BURST);
            self.since = now;
        }
        self.left > 0
    }
}

impl AccessReviewCache {
    /// Whether the group is to be checked now. If so, its questions count against the pace.
    pub fn take_turn(&self, group: &str, key: u64, now: Timestamp, questions: usize) -> bool {
        let mut inner = self.lock();
        let is_due = inner.groups.get(group).is_none_or(|entry| {
            let age = now.duration_since(entry.asked);
            let limit = if entry.deviations.is_empty() { FRESH } else { FRESH_WHEN_WRONG };
            entry.key != key || entry.is_stale || age >= limit || age < SignedDuration::ZERO
        });
        let questions = i64::try_from(questions).unwrap_or(i64::MAX);
        is_due && inner.pace(now).take(now, questions)
    }

    /// Whether questions are left.
    pub fn has_budget(&self, now: Timestamp) -> bool {
        self.lock().pace(now).has_some(now)
    }

    /// The last deviations of exactly these owners.
    pub fn known(&self, group: &str, whose: u64) -> Option<Vec<Deviation>> {
        self.lock().groups.get(group).filter(|entry| entry.whose == whose).map(|entry| entry.deviations.clone())
    }

    pub fn learn(&self, group: &str, key: u64, whose: u64, asked: Timestamp, deviations: Vec<Deviation>) {
        self.lock().groups.insert(group.to_owned(), Entry { key, whose, asked, is_stale: false, deviations });
    }

    /// Has the group checked again as soon as it is its turn.
    pub fn invalidate(&self, group: &str) {
        if let Some(entry) = self.lock().groups.get_mut(group) {
            entry.is_stale = true;
        }
    }

    /// Notes whether the group conforms, and returns how many groups do not.
    pub fn note(&self, group: &str, conforms: bool) -> usize {
        let mut inner = self.lock();
        if conforms {
            inner.failing.remove(group);
        } else {
            inner.failing.insert(group.to_owned());
        }
        inner.failing.len()
    }

    /// Drops a group that is gone.
    pub fn forget(&self, group: &str) {
        let mut inner = self.lock();
        inner.groups.remove(group);
        inner.failing.remove(group);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tsujiban_conformance::{Scope, access};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn wrong() -> Vec<Deviation> {
        let access = Access::new(Scope::Cluster, "list", access::CORE, "nodes");
        vec![Deviation { owner: 0, access, answer: Answer::Allowed { because: String::new() } }]
    }

    #[test]
    fn a_group_is_asked_about_every_ten_minutes_or_when_something_changed() {
        let book = AccessReviewCache::default();
        assert!(book.take_turn("a", 1, at(0), 50));
        book.learn("a", 1, 7, at(0), Vec::new());
        assert!(!book.take_turn("a", 1, at(599), 50));
        assert!(book.take_turn("a", 1, at(600), 50));
        book.learn("a", 1, 7, at(600), Vec::new());
        assert!(book.take_turn("a", 2, at(601), 50), "another spec or binding");
        book.learn("a", 2, 7, at(601), Vec::new());
        assert!(!book.take_turn("a", 2, at(602), 50));
        book.invalidate("a");
        assert!(book.take_turn("a", 2, at(602), 50), "a binding elsewhere");
        book.learn("a", 2, 7, at(602), wrong());
        assert!(!book.take_turn("a", 2, at(640), 50));
        assert!(book.take_turn("a", 2, at(647), 50), "what was wrong may have been put right");
    }

    /// A start with a thousand groups: no storm, and everybody's turn comes.
    #[test]
    fn a_thousand_groups_are_spread() {
        let book = AccessReviewCache::default();
        let mut asked = HashMap::new();
        let mut worst = 0;
        for second in 0..=1200_i64 {
            let mut now = 0;
            for number in 0..1000 {
                let group = format!("g{number}");
                if !asked.contains_key(&group) && book.take_turn(&group, 1, at(second), 53) {
                    book.learn(&group, 1, 7, at(second), Vec::new());
                    asked.insert(group, second);
                    now += 53;
                }
            }
            worst = if second == 0 { 0 } else { worst.max(now) };
            if second == 0 {
                assert!((1000..=1060).contains(&now), "{now}");
            }
        }
        assert_eq!(asked.len(), 1000);
        assert!(worst <= 253, "{worst}");
        let last = asked.values().max().copied().unwrap();
        assert!((240..280).contains(&last), "{last}");
    }

    /// One group with very many owners is asked about too, and others wait for it.
    #[test]
    fn many_owners_have_their_turn() {
        let book = AccessReviewCache::default();
        assert!(book.take_turn("big", 1, at(0), 53 * 32));
        assert!(!book.take_turn("small", 1, at(1), 53));
        assert!(book.take_turn("small", 1, at(5), 53));
    }

    /// What was answered about one owner says nothing about another.
    #[test]
    fn a_new_owner_is_not_judged_by_the_answers_about_another() {
        let book = AccessReviewCache::default();
        book.learn("a", 1, 7, at(0), Vec::new());
        assert_eq!((book.known("a", 7), book.known("a", 8), book.known("b", 7)), (Some(Vec::new()), None, None));
    }

    #[test]
    fn questions_are_left_until_they_are_asked() {
        let book = AccessReviewCache::default();
        assert!(book.has_budget(at(0)) && book.take_turn("big", 1, at(0), 2000) && !book.has_budget(at(0)));
        assert!(!book.has_budget(at(4)) && book.has_budget(at(6)));
    }

    #[test]
    fn what_fails_is_counted() {
        let book = AccessReviewCache::default();
        assert_eq!((book.note("a", false), book.note("b", false), book.note("a", true)), (1, 2, 1));
        book.forget("b");
        assert_eq!(book.note("a", true), 0);
    }
}
