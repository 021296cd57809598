use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tsujiban_core::history::{Day, JstTime};

use super::{InvalidLeaf, MAX_RECORD};
use crate::{DayKeyId, Hash, Origin, SigningKey, TreeHead, VerifierKey};

/// Records that a JST day expired (C5) and that its key and bodies are destroyed. Appended before they are destroyed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    pub day: Day,
    /// The destroyed key. The day's entries are all those whose leaf names this key.
    pub key: DayKeyId,
    /// The first and the last entry under the key, and how many there are.
    pub first: u64,
    pub last: u64,
    pub count: u64,
}

/// Records that staff resumed from an older state after a loss: the log lacks entries that the bucket's newest root covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    #[serde(flatten)]
    pub unsigned: UnsignedGap,
    /// Ed25519 by the log's key, in base64.
    signature: String,
}

/// The content of a gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsignedGap {
    /// The largest size at which this log agrees with a root in the bucket; 0 if it agrees with none.
    pub agreed: u64,
    /// The log's newest head in the bucket. Entries from `agreed` to before its size may have been lost.
    pub newest: TreeHead,
    /// Since when the service had refused to write.
    pub since: JstTime,
    /// Who declared it: an id, never a name.
    pub by: String,
    /// SHA-256 of the reason that was given. The reason is in the entry that follows.
    pub reason: Hash,
    /// Entries before the gap whose rows were damaged when it was declared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<Span>,
    /// Root lists that were missing in the bucket, damaged, or not lists of this environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lists: Vec<LostLists>,
}

/// Entries from `from` to before `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    pub from: u64,
    pub to: u64,
}

/// Root lists from one number to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LostLists {
    pub first: u64,
    pub last: u64,
    pub was: ListLoss,
}

/// Why a root list is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListLoss {
    Missing,
    /// It cannot be read, or does not hold.
    Damaged,
    /// It is whole, but does not continue the chain of the earlier lists.
    Foreign,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the gap is not signed by the log's key for this log and this place")]
pub struct InvalidGap;

impl UnsignedGap {
    /// Signs the gap for one sequence number of one log. Fails if the id of who declared it is too long for a leaf.
    pub fn sign(self, key: &SigningKey, origin: &Origin, sequence: u64) -> Result<Gap, InvalidLeaf> {
        let signature = STANDARD.encode(key.sign(&self.message(origin, sequence)));
        let gap = Gap { unsigned: self, signature };
        if parse(&encode(&gap)).as_ref() == Some(&gap) { Ok(gap) } else { Err(InvalidLeaf::Record) }
    }

    /// The signed message. Domain separation: no signed note of ours begins with its first line.
    fn message(&self, origin: &Origin, sequence: u64) -> Vec<u8> {
        let mut message = format!("tsujiban.dev history gap\n{origin}\n{sequence}\n").into_bytes();
        message.extend_from_slice(&encode(self));
        message
    }
}

impl Gap {
    pub fn verify(&self, key: &VerifierKey, origin: &Origin, sequence: u64) -> Result<(), InvalidGap> {
        let signature = STANDARD.decode(&self.signature).map_err(|_| InvalidGap)?;
        if key.verify(&self.unsigned.message(origin, sequence), &signature) { Ok(()) } else { Err(InvalidGap) }
    }
}

pub(super) fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    // texts and numbers only: this cannot fail
    serde_json::to_vec(record).unwrap_or_default()
}

/// Accepts only what [`encode`] writes.
pub(super) fn parse<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let record = if bytes.len() <= MAX_RECORD { serde_json::from_slice(bytes).ok() } else { None };
    record.filter(|record| encode(record) == bytes)
}
