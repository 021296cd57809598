//! Limits how many refused calls are recorded. A caller that floods a service must not fill the history, nor displace the refusals of
//! others.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use prometheus::{IntCounter, Registry};

/// For all unknown callers together: a burst of `at_once`, and then one more each time `every` has passed. At most 8,700 a day.
const UNKNOWN_CALLERS: Allowance = Allowance { at_once: 30, every: SignedDuration::from_secs(10) };
/// For each known caller.
const PER_KNOWN_CALLER: Allowance = Allowance { at_once: 60, every: SignedDuration::from_secs(1) };
/// How many known callers have an allowance of their own. Further ones share that of unknown callers.
const KNOWN: usize = 4096;
/// How often the number of left-out refusals is recorded.
const TELL: SignedDuration = SignedDuration::from_mins(10);

#[derive(Debug, Clone, Copy)]
struct Allowance {
    at_once: i32,
    every: SignedDuration,
}

/// Counts refusals.
#[derive(Debug)]
pub(super) struct Refusals {
    state: Mutex<State>,
    left_out_total: IntCounter,
}

#[derive(Debug, Default)]
struct State {
    unknown: Option<Bucket>,
    known: HashMap<String, Bucket>,
    left_out: u64,
    told: Option<Timestamp>,
}

/// What is left of an allowance.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// The moment at which the allowance is whole again.
    whole: Timestamp,
}

/// What becomes of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Recorded,
    LeftOut,
}

impl Refusals {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let left_out_total = IntCounter::new(
            "tsujiban_history_refusals_left_out_total",
            "Refused calls that are not in the history, since there were too many.",
        )?;
        registry.register(Box::new(left_out_total.clone()))?;
        Ok(Self { state: Mutex::default(), left_out_total })
    }

    /// Whether one more refusal is recorded. `actor` is empty for an unknown caller.
    pub(super) fn judge(&self, actor: &str, now: Timestamp) -> Verdict {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = state.known.len() < KNOWN || state.known.contains_key(actor);
        let passes = if !actor.is_empty() && (has_room || state.make_room(now)) {
            let bucket = state.known.entry(actor.to_owned()).or_insert(Bucket { whole: now });
            bucket.take(PER_KNOWN_CALLER, now)
        } else {
            state.unknown.get_or_insert(Bucket { whole: now }).take(UNKNOWN_CALLERS, now)
        };
        drop(state);
        if passes {
            return Verdict::Recorded;
        }
        self.leave_out();
        Verdict::LeftOut
    }

    /// Counts a refusal that is not recorded for another reason.
    pub(super) fn leave_out(&self) {
        self.left_out_total.inc();
        self.state.lock().unwrap_or_else(PoisonError::into_inner).left_out += 1;
    }

    /// How many refusals were left out since the last report, if there were any and a report is due.
    pub(super) fn to_tell(&self, now: Timestamp) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.left_out == 0 || state.told.is_some_and(|told| now.duration_since(told) < TELL) {
            return None;
        }
        state.told = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }
}

impl State {
    /// Removes callers whose allowance is whole. Returns whether there is room now.
    fn make_room(&mut self, now: Timestamp) -> bool {
        self.known.retain(|_, bucket| bucket.whole > now);
        self.known.len() < KNOWN
    }
}

impl Bucket {
    fn take(&mut self, Allowance { at_once, every }: Allowance, now: Timestamp) -> bool {
        let whole = self.whole.max(now);
        let later = whole.checked_add(every).unwrap_or(whole);
        let passes = later.duration_since(now) <= every * at_once;
        if passes {
            self.whole = later;
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn recorded(refusals: &Refusals, actor: &str, times: u32, now: Timestamp) -> usize {
        (0..times).filter(|_| refusals.judge(actor, now) == Verdict::Recorded).count()
    }

    #[test]
    fn a_flood_of_nobody_known_leaves_a_few_and_is_counted() {
        let refusals = Refusals::register(&Registry::new()).unwrap();
        assert_eq!(recorded(&refusals, "", 100_000, at(0)), 30);
        assert_eq!(recorded(&refusals, "", 100_000, at(25)), 2);
        assert_eq!(recorded(&refusals, "hanako", 10, at(25)), 10, "others are not held up");
        assert_eq!(refusals.to_tell(at(25)), Some(199_968));
        assert_eq!(refusals.to_tell(at(700)), None, "there is nothing to tell");
        recorded(&refusals, "", 31, at(1000));
        assert_eq!(refusals.to_tell(at(1000)), Some(1));
        recorded(&refusals, "", 5, at(1000));
        assert_eq!(refusals.to_tell(at(1001)), None, "told a moment ago");
        assert_eq!(refusals.to_tell(at(1601)), Some(5));
    }

    #[test]
    fn so_many_known_ones_that_they_fill_the_memory_share_one_allowance() {
        let refusals = Refusals::register(&Registry::new()).unwrap();
        let all: usize = (0..KNOWN + 1000).map(|number| recorded(&refusals, &number.to_string(), 1, at(0))).sum();
        assert_eq!(all, KNOWN + 30);
        assert_eq!(recorded(&refusals, "late", 1, at(5)), 1, "those of before have their whole allowance again");
    }
}
