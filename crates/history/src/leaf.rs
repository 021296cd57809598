//! The leaf of an entry in the tree: its number, the id of its day key and a commitment to its body. It contains no customer data.

mod commitment;
mod records;

pub use commitment::{Commitment, DayMac, InvalidOpening, Opening};
pub use records::{Gap, InvalidGap, ListLoss, LostLists, Retention, Span, UnsignedGap};

use crate::DayKeyId;

const VERSION: u8 = 1;
const ENTRY: u8 = 1;
const GAP: u8 = 2;
const RETENTION: u8 = 3;
/// The length of an operation's leaf, in bytes.
pub const ENTRY_LENGTH: usize = 58;
/// The maximum length of the JSON of a gap or a retention, in bytes.
pub const MAX_RECORD: usize = 4096;

/// One leaf. Its bytes are the entry of C2SP tlog-tiles. The encoding is canonical: each leaf has exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The number of the entry in its log, from 0.
    pub sequence: u64,
    pub content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// An operation.
    Entry { key: DayKeyId, commitment: Commitment },
    /// Staff declared that entries were lost.
    Gap(Gap),
    /// A day expired lawfully: its key and bodies are destroyed.
    Retention(Retention),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLeaf {
    #[error("a leaf of {0} bytes is cut or too long")]
    Length(usize),
    #[error("leaves of version {0} are unknown here")]
    Version(u8),
    #[error("leaves of kind {0} are unknown here")]
    Kind(u8),
    #[error("the record of a gap or a retention is not written as it has to be")]
    Record,
}

impl Leaf {
    pub fn entry(sequence: u64, key: DayKeyId, commitment: Commitment) -> Self {
        Self { sequence, content: Content::Entry { key, commitment } }
    }

    pub fn encode(&self) -> Vec<u8> {
        let kind = match &self.content {
            Content::Entry { .. } => ENTRY,
            Content::Gap(_) => GAP,
            Content::Retention(_) => RETENTION,
        };
        let mut leaf = Vec::with_capacity(ENTRY_LENGTH);
        leaf.extend_from_slice(&[VERSION, kind]);
        leaf.extend_from_slice(&self.sequence.to_be_bytes());
        match &self.content {
            Content::Entry { key, commitment } => {
                leaf.extend_from_slice(key.as_bytes());
                leaf.extend_from_slice(commitment.as_bytes());
            }
            Content::Gap(gap) => leaf.extend_from_slice(&records::encode(gap)),
            Content::Retention(retention) => leaf.extend_from_slice(&records::encode(retention)),
        }
        leaf
    }

    pub fn parse(leaf: &[u8]) -> Result<Self, InvalidLeaf> {
        let length = || InvalidLeaf::Length(leaf.len());
        let ([version, kind], rest) = leaf.split_first_chunk::<2>().ok_or_else(length)?;
        let (sequence, rest) = rest.split_first_chunk::<8>().ok_or_else(length)?;
        if *version != VERSION {
            return Err(InvalidLeaf::Version(*version));
        }
        let content = match *kind {
            ENTRY => {
                let (key, rest) = rest.split_first_chunk::<16>().ok_or_else(length)?;
                let commitment = rest.try_into().map_err(|_| length())?;
                Content::Entry { key: DayKeyId::from_bytes(*key), commitment: Commitment::from_bytes(commitment) }
            }
            GAP => Content::Gap(records::parse(rest).ok_or(InvalidLeaf::Record)?),
            RETENTION => Content::Retention(records::parse(rest).ok_or(InvalidLeaf::Record)?),
            other => return Err(InvalidLeaf::Kind(other)),
        };
        Ok(Self { sequence: u64::from_be_bytes(*sequence), content })
    }
}

#[cfg(test)]
mod tests;
