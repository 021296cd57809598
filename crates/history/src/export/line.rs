use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::leaf::{ENTRY_LENGTH, Opening};
use crate::merkle::leaf_hash;
use crate::operation::MAX_BODY;
use crate::{Hash, decimal};

/// The longest line, line break included: the longest body, and room for the fields before it.
pub const MAX_LINE: usize = MAX_BODY + (16 << 10);
/// How many hexadecimal digits of the leaf's hash a line has as its check.
pub(super) const CHECK: usize = 16;
const OPENING: usize = 44;

/// The exported content of an entry that has not expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened<'a> {
    pub opening: Opening,
    /// The stored body, byte for byte.
    pub body: &'a [u8],
}

/// The line of one leaf of the range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryLine<'a> {
    pub sequence: u64,
    leaf: LeafBytes,
    /// Computed from the leaf.
    pub hash: Hash,
    /// Whether the line's check matches the leaf's hash.
    pub is_sound: bool,
    pub opened: Option<Opened<'a>>,
}

/// Leaves of operations, of which there are millions, need no allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
enum LeafBytes {
    Entry([u8; ENTRY_LENGTH]),
    Other(Vec<u8>),
}

/// Appends the line of one leaf.
pub fn entry_line(lines: &mut Vec<u8>, sequence: u64, leaf: &[u8], opened: Option<Opened<'_>>) {
    // writing to a Vec does not fail
    let _ = write!(lines, "{{\"sequence\":{sequence},\"leaf\":\"{}\",\"check\":\"", to_base64(leaf));
    lines.extend_from_slice(&check(&leaf_hash(leaf)));
    if let Some(Opened { opening, body }) = opened {
        let _ = write!(lines, "\",\"opening\":\"{}\",\"body\":", opening.to_base64());
        lines.extend_from_slice(body);
        lines.extend_from_slice(b"}\n");
    } else {
        lines.extend_from_slice(b"\"}\n");
    }
}

impl<'a> EntryLine<'a> {
    /// Parses a line without its line break. Accepts only what [`entry_line`] writes, but with any bytes as the body: the leaf's
    /// commitment verifies the body.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let rest = line.strip_prefix(b"{\"sequence\":")?;
        let (sequence, rest) = until(rest, b',')?;
        let sequence = decimal::parse(std::str::from_utf8(sequence).ok()?)?;
        let (leaf, rest) = until(rest.strip_prefix(b"\"leaf\":\"")?, b'"')?;
        let leaf = LeafBytes::decode(leaf)?;
        let (found, rest) = rest.strip_prefix(b",\"check\":\"")?.split_first_chunk::<CHECK>()?;
        let opened = match rest {
            b"\"}" => None,
            rest => {
                let (opening, rest) = rest.strip_prefix(b"\",\"opening\":\"")?.split_first_chunk::<OPENING>()?;
                let body = rest.strip_prefix(b"\",\"body\":")?.strip_suffix(b"}")?;
                Some(Opened { opening: Opening::from_base64(std::str::from_utf8(opening).ok()?).ok()?, body })
            }
        };
        let hash = leaf_hash(leaf.as_slice());
        Some(Self { sequence, leaf, hash, is_sound: *found == check(&hash), opened })
    }

    pub fn leaf(&self) -> &[u8] {
        self.leaf.as_slice()
    }
}

impl LeafBytes {
    fn decode(text: &[u8]) -> Option<Self> {
        // 58 bytes are 80 characters of base64, for which the decoder demands room for 60 bytes
        let mut bytes = [0; ENTRY_LENGTH + 2];
        match STANDARD.decode_slice(text, &mut bytes) {
            Ok(ENTRY_LENGTH) => bytes.first_chunk().copied().map(Self::Entry),
            _ => from_base64(text).map(Self::Other),
        }
    }

    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Entry(bytes) => bytes,
            Self::Other(bytes) => bytes,
        }
    }
}

pub(super) fn check(hash: &Hash) -> [u8; CHECK] {
    let mut digits = [0; CHECK];
    // eight bytes are sixteen digits
    let _ = hex::encode_to_slice(hash.as_bytes().first_chunk::<8>().unwrap_or(&[0; 8]), &mut digits);
    digits
}

pub(super) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(super) fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

fn until(text: &[u8], end: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|b| *b == end)?;
    let (before, after) = text.split_at_checked(at)?;
    Some((before, after.get(1..)?))
}
