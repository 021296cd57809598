//! How long to wait after an error, for each object on its own.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tsujiban_core::backoff;

const FIRST: Duration = Duration::from_secs(5);
/// After transient errors, as when the apiserver or the backup service is unreachable: once it is back, the next try comes soon.
const PASSING: backoff::Backoff = backoff::Backoff::new(FIRST, Duration::from_secs(30));
/// After errors that last until a person fixes something.
const LASTING: backoff::Backoff = backoff::Backoff::new(FIRST, Duration::from_mins(5));

/// How many errors of each sort an object has had in a row.
#[derive(Debug, Default)]
struct Failures {
    passing: u32,
    lasting: u32,
}

/// The failures of each object.
#[derive(Debug, Default)]
pub struct Backoff(Mutex<HashMap<String, Failures>>);

impl Backoff {
    /// Notes an error and returns how long to wait: 5 s, then twice as long each time, at most 5 minutes; at most 30 s when the error does
    /// not last.
    pub fn failed(&self, object: &str, is_lasting: bool) -> Duration {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = all.entry(object.to_owned()).or_default();
        let (count, backoff) = if is_lasting { (&mut failures.lasting, LASTING) } else { (&mut failures.passing, PASSING) };
        let wait = backoff.wait(*count);
        *count = count.saturating_add(1);
        wait
    }

    /// Notes a success, which resets the failures.
    pub fn succeeded(&self, object: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(object);
    }
}

/// Spreads a time by up to a fifth in either direction, always by the same amount for the same name, so that a thousand objects that were
/// once reconciled together do not stay in step for ever.
pub fn spread(base: Duration, name: &str) -> Duration {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let per_mille = u32::try_from((hash >> 17) % 401).unwrap_or(200);
    base.saturating_mul(800 + per_mille) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_five_minutes_and_start_again() {
        let backoff = Backoff::default();
        let waits: Vec<u64> = (0..8).map(|_| backoff.failed("a", true).as_secs()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff.failed("b", true).as_secs(), 5);
        backoff.succeeded("a");
        assert_eq!(backoff.failed("a", true).as_secs(), 5);
    }

    /// However long an outage was, everything is tried again within half a minute of its end.
    #[test]
    fn what_passes_is_tried_again_soon() {
        let backoff = Backoff::default();
        let waits: Vec<u64> = (0..40).map(|_| backoff.failed("a", false).as_secs()).collect();
        assert_eq!((&waits[..4], waits[39]), (&[5, 10, 20, 30][..], 30));
        assert_eq!(backoff.failed("a", true).as_secs(), 5);
    }

    #[test]
    fn spread_stays_near() {
        for name in ["acme", "borealis", "x"] {
            let wait = spread(Duration::from_mins(1), name).as_secs();
            assert!((48..=72).contains(&wait), "{name}: {wait}");
        }
    }
}
