//! The formats in which a log is exported: JSON Lines that an auditor can verify offline, and CSV for a spreadsheet.
//!
//! JSON Lines come in this order. An export has only one valid text, and nothing may follow the last line:
//! 1. [`Header`]: the log, the verifier key, the tree's size, the range `first` to before `end`, and `left`: the hashes of the
//!    whole subtrees that span the entries before `first`, so that one pass over the lines gives the root.
//! 2. [`entry_line`] for every leaf of the range, without gaps. An entry whose day has expired has no opening and no body.
//!    Before the entries of a subtree that has damaged entries in storage: [`Damage`], a signed statement of this damage.
//! 3. [`Outside`]: gaps and retentions outside of the range, with proofs of inclusion: they explain missing bodies.
//! 4. [`Growth`]: proofs of consistency between other sizes and this one, when they are asked for.
//! 5. [`Footer`]: `right`, the hashes that span the entries from `end` on, and the signed checkpoint.
//!
//! `check` in a line is the beginning of its leaf's hash, or of the line's. No verdict depends on it; it shows which line is
//! damaged. A body is exported as the bytes to which the leaf's commitment was made; it is never serialized again.

mod csv;
mod damage;
mod line;

pub use csv::{CSV_HEADER, csv_damaged, csv_expired, csv_row};
pub use damage::{Damage, InvalidDamage, Loss, LostEntry, UnsignedDamage};
pub use line::{EntryLine, MAX_LINE, Opened, entry_line};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::merkle::sha256;
use crate::{Hash, Leaf, Origin, VerifierKey};

/// The version of the format.
const FORMAT: u8 = 1;
const CHECK: &[u8] = b",\"check\":\"";

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    tsujiban_history_export: u8,
    pub log: String,
    pub origin: String,
    /// For information only: the auditor provides the key for the verification.
    pub key: String,
    pub size: u64,
    pub first: u64,
    pub end: u64,
    /// In the order of `Node::cover(0, first)`.
    pub left: Vec<Hash>,
}

/// A gap or a retention outside of the range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outside {
    pub outside: u64,
    /// The leaf in base64.
    leaf: String,
    pub proof: Vec<Hash>,
}

/// A proof of consistency between the size `from` and the export's size, from the smaller to the larger one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Growth {
    pub from: u64,
    pub proof: Vec<Hash>,
}

/// The last line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Footer {
    /// In the order of `Node::cover(end, size)`.
    pub right: Vec<Hash>,
    /// The signed note of the checkpoint of `size`.
    pub checkpoint: String,
}

/// Any line but the first.
#[derive(Debug)]
pub enum Line<'a> {
    Entry(EntryLine<'a>),
    Damage(Damage),
    Outside(Outside),
    Growth(Growth),
    Footer(Footer),
}

impl Header {
    pub fn new(origin: &Origin, key: &VerifierKey, size: u64, range: std::ops::Range<u64>, left: Vec<Hash>) -> Self {
        Self {
            tsujiban_history_export: FORMAT,
            log: origin.log.to_string(),
            origin: origin.to_string(),
            key: key.to_string(),
            size,
            first: range.start,
            end: range.end,
            left,
        }
    }

    pub fn line(&self) -> Vec<u8> {
        to_line(self)
    }

    /// Parses a line without its line break. Accepts only what [`Header::line`] writes; does not check the values.
    pub fn parse(line: &[u8]) -> Option<Self> {
        from_line(line).filter(|header: &Self| header.tsujiban_history_export == FORMAT)
    }
}

impl Outside {
    pub fn new(leaf: &Leaf, proof: Vec<Hash>) -> Self {
        Self { outside: leaf.sequence, leaf: line::to_base64(&leaf.encode()), proof }
    }

    pub fn line(&self) -> Vec<u8> {
        to_line(self)
    }

    /// The leaf's bytes, if they are base64.
    pub fn leaf(&self) -> Option<Vec<u8>> {
        line::from_base64(self.leaf.as_bytes())
    }
}

impl Growth {
    pub fn line(&self) -> Vec<u8> {
        to_line(self)
    }
}

impl Footer {
    pub fn line(&self) -> Vec<u8> {
        to_line(self)
    }
}

impl<'a> Line<'a> {
    /// Parses a line without its line break. Accepts only lines that this module writes.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        if line.starts_with(b"{\"sequence\":") {
            EntryLine::parse(line).map(Self::Entry)
        } else if line.starts_with(b"{\"damaged\":") {
            from_line(line).map(Self::Damage)
        } else if line.starts_with(b"{\"outside\":") {
            from_line(line).map(Self::Outside)
        } else if line.starts_with(b"{\"from\":") {
            from_line(line).map(Self::Growth)
        } else {
            from_line(line).map(Self::Footer)
        }
    }
}

/// The JSON of `line`, with the beginning of its own hash as a last field.
fn to_line<T: Serialize>(line: &T) -> Vec<u8> {
    // texts, numbers and lists of them: this cannot fail
    let mut line = serde_json::to_vec(line).unwrap_or_default();
    line.pop();
    let check = line::check(&sha256(&line));
    line.extend_from_slice(CHECK);
    line.extend_from_slice(&check);
    line.extend_from_slice(b"\"}\n");
    line
}

fn from_line<T: Serialize + DeserializeOwned>(line: &[u8]) -> Option<T> {
    let (json, _check) = line.strip_suffix(b"\"}")?.split_last_chunk::<{ line::CHECK }>()?;
    let json = [json.strip_suffix(CHECK)?, b"}"].concat();
    let read: T = serde_json::from_slice(&json).ok()?;
    let written = to_line(&read);
    (written.strip_suffix(b"\n") == Some(line)).then_some(read)
}

#[cfg(test)]
mod tests;
