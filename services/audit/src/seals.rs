//! Whose a log is. Leaves, bodies and keys name the id of their log; that the log is a group's says only its row. A digest that nobody makes
//! without the master key stands beside it, so that groups cannot be exchanged, and nobody reads or writes the history of another one.

use jiff::Timestamp;
use tsujiban_database::on;
use tsujiban_history::LogId;
use tsujiban_sealing::Keyring;

use crate::engine::UNCLAIMED;
use crate::error::{Error, Result};
use crate::rebuild::CLAIMS;
use crate::service::Audit;

const LABEL: &str = "history log";
/// Says in table meta that logs from before there were seals have theirs.
const META: &str = "logs are sealed";
/// What is wrong with such a log.
pub(crate) const NOT_SEALED: &str = "it is not sealed as its owner's";

pub fn seal(keyring: &Keyring, number: i64, log: &LogId, owner: &str) -> [u8; 32] {
    keyring.mac(LABEL, &[number.to_be_bytes().as_slice(), log.as_bytes(), owner.as_bytes()].concat())
}

/// Whether what stands beside the row of a log is its seal. A log that is nobody's has none yet: no group can read or write it.
pub fn is_sealed(keyring: &Keyring, number: i64, log: &LogId, owner: &str, found: Option<&[u8]>) -> bool {
    if owner.starts_with(UNCLAIMED) {
        return true;
    }
    // whoever can compare digests by time has the database anyway
    found == Some(seal(keyring, number, log, owner).as_slice())
}

/// The same of an id as it is stored. What is none is no log of anybody.
pub fn is_sealed_row(keyring: &Keyring, number: i64, log: &[u8], owner: &str, found: Option<&[u8]>) -> bool {
    <[u8; 16]>::try_from(log).is_ok_and(|log| is_sealed(keyring, number, &LogId::from_bytes(log), owner, found))
}

impl Audit {
    /// Seals the logs that were made before there were seals: once, when there are none. Where some are gone later, their logs are refused.
    pub(crate) async fn seal_logs(&self) -> Result<()> {
        const DONE: &str = "SELECT (SELECT COUNT(*) FROM meta WHERE name = $1) + (SELECT COUNT(*) FROM log_seals)";
        const LOGS: &str = "SELECT number, log_id, group_id FROM logs";
        const PUT: &str = "INSERT INTO log_seals (log, seal) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        const SAY: &str = "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        tsujiban_database::transaction!(self.database, tx => {
            let done: i64 = on!(tx.on(), c => sqlx::query_scalar(DONE).bind(META).fetch_one(c).await)?;
            if done > 0 {
                return Ok(());
            }
            let logs: Vec<(i64, Vec<u8>, String)> = on!(tx.on(), c => sqlx::query_as(LOGS).fetch_all(c).await)?;
            for (number, id, owner) in logs {
                let id = id.try_into().map(LogId::from_bytes).map_err(|_| Error::Damaged(format!("the row of log {number}")))?;
                let seal = seal(&self.keyring, number, &id, &owner).to_vec();
                on!(tx.on(), c => sqlx::query(PUT).bind(number).bind(seal).execute(c).await.map(drop))?;
            }
            on!(tx.on(), c => sqlx::query(SAY).bind(META).bind("yes").execute(c).await.map(drop))?;
            Ok::<_, Error>(())
        })
    }
}

impl Audit {
    /// Where a log names another owner than its seal, its owner has none: nobody gets another log before the operator has said which is whose.
    pub(crate) async fn hold_for_owners(&self) -> Result<()> {
        const LOGS: &str = "SELECT l.number, l.log_id, l.group_id, k.seal FROM logs l LEFT JOIN log_seals k ON k.log = l.number";
        type Row = (i64, Vec<u8>, String, Option<Vec<u8>>);
        let logs: Vec<Row> = on!(self.database.reads(), p => sqlx::query_as(LOGS).fetch_all(p).await)?;
        let is_sealed = |(number, id, owner, seal): &Row| is_sealed_row(&self.keyring, *number, id, owner, seal.as_deref());
        if logs.iter().all(is_sealed) {
            return Ok(());
        }
        tracing::error!("logs are not sealed as those of their owners: groups without a log wait until the operator has named theirs");
        self.engine.hold_new_logs(self.now().checked_add(CLAIMS).unwrap_or(Timestamp::MAX));
        Ok(())
    }
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
