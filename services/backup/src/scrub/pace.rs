//! How fast a scrub reads. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// The shortest wait, so that other work runs in between, however much there is to read.
const SHORTEST: Duration = Duration::from_millis(5);
/// The longest wait, so that a new installation soon has a whole scrub, however little there is to read.
const LONGEST: Duration = Duration::from_secs(1);
/// How often it is checked whether the next round has to begin.
const IDLE: Duration = Duration::from_mins(1);

/// How long a round may take: two fit into the period, so that an object that is read first in one and last in the next is still read
/// within it.
pub fn round(period: SignedDuration) -> SignedDuration {
    period / 2
}

/// How long to wait before the next object when `left` objects remain of a round that has to end at `end`.
pub fn before_next(left: u64, now: Timestamp, end: Timestamp) -> Duration {
    let time = Duration::try_from(end.duration_since(now)).unwrap_or_default();
    let objects = u32::try_from(left.max(1)).unwrap_or(u32::MAX);
    (time / objects).clamp(SHORTEST, LONGEST)
}

/// How long to wait for the next round when this one is over.
pub fn before_round(now: Timestamp, end: Timestamp) -> Duration {
    Duration::try_from(end.duration_since(now)).unwrap_or_default().min(IDLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24;

    fn at(hours: i64) -> Timestamp {
        "2026-11-23T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_hours(hours)
    }

    #[test]
    fn everything_is_read_twice_within_the_period() {
        assert_eq!(round(SignedDuration::from_hours(7 * DAY)), SignedDuration::from_hours(84));
    }

    #[test]
    fn what_is_left_is_spread_over_the_time_that_is_left() {
        for (left, hours, wait) in [
            (3_600_000, 10, Duration::from_millis(10)),
            (3_600_000, 5, SHORTEST),
            (1, 84, LONGEST),
            (0, 84, LONGEST),
            // behind, as after a long stop: as fast as others allow
            (100, 0, SHORTEST),
            (100, -5, SHORTEST),
            (u64::MAX, 84, SHORTEST),
        ] {
            assert_eq!(before_next(left, at(0), at(hours)), wait, "{left} objects in {hours} h");
        }
    }

    /// Each object is read once a round, and two rounds take no longer than the period: however fast one of them is, damage that is done right
    /// after an object was read is found within the period.
    #[test]
    fn no_object_waits_longer_than_the_period() {
        let period = SignedDuration::from_hours(7 * DAY);
        for objects in [1, 1_000, 400_000, 2_000_000] {
            let (mut now, end) = (at(0), at(0) + round(period));
            for left in (1..=objects).rev() {
                now += SignedDuration::try_from(before_next(left, now, end)).unwrap();
            }
            assert!(now <= end, "{objects} objects: {now}");
            assert!(now + SignedDuration::try_from(before_round(now, end)).unwrap() <= end);
        }
    }

    #[test]
    fn the_next_round_begins_in_its_time() {
        assert_eq!(before_round(at(0), at(84)), IDLE);
        assert_eq!(before_round(at(0), at(0) + SignedDuration::from_secs(9)), Duration::from_secs(9));
        assert_eq!(before_round(at(1), at(0)), Duration::ZERO);
    }
}
