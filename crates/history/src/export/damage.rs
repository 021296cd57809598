//! The service's signed statement of which entries are damaged in its storage, so that an auditor can tell them from entries that an
//! attacker removed from the file.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::merkle::Node;
use crate::tile::{WIDTH, whole_root};
use crate::{Hash, Origin, SigningKey, VerifierKey};

/// Which piece of an entry is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// The leaf, and with it the whole entry: the export has no line for the entry.
    Entry,
    /// Only the body. The leaf is in the export.
    Body,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LostEntry {
    pub sequence: u64,
    pub loss: Loss,
}

/// The content of a statement of damage. The statement precedes the lines of its entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsignedDamage {
    /// The first entry of one whole subtree, and the one past its last.
    pub damaged: u64,
    pub end: u64,
    /// The size of the log when this was stated.
    pub size: u64,
    /// The hash of the subtree, as the tree has it.
    pub hash: Hash,
    /// The hash of each leaf of the subtree, `None` for a lost leaf. Without the lost leaves the tree cannot prove the other ones, so the
    /// signature has to.
    pub leaves: Vec<Option<Hash>>,
    /// In the order of their sequences.
    pub lost: Vec<LostEntry>,
}

/// The statement, signed by the log's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    #[serde(flatten)]
    pub unsigned: UnsignedDamage,
    /// Ed25519 in base64.
    signature: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDamage {
    #[error("it contradicts itself")]
    Contradiction,
    #[error("it is not signed by the log's key")]
    Signature,
}

impl UnsignedDamage {
    pub fn sign(self, key: &SigningKey, origin: &Origin) -> Damage {
        let signature = STANDARD.encode(key.sign(&self.message(origin)));
        Damage { unsigned: self, signature }
    }

    /// Whether a leaf is lost, so that the subtree's hash cannot be computed from the leaves.
    pub fn is_open(&self) -> bool {
        self.leaves.contains(&None)
    }

    pub fn contains(&self, sequence: u64) -> bool {
        (self.damaged..self.end).contains(&sequence)
    }

    /// The hash of an entry's leaf; `None` if the leaf is lost or the entry is outside of the subtree.
    pub fn leaf(&self, sequence: u64) -> Option<Hash> {
        let at = usize::try_from(sequence.checked_sub(self.damaged)?).ok()?;
        self.leaves.get(at).copied().flatten()
    }

    pub fn loss(&self, sequence: u64) -> Option<Loss> {
        self.lost.iter().find(|lost| lost.sequence == sequence).map(|lost| lost.loss)
    }

    fn check(&self) -> Result<(), InvalidDamage> {
        let is_subtree = Node::cover(self.damaged, self.end).len() == 1 && self.end <= self.size;
        let length = self.end.saturating_sub(self.damaged);
        let is_covered = u64::try_from(self.leaves.len()) == Ok(length) && length <= u64::from(WIDTH);
        let is_ordered = self.lost.windows(2).all(|pair| matches!(pair, [a, b] if a.sequence < b.sequence));
        let is_within = !self.lost.is_empty() && self.lost.iter().all(|lost| self.contains(lost.sequence));
        if !(is_subtree && is_covered && is_ordered && is_within) {
            return Err(InvalidDamage::Contradiction);
        }
        let agrees = (self.damaged..self.end).all(|at| self.leaf(at).is_none() == (self.loss(at) == Some(Loss::Entry)));
        let leaves: Option<Vec<Hash>> = self.leaves.iter().copied().collect();
        let leads = leaves.is_none_or(|leaves| whole_root(&leaves) == self.hash);
        if agrees && leads { Ok(()) } else { Err(InvalidDamage::Contradiction) }
    }

    /// The signed message. Domain separation: no other message that we sign begins with its first line.
    fn message(&self, origin: &Origin) -> Vec<u8> {
        let mut message = format!("tsujiban.dev history damage\n{origin}\n").into_bytes();
        // numbers and hashes only: this cannot fail
        message.extend(serde_json::to_vec(self).unwrap_or_default());
        message
    }
}

impl Damage {
    pub fn line(&self) -> Vec<u8> {
        super::to_line(self)
    }

    /// Verifies that the statement is consistent and that the log's key has signed it.
    pub fn verify(&self, key: &VerifierKey, origin: &Origin) -> Result<(), InvalidDamage> {
        self.unsigned.check()?;
        let signature = STANDARD.decode(&self.signature).map_err(|_| InvalidDamage::Signature)?;
        if key.verify(&self.unsigned.message(origin), &signature) { Ok(()) } else { Err(InvalidDamage::Signature) }
    }
}
