//! Seals that bind logs to their owners. Leaves, bodies and keys name the id of their log, but only the log's row names its group. The seal
//! beside the row is a MAC under the master key, so that rows cannot be exchanged to read or write the history of another group.

mod logs;

use tsujiban_history::LogId;
use tsujiban_sealing::Keyring;

use crate::owner::UNCLAIMED;

const LABEL: &str = "history log";
/// What is wrong with a log whose row names another owner.
pub(crate) const NOT_SEALED: &str = "it is not sealed as its owner's";

pub fn seal(keyring: &Keyring, number: i64, log: &LogId, owner: &str) -> [u8; 32] {
    keyring.mac(LABEL, &[number.to_be_bytes().as_slice(), log.as_bytes(), owner.as_bytes()].concat())
}

/// Whether the seal of a log is valid. An unclaimed log needs none yet, since no group can read or write it.
pub fn is_sealed(keyring: &Keyring, number: i64, log: &LogId, owner: &str, found: Option<&[u8]>) -> bool {
    if owner.starts_with(UNCLAIMED) {
        return true;
    }
    // need not be constant-time: only an attacker who already has the database could time this comparison
    found == Some(seal(keyring, number, log, owner).as_slice())
}

/// Like [`is_sealed`], with an id as it is stored. `false` for an invalid id.
pub fn is_sealed_row(keyring: &Keyring, number: i64, log: &[u8], owner: &str, found: Option<&[u8]>) -> bool {
    <[u8; 16]>::try_from(log).is_ok_and(|log| is_sealed(keyring, number, &LogId::from_bytes(log), owner, found))
}

/// Why the history of an owner is not shown and not written to.
pub fn other_owner(number: i64, owner: &str) -> String {
    let owner = if owner.is_empty() { "the platform".to_owned() } else { format!("group {owner}") };
    format!("log {number} is not sealed as the history of {owner}: table logs was changed by somebody; bring its rows back")
}

#[cfg(test)]
mod tests {
    use tsujiban_core::clock::{Clock, ManualClock};
    use tsujiban_sealing::{MasterKey, SealedEpochKey, SystemRandom};

    use super::*;

    fn keyring() -> Keyring {
        let (random, clock) = (SystemRandom::new(), ManualClock::new("2026-11-26T00:00:00Z".parse().unwrap()));
        let master = MasterKey::generate(&random).unwrap();
        let epoch = SealedEpochKey::generate(&master, &random, clock.now()).unwrap();
        Keyring::new(master, &[epoch]).unwrap()
    }

    #[test]
    fn a_seal_is_of_one_log_of_one_owner_by_one_master_key() {
        let (keyring, log, other) = (keyring(), LogId::from_bytes([1; 16]), LogId::from_bytes([2; 16]));
        let sealed = seal(&keyring, 7, &log, "acme");
        assert!(is_sealed(&keyring, 7, &log, "acme", Some(&sealed)));
        for (number, log, owner) in [(8, &log, "acme"), (7, &other, "acme"), (7, &log, "acm"), (7, &log, "")] {
            assert!(!is_sealed(&keyring, number, log, owner, Some(&sealed)), "{number} {owner}");
        }
        assert!(!is_sealed(&keyring, 7, &log, "acme", None));
        assert!(!is_sealed(&self::keyring(), 7, &log, "acme", Some(&sealed)));
    }
}
