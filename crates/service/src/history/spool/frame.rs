//! A record in a file of the spool: a magic number, its length, two checksums, and its sealed content.
//!
//! `magic 4 bytes | length u32 | crc32 of the length u32 | crc32 u32 | kind u8 | sequence u64 | call 16 bytes | sealed`, big endian. Length
//! and second checksum cover `kind` and everything after it. The magic finds the next record behind a damaged one. The first checksum tells
//! a record whose length is damaged from one that was never finished. Records of older versions have neither: they begin with their length,
//! and so with a zero byte.

use tsujiban_sealing::Context;

const MAGIC: [u8; 4] = [0xf5, b'T', b'J', b'S'];
const CLEAR: usize = 1 + 8 + CALL_BYTES;
pub(super) const CALL_BYTES: usize = 16;
/// The length and two checksums.
const HEAD: usize = MAGIC.len() + 12;
/// No record is longer. A greater length is damage.
const MAX_BODY: usize = 1 << 20;
const CLASS: &str = "history spool";

/// The call that a record belongs to: random bytes, which carry no information.
pub(super) type CallId = [u8; CALL_BYTES];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An entry on its way to the history.
    Entry,
    /// A call that has begun. It is never sent: the next start finds by it which calls were cut off.
    Begun,
    /// An entry that the history has acknowledged, in a file of kept entries.
    Kept,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub kind: Kind,
    pub sequence: u64,
    pub call: CallId,
    pub sealed: Vec<u8>,
}

/// What is at a position of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A record, and how many bytes it takes.
    Frame(Frame, usize),
    /// The beginning of a record, or nothing.
    Short,
    Damaged,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Entry => 1,
            Self::Begun => 2,
            Self::Kept => 3,
        }
    }

    const fn of(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Entry),
            2 => Some(Self::Begun),
            3 => Some(Self::Kept),
            _ => None,
        }
    }
}

/// The context that a record is sealed with, so that no other sealed record can replace it.
pub(super) fn record(kind: Kind, sequence: u64, call: &CallId) -> [u8; CLEAR] {
    let mut record = [0; CLEAR];
    let bytes = [kind.byte()].into_iter().chain(sequence.to_be_bytes()).chain(*call);
    record.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    record
}

pub(super) fn context(record: &[u8; CLEAR]) -> Context<'_> {
    Context { class: CLASS, record }
}

/// Adds a record to `out`.
pub(super) fn write(out: &mut Vec<u8>, record: &[u8; CLEAR], sealed: &[u8]) {
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(record);
    checksum.update(sealed);
    let length = u32::try_from(CLEAR + sealed.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&crc32fast::hash(&length.to_be_bytes()).to_be_bytes());
    out.extend_from_slice(&checksum.finalize().to_be_bytes());
    out.extend_from_slice(record);
    out.extend_from_slice(sealed);
}

/// How many bytes a record takes in its file.
pub(super) fn length(frame: &Frame) -> usize {
    HEAD + CLEAR + frame.sealed.len()
}

/// Reads the record at the beginning of `bytes`.
pub(super) fn read(bytes: &[u8]) -> Next {
    if bytes.first() == Some(&0) {
        return read_older(bytes);
    }
    if bytes.iter().zip(MAGIC).any(|(byte, magic)| *byte != magic) {
        return Next::Damaged;
    }
    let Some((length, rest)) = bytes.get(MAGIC.len()..).and_then(number) else { return Next::Short };
    let Some((length_checksum, rest)) = number(rest) else { return Next::Short };
    if crc32fast::hash(&length.to_be_bytes()) != length_checksum {
        return Next::Damaged;
    }
    body(length, rest, HEAD)
}

/// Reads a record of an older version: its length, its checksum, and its body.
fn read_older(bytes: &[u8]) -> Next {
    let Some((length, rest)) = number(bytes) else { return Next::Short };
    body(length, rest, 8)
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    bytes.split_first_chunk::<4>().map(|(number, rest)| (u32::from_be_bytes(*number), rest))
}

/// Reads checksum and body, behind a head of so many bytes.
fn body(length: u32, rest: &[u8], head: usize) -> Next {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if !(CLEAR..=MAX_BODY).contains(&length) {
        return Next::Damaged;
    }
    let Some((checksum, rest)) = number(rest) else { return Next::Short };
    let Some(body) = rest.get(..length) else { return Next::Short };
    if crc32fast::hash(body) != checksum {
        return Next::Damaged;
    }
    parse(body).map_or(Next::Damaged, |frame| Next::Frame(frame, head + length))
}

/// The position of the next readable record behind the first byte of `bytes`.
pub(super) fn find(bytes: &[u8]) -> Option<usize> {
    let is_record = |at: &usize| bytes.get(*at..).is_some_and(|bytes| matches!(read(bytes), Next::Frame(..)));
    (1..bytes.len()).find(is_record)
}

fn parse(body: &[u8]) -> Option<Frame> {
    let (kind, rest) = body.split_first()?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let (call, sealed) = rest.split_first_chunk::<CALL_BYTES>()?;
    Some(Frame { kind: Kind::of(*kind)?, sequence: u64::from_be_bytes(*sequence), call: *call, sealed: sealed.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(sequence: u64) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, &record(Kind::Entry, sequence, &[9; CALL_BYTES]), b"sealed");
        out
    }

    fn frame(sequence: u64) -> Frame {
        Frame { kind: Kind::Entry, sequence, call: [9; CALL_BYTES], sealed: b"sealed".to_vec() }
    }

    /// As an older version wrote it.
    fn older(sequence: u64) -> Vec<u8> {
        let new = bytes(sequence);
        [&new[4..8], &new[12..]].concat()
    }

    #[test]
    fn there_and_back() {
        let bytes = bytes(7);
        assert_eq!((bytes.len(), length(&frame(7))), (HEAD + CLEAR + 6, bytes.len()));
        assert_eq!(read(&bytes), Next::Frame(frame(7), bytes.len()));
    }

    /// What an older version left in the spool arrives.
    #[test]
    fn records_of_older_versions_are_read() {
        let older = &older(7)[..];
        assert_eq!(read(older), Next::Frame(frame(7), older.len()));
        let mixed = [older, &bytes(8)].concat();
        assert_eq!(find(&mixed), Some(older.len()));
    }

    #[test]
    fn every_cut_is_short_and_every_flipped_bit_is_no_record() {
        let whole = bytes(7);
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]), Next::Short, "{length}");
        }
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(read(&bytes), Next::Frame(..)), "bit {bit}");
        }
    }

    /// A length that is damaged is no record that was never finished, which would be passed over in silence.
    #[test]
    fn a_damaged_length_is_damage() {
        for bit in 0..64 {
            let mut bytes = bytes(7);
            bytes[MAGIC.len() + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&bytes), Next::Damaged, "bit {bit}");
        }
    }

    #[test]
    fn a_damaged_record_hides_no_other() {
        for (first, second) in [(bytes(7), bytes(8)), (older(7), older(8)), (older(7), bytes(8))] {
            for bit in 0..first.len() * 8 {
                let mut both = [first.as_slice(), &second].concat();
                both[bit / 8] ^= 1 << (bit % 8);
                let at = find(&both).unwrap();
                assert_eq!((at, read(&both[at..])), (first.len(), Next::Frame(frame(8), second.len())), "bit {bit}");
            }
        }
    }
}
