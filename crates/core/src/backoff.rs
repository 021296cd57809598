//! How long to wait before a retry.

use std::time::Duration;

/// Waits that double with each failure in a row, up to the longest one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// The same wait each time.
    pub const fn constant(wait: Duration) -> Self {
        Self::new(wait, wait)
    }

    /// How long to wait after a failure that follows `failures_before` others in a row.
    pub fn wait(self, failures_before: u32) -> Duration {
        self.first.saturating_mul(2_u32.saturating_pow(failures_before)).min(self.longest)
    }

    /// The same plus a random time of up to the same length, so that callers that failed together do not all retry together. `draw` answers
    /// a number from 0 to its argument.
    pub fn jittered(self, failures_before: u32, draw: impl FnOnce(u64) -> u64) -> Duration {
        let wait = self.wait(failures_before);
        let most = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        wait.saturating_add(Duration::from_millis(draw(most).min(most)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
        let waits: Vec<u128> = (0..7).map(|failures| backoff.wait(failures).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 15_000, 15_000]);
        assert_eq!(Backoff::constant(Duration::from_secs(2)).wait(40), Duration::from_secs(2));
    }

    proptest! {
        /// However often something failed, the wait is there and is bounded.
        #[test]
        fn no_wait_is_longer_than_twice_the_longest(failures: u32, drawn: u64) {
            let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(15));
            let wait = backoff.wait(failures);
            prop_assert!((Duration::from_millis(100)..=Duration::from_secs(15)).contains(&wait));
            prop_assert!((wait..=wait * 2).contains(&backoff.jittered(failures, |_| drawn)));
            prop_assert_eq!(backoff.jittered(failures, |most| most / 2), wait + wait / 2);
        }
    }
}
