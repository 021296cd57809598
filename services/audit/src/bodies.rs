//! How the body of an entry is sealed and committed to.

use tsujiban_core::id::KeyId;
use tsujiban_history::leaf::DayMac;
use tsujiban_history::{Day, DayKeyId, LogId};
use tsujiban_sealing::{Context, DataKey, Random, SealingError};
use zeroize::Zeroizing;

/// The key of one day of one log.
#[derive(Debug, Clone)]
pub struct DayKey {
    pub day: Day,
    pub id: DayKeyId,
    pub mac: DayMac,
    key: DataKey,
}

impl DayKey {
    pub fn new(day: Day, id: DayKeyId, key: DataKey) -> Self {
        Self { day, id, mac: DayMac::new(&key.mac("history openings", b"")), key }
    }

    /// Seals the body of one entry of a log. It cannot be opened as the body of another entry.
    pub fn seal(&self, log: &LogId, sequence: u64, body: &[u8], random: &dyn Random) -> Result<Vec<u8>, SealingError> {
        self.key.seal(Context { class: "history entry", record: &record(log, sequence) }, body, random)
    }

    pub fn open(&self, log: &LogId, sequence: u64, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealingError> {
        self.key.open(Context { class: "history entry", record: &record(log, sequence) }, sealed)
    }
}

/// The subject to which a key's wrapping binds the key.
pub fn subject(log: &LogId, day: Day) -> String {
    format!("history {log} {day}")
}

/// A day's key id, as the type that the keyring uses.
pub fn key_id(id: DayKeyId) -> KeyId {
    id.into()
}

fn record(log: &LogId, sequence: u64) -> [u8; 24] {
    let mut record = [0; 24];
    let bytes = log.as_bytes().iter().copied().chain(sequence.to_be_bytes());
    record.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    record
}
