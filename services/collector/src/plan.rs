//! Which device starts when.

use std::time::Duration;

use crate::random::Random;

/// Devices start this far apart on average, unless the window is too short for that.
const PACE: Duration = Duration::from_secs(2);

/// The bounds of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// What remains of the window.
    pub window: Duration,
    /// Start all devices at once instead of spreading them over the window.
    pub immediate: bool,
    pub max_concurrent: usize,
    /// How long one device may take, from its start to its whole config.
    pub device: Duration,
    /// How long a device may be silent.
    pub idle: Duration,
}

impl Limits {
    /// When fetching ends. What remains of the window is for recording how it ended.
    pub fn run(&self) -> Duration {
        self.window.saturating_sub((self.window / 10).min(Duration::from_secs(30)))
    }

    /// Over how long the starts of `devices` are spread. Half of the window at most, and short enough that the last one has its full time.
    fn spread(&self, devices: usize) -> Duration {
        if self.immediate {
            return Duration::ZERO;
        }
        let paced = PACE.saturating_mul(u32::try_from(devices).unwrap_or(u32::MAX));
        paced.min(self.window / 2).min(self.run().saturating_sub(self.device))
    }
}

/// When something starts, counted from the beginning of the collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn<T> {
    pub after: Duration,
    pub of: T,
}

/// Gives each device a turn, in the order of their starts. The order differs from run to run, so that a window that is too
/// short does not always miss the same devices.
pub fn turns<T>(devices: Vec<T>, limits: &Limits, random: &Random) -> Vec<Turn<T>> {
    let spread = u64::try_from(limits.spread(devices.len()).as_millis()).unwrap_or(u64::MAX);
    let mut turns: Vec<(u64, Turn<T>)> =
        devices.into_iter().map(|of| (random.up_to(u64::MAX), Turn { after: Duration::from_millis(random.up_to(spread)), of })).collect();
    turns.sort_by_key(|(order, turn)| (turn.after, *order));
    turns.into_iter().map(|(_, turn)| turn).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(window: u64, immediate: bool) -> Limits {
        let seconds = Duration::from_secs;
        Limits { window: seconds(window), immediate, max_concurrent: 20, device: seconds(60), idle: seconds(20) }
    }

    fn last(devices: u32, limits: &Limits) -> Duration {
        turns((0..devices).collect(), limits, &Random::from_seed([3; 32])).last().map(|turn| turn.after).unwrap_or_default()
    }

    #[test]
    fn every_device_has_one_turn_in_order() {
        let turns = turns((0..500).collect(), &limits(1800, false), &Random::from_seed([3; 32]));
        assert!(turns.is_sorted_by_key(|turn| turn.after));
        let mut devices: Vec<u32> = turns.iter().map(|turn| turn.of).collect();
        assert!(!devices.is_sorted());
        devices.sort_unstable();
        assert_eq!(devices, (0..500).collect::<Vec<_>>());
    }

    #[test]
    fn starts_stay_in_the_first_half_and_leave_the_last_device_its_time() {
        let (long, short) = (limits(1800, false), limits(100, false));
        assert!(last(10_000, &long) > Duration::from_secs(880) && last(10_000, &long) <= Duration::from_mins(15));
        assert!(last(10_000, &short) <= Duration::from_secs(30)); // 100 s, less 10 s for recording, less 60 s for a device
        assert_eq!(last(10_000, &limits(60, false)), Duration::ZERO);
    }

    #[test]
    fn a_few_devices_do_not_wait_for_half_an_hour() {
        assert!(last(2, &limits(1800, false)) <= Duration::from_secs(4));
    }

    #[test]
    fn immediate_means_now_and_still_in_random_order() {
        let turns = turns((0..100).collect(), &limits(1800, true), &Random::from_seed([3; 32]));
        assert!(turns.iter().all(|turn| turn.after.is_zero()));
        assert!(!turns.iter().map(|turn| turn.of).collect::<Vec<_>>().is_sorted());
    }
}
