//! How long snapshots stay (C23).
//!
//! A config that a backup finds unchanged is not stored again: the sighting extends the lock of the stored object. So a config that
//! never changes is still there on day 36 and later, and the object is deleted 35 days after the last sighting.

use jiff::{SignedDuration, Timestamp};

use crate::commitments::SNAPSHOTS;

/// Until when an object seen at `sighting` must not be deletable.
pub fn retain_until(sighting: Timestamp) -> Timestamp {
    SignedDuration::try_from(SNAPSHOTS).ok().and_then(|keep| sighting.checked_add(keep).ok()).unwrap_or(Timestamp::MAX)
}

/// When an object with this lock was last seen: the reverse of [`retain_until`], used to rebuild a catalogue from a bucket.
pub fn last_sighting(retain_until: Timestamp) -> Timestamp {
    SignedDuration::try_from(SNAPSHOTS).ok().and_then(|keep| retain_until.checked_sub(keep).ok()).unwrap_or(Timestamp::MIN)
}

/// Whether an object last seen at `sighting` has expired. The newest snapshot of a living device never has: a device that cannot be reached
/// for 36 days keeps its last known config.
pub fn expired(sighting: Timestamp, newest_of_living_device: bool, now: Timestamp) -> bool {
    !newest_of_living_device && now >= retain_until(sighting)
}

/// When the id of an erased group may be used again: after its last data has left the recovery backup area (table 2).
pub fn group_id_free_at(erased_at: Timestamp) -> Timestamp {
    retain_until(erased_at)
}

/// Whether a whole config is suspiciously short: under half of the last one.
pub fn shrunk(last_bytes: u64, new_bytes: u64) -> bool {
    new_bytes.saturating_mul(2) < last_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: &str) -> Timestamp {
        s.parse().unwrap()
    }

    /// C23: 35 days are 35 times 24 hours, to the second.
    #[test]
    fn thirty_five_days_to_the_second() {
        let seen = at("2026-02-01T00:00:00Z");
        assert_eq!(retain_until(seen), at("2026-03-08T00:00:00Z"));
        assert!(!expired(seen, false, at("2026-03-07T23:59:59Z")));
        assert!(expired(seen, false, at("2026-03-08T00:00:00Z")));
        assert_eq!(last_sighting(retain_until(seen)), seen);
    }

    /// C23: snapshots are always there, so the last one of a device that went silent stays.
    #[test]
    fn the_newest_snapshot_of_a_living_device_stays() {
        assert!(!expired(at("2026-01-01T00:00:00Z"), true, at("2027-01-01T00:00:00Z")));
    }

    #[test]
    fn under_half_is_shrunk() {
        assert!(shrunk(101, 50));
        assert!(!shrunk(100, 50));
        assert!(!shrunk(0, 0));
    }
}
