//! A record in a segment: its length, a checksum, and what is sealed.
//!
//! `length u32 | crc32 u32 | kind u8 | sequence u64 | call 16 bytes | sealed`, big endian. Length and checksum are of what follows both.

use tsujiban_sealing::Context;

const HEAD: usize = 8;
const CLEAR: usize = 1 + 8 + CALL_BYTES;
pub(super) const CALL_BYTES: usize = 16;
/// How many bytes a frame adds to what is sealed.
#[cfg(test)]
const OVERHEAD: usize = HEAD + CLEAR;
/// No record is longer. A length that says so is damage.
const MAX_BODY: usize = 1 << 20;
const CLASS: &str = "history spool";

/// Of which call a record is: random bytes, which say nothing.
pub(super) type CallId = [u8; CALL_BYTES];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An entry on its way to the history.
    Entry,
    /// A call that has begun. Stays here: at the next start it says which calls were cut off.
    Begun,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub kind: Kind,
    pub sequence: u64,
    pub call: CallId,
    pub sealed: Vec<u8>,
}

/// What stands at a place of a segment.
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
        }
    }

    const fn of(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Entry),
            2 => Some(Self::Begun),
            _ => None,
        }
    }
}

/// What a record is sealed as: nothing sealed can stand in its place.
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
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&checksum.finalize().to_be_bytes());
    out.extend_from_slice(record);
    out.extend_from_slice(sealed);
}

/// Reads the record at the beginning of `bytes`.
pub(super) fn read(bytes: &[u8]) -> Next {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else { return Next::Short };
    let [l0, l1, l2, l3, c0, c1, c2, c3] = *head;
    let length = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
    if !(CLEAR..=MAX_BODY).contains(&length) {
        return Next::Damaged;
    }
    let Some(body) = rest.get(..length) else { return Next::Short };
    if crc32fast::hash(body) != u32::from_be_bytes([c0, c1, c2, c3]) {
        return Next::Damaged;
    }
    parse(body).map_or(Next::Damaged, |frame| Next::Frame(frame, HEAD + length))
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

    fn bytes() -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, &record(Kind::Entry, 7, &[9; CALL_BYTES]), b"sealed");
        out
    }

    #[test]
    fn there_and_back() {
        let bytes = bytes();
        let frame = Frame { kind: Kind::Entry, sequence: 7, call: [9; CALL_BYTES], sealed: b"sealed".to_vec() };
        assert_eq!(bytes.len(), OVERHEAD + 6);
        assert_eq!(read(&bytes), Next::Frame(frame, bytes.len()));
    }

    #[test]
    fn every_cut_is_short_and_every_flipped_bit_is_no_record() {
        let whole = bytes();
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]), Next::Short, "{length}");
        }
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(read(&bytes), Next::Frame(..)), "bit {bit}");
        }
    }
}
