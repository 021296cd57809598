//! What the backup service knows of each device: kept in memory, and from there written into the Devices' status.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tsujiban_core::id::IncarnationId;
use tsujiban_core::outcome::Reason;
use tsujiban_proto::backup::v1::Attempt;
use tsujiban_proto::time::from_wire;

/// The longest message that a Device's status takes, in characters.
const MESSAGE: usize = 512;

/// How the last attempt of a device ended, and what is stored of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub time: Timestamp,
    pub outcome: Outcome,
    pub message: String,
    pub newest: Option<Stored>,
    pub observed_host_key: Option<String>,
    pub pinned_host_key: Option<String>,
    pub model: Option<String>,
    pub firmware: Option<String>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Changed,
    Unchanged,
    Failed(Reason),
}

impl Outcome {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "Changed",
            Self::Unchanged => "Unchanged",
            Self::Failed(reason) => reason.as_str(),
        }
    }
}

/// The newest stored snapshot of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub id: String,
    pub taken_at: Timestamp,
    pub seen_at: Timestamp,
    pub bytes: i64,
    pub shrunk: bool,
    /// Whether the storage no longer has the snapshot as it was stored.
    pub damaged: bool,
}

impl Record {
    /// From the wire; `None` when the service sent something that cannot be parsed.
    pub fn from_wire(attempt: &Attempt) -> Option<Self> {
        let outcome = match attempt.reason().known() {
            Some(reason) => Outcome::Failed(reason),
            None if attempt.changed => Outcome::Changed,
            None => Outcome::Unchanged,
        };
        let newest = attempt.newest.as_ref().and_then(|snapshot| {
            Some(Stored {
                id: snapshot.id.clone(),
                taken_at: from_wire(snapshot.taken_at.as_ref()?)?,
                seen_at: from_wire(snapshot.seen_at.as_ref()?)?,
                bytes: i64::try_from(snapshot.bytes).ok()?,
                shrunk: snapshot.shrunk,
                damaged: snapshot.damaged,
            })
        });
        Some(Self {
            time: from_wire(attempt.time.as_ref()?)?,
            outcome,
            message: attempt.message.chars().take(MESSAGE).collect(),
            newest,
            observed_host_key: given(&attempt.observed_host_key),
            pinned_host_key: given(&attempt.pinned_host_key),
            model: given(&attempt.model),
            firmware: given(&attempt.firmware),
        })
    }
}

fn given(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// The records, by the group's incarnation and serial number: a group that was erased and made again under its name is another one.
#[derive(Debug, Default)]
pub struct AttemptCache(Mutex<HashMap<Key, Arc<Record>>>);

pub type Key = (IncarnationId, String);

impl AttemptCache {
    pub fn get(&self, group: &IncarnationId, serial: &str) -> Option<Arc<Record>> {
        self.entries().get(&(group.clone(), serial.to_owned())).cloned()
    }

    /// Stores a record. Returns whether it differs from the known one.
    pub fn put(&self, group: &IncarnationId, serial: &str, record: Record) -> bool {
        let mut entries = self.entries();
        let key = (group.clone(), serial.to_owned());
        if entries.get(&key).is_some_and(|known| **known == record) {
            return false;
        }
        entries.insert(key, Arc::new(record));
        true
    }

    /// Forgets a device, once its data is erased.
    pub fn forget(&self, group: &IncarnationId, serial: &str) {
        self.entries().remove(&(group.clone(), serial.to_owned()));
    }

    /// Forgets a group, once its data is erased.
    pub fn forget_group(&self, group: &IncarnationId) {
        self.entries().retain(|(life, _), _| life != group);
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Arc<Record>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tsujiban_proto::backup::v1 as wire;

    fn attempt(reason: wire::Reason, changed: bool) -> Attempt {
        let time = Some(tsujiban_proto::time::to_wire(Timestamp::from_second(10).unwrap()));
        let newest = Some(wire::Snapshot { id: "1".into(), taken_at: time, seen_at: time, bytes: 5, ..wire::Snapshot::default() });
        Attempt { time, reason: reason.into(), changed, newest, message: "x".repeat(600), ..Attempt::default() }
    }

    #[test]
    fn the_wire_is_read() {
        let record = Record::from_wire(&attempt(wire::Reason::Unspecified, true)).unwrap();
        assert_eq!((record.outcome.as_str(), record.message.len(), record.observed_host_key), ("Changed", 512, None));
        assert_eq!(Record::from_wire(&attempt(wire::Reason::Timeout, false)).unwrap().outcome, Outcome::Failed(Reason::Timeout));
        assert_eq!(Record::from_wire(&Attempt::default()), None);
    }

    fn incarnation(digit: u8) -> IncarnationId {
        IncarnationId::from_bytes([digit; 16])
    }

    #[test]
    fn only_news_is_news() {
        let book = AttemptCache::default();
        let (acme, borealis) = (incarnation(1), incarnation(2));
        let record = Record::from_wire(&attempt(wire::Reason::Unspecified, false)).unwrap();
        assert!(book.put(&acme, "S1", record.clone()));
        assert!(!book.put(&acme, "S1", record.clone()));
        assert!(book.put(&borealis, "S1", record.clone()));
        book.forget(&acme, "S1");
        assert!(book.get(&acme, "S1").is_none() && book.get(&borealis, "S1").is_some());
        book.put(&borealis, "S2", record);
        book.forget_group(&borealis);
        assert!(book.get(&borealis, "S1").is_none() && book.get(&borealis, "S2").is_none());
    }
}
