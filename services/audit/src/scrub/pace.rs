//! The pace of the scrub. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// How many entries a step reads at most.
pub const PART: u64 = 256;
/// The scrub rests at least four times as long as a step took, even if it is late: callers come first.
const RESTS: u32 = 4;
/// The longest rest between steps, even if there is little to read, so that a new installation is checked soon.
const LONGEST: Duration = Duration::from_secs(1);
/// How long the scrub rests when nothing is due. Then it checks again, also for new logs.
pub const IDLE: Duration = Duration::from_mins(1);

/// Whether a log is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    No,
    GoOn,
    Begin,
}

/// A pass begins half a period after the previous one began and has the other half to finish, so that everything is read within a period.
pub fn due(began: Option<Timestamp>, before: Option<u64>, (now, period): (Timestamp, SignedDuration)) -> Due {
    match (began, before) {
        (Some(_), Some(before)) if before > 0 => Due::GoOn,
        (Some(began), _) if now.duration_since(began) < period / 2 => Due::No,
        _ => Due::Begin,
    }
}

/// How long to rest after a step that took `took`, with `left` steps to do in the `remaining` time.
pub fn rest(left: u64, remaining: SignedDuration, took: Duration) -> Duration {
    let remaining = Duration::try_from(remaining).unwrap_or_default();
    let steps = u32::try_from(left.max(1)).unwrap_or(u32::MAX);
    (remaining / steps).saturating_sub(took).min(LONGEST).max(took.saturating_mul(RESTS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_begins_in_time_to_end_within_the_period() {
        let (begin, week) = (Timestamp::UNIX_EPOCH, SignedDuration::from_hours(7 * 24));
        let at = |hours| begin + SignedDuration::from_hours(hours);
        assert_eq!(due(None, None, (at(0), week)), Due::Begin);
        assert_eq!(due(Some(begin), Some(7), (at(0), week)), Due::GoOn);
        assert_eq!(due(Some(begin), Some(7), (at(1000), week)), Due::GoOn, "what is late comes to its end first");
        assert_eq!(due(Some(begin), Some(0), (at(83), week)), Due::No);
        assert_eq!(due(Some(begin), Some(0), (at(84), week)), Due::Begin);
    }

    #[test]
    fn steps_are_spread_over_the_time_that_is_left() {
        let (second, ms) = (Duration::from_secs(1), Duration::from_millis);
        let hours = SignedDuration::from_hours;
        for (left, remaining, took, wanted) in [
            (3600, hours(1), ms(0), second),
            (3600, hours(1), ms(200), ms(800)),
            // late: four times as long as it worked
            (3600, hours(1), ms(500), ms(2000)),
            (10, hours(-1), ms(10), ms(40)),
            // little to do
            (1, hours(84), ms(10), LONGEST),
            (0, hours(84), ms(10), LONGEST),
            (u64::MAX, hours(84), ms(10), ms(40)),
        ] {
            assert_eq!(rest(left, remaining, took), wanted, "{left} in {remaining}");
        }
    }
}
