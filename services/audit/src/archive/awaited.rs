//! Which bodies the archive waits for, and since when.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};

/// How long the archive waits for a body. Callers ask once a minute.
const WAITS: SignedDuration = SignedDuration::from_mins(5);

/// Entries for whose bodies the archive waits, by log and number, and since when.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Mutex<BTreeMap<(i64, u64), Timestamp>>);

impl Waiting {
    fn all(&self) -> MutexGuard<'_, BTreeMap<(i64, u64), Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    pub fn has(&self, log: i64, sequence: u64) -> bool {
        self.all().contains_key(&(log, sequence))
    }

    /// Records which bodies of a span are damaged now. Returns the first one for which the archive still waits; it gives up those for which
    /// it has waited for [`WAITS`].
    pub(super) fn note(&self, log: i64, end: u64, damaged: &[u64], now: Timestamp) -> Option<u64> {
        let mut all = self.all();
        let since = |sequence: u64| all.get(&(log, sequence)).copied().unwrap_or(now);
        let waited: Vec<(u64, Timestamp)> =
            damaged.iter().map(|sequence| (*sequence, since(*sequence))).filter(|(_, since)| now.duration_since(*since) < WAITS).collect();
        all.retain(|(of, sequence), _| *of != log || *sequence >= end);
        all.extend(waited.iter().map(|(sequence, since)| ((log, *sequence), *since)));
        waited.first().map(|(sequence, _)| *sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_waited_for_and_then_given_up() {
        let waiting = Waiting::default();
        let at = |minutes: i64| Timestamp::from_second(minutes * 60).unwrap();
        assert_eq!(waiting.note(1, 20, &[12, 15], at(0)), Some(12));
        assert!(waiting.has(1, 12) && waiting.has(1, 15) && !waiting.has(2, 12));
        assert_eq!(waiting.note(1, 20, &[15], at(1)), Some(15), "12 came back");
        assert!(!waiting.has(1, 12));
        assert_eq!(waiting.note(1, 20, &[15, 17], at(5)), Some(17), "15 does not come back; 17 is new");
        assert!(!waiting.has(1, 15), "nobody is asked for it any more");
        assert_eq!(waiting.note(1, 22, &[], at(6)), None);
        assert!(waiting.is_empty());
    }
}
