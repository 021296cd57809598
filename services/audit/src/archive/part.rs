//! One object of the archive as bytes. Numbers are big-endian; fields of variable length begin with their length.

use jiff::Timestamp;
use tsujiban_history::archive::{SIGNATURE_LENGTH, is_signed, sign};
use tsujiban_history::merkle::{Hash, Node, Range, sha256};
use tsujiban_history::{Day, EnvironmentOrigin, LogId, SigningKey, VerifierKey};

use crate::reading::Stored;

/// The first bytes of every part.
const MAGIC: &[u8; 16] = b"tsujiban part 1\n";

/// The content of one object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// The number of the list before which it was put.
    pub number: u64,
    /// When it was put, in microseconds since 1970.
    pub put_us: i64,
    /// The logs that were archived again from their first entry: only sections of this generation are valid.
    pub generations: Vec<(LogId, u32)>,
    pub sections: Vec<Section>,
    pub keys: Vec<KeyCopy>,
}

/// Consecutive entries of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    pub log: LogId,
    pub is_platform: bool,
    pub generation: u32,
    pub first: u64,
    /// Whether the same entries are in an older part, too.
    pub repeated: bool,
    pub entries: Vec<ArchivedEntry>,
    /// Only if the tree cannot be computed from the entries.
    pub above: Option<Above>,
}

/// The hashes above entries of which some are lost or wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Above {
    /// The edge of the tree at the end of the section; `None` if it is unknown there.
    pub edge: Option<Range>,
    /// The stored hashes of whole tiles that contain entries of the section.
    pub nodes: Vec<(Node, Hash)>,
}

/// An entry as it is in the database. An entry that the database had lost has no leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedEntry {
    pub day: i64,
    pub time_us: i64,
    pub appended_us: i64,
    pub id: Option<[u8; 16]>,
    pub leaf: Vec<u8>,
    pub sealed: Option<Vec<u8>>,
}

/// A wrapping of the key of a log's day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyCopy {
    pub log: LogId,
    pub day: i64,
    pub epoch: String,
    pub key_id: [u8; 16],
    pub first: u64,
    pub wrapped: Vec<u8>,
    pub superseded_at: Option<i64>,
}

/// Why an object is not a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    #[error("this is not a part of the archive")]
    Format,
    #[error("the part is cut, or has more than it says")]
    Length,
    #[error("the part is not signed by the key of the root lists")]
    Signature,
}

/// Bits of a section's second field.
const OF_PLATFORM: u8 = 1;
const REPEATED: u8 = 2;
const WITH_ABOVE: u8 = 4;

impl Section {
    fn flags(&self) -> u8 {
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        flag(self.is_platform, OF_PLATFORM) | flag(self.repeated, REPEATED) | flag(self.above.is_some(), WITH_ABOVE)
    }

    /// One past the last entry.
    pub fn end(&self) -> u64 {
        self.first.saturating_add(u64::try_from(self.entries.len()).unwrap_or(u64::MAX))
    }
}

impl ArchivedEntry {
    /// Whether the body is here, unless the entry has none or its day has expired.
    pub fn is_whole(&self, now: Timestamp) -> bool {
        self.sealed.is_some() || self.id.is_none() || Day::from_number(self.day).is_none_or(|day| day.is_expired(now))
    }

    /// Converts the entry to the row with this number.
    pub(crate) fn into_stored(self, sequence: u64) -> Stored {
        let Self { day, time_us, appended_us, id, leaf, sealed } = self;
        Stored { sequence, day: Day::from_number(day), time_us, appended_us, leaf, id: id.map(|id| id.to_vec()), sealed }
    }

    /// About how many bytes it takes.
    pub fn weight(&self) -> usize {
        48 + self.leaf.len() + self.sealed.as_ref().map_or(0, Vec::len)
    }
}

impl Part {
    pub fn is_empty(&self) -> bool {
        self.sections.is_empty() && self.keys.is_empty()
    }

    /// The bytes, signed for one environment.
    pub fn encode(&self, key: &SigningKey, environment: &EnvironmentOrigin) -> Vec<u8> {
        let mut out = Writer(MAGIC.to_vec());
        out.u64(self.number);
        out.i64(self.put_us);
        out.count(self.generations.len());
        for (log, generation) in &self.generations {
            out.0.extend_from_slice(log.as_bytes());
            out.u32(*generation);
        }
        out.count(self.sections.len());
        for section in &self.sections {
            out.0.extend_from_slice(section.log.as_bytes());
            out.0.push(section.flags());
            out.u32(section.generation);
            out.u64(section.first);
            out.count(section.entries.len());
            for entry in &section.entries {
                out.i64(entry.day);
                out.i64(entry.time_us);
                out.i64(entry.appended_us);
                out.option(entry.id.as_ref().map(<[u8; 16]>::as_slice));
                out.bytes(&entry.leaf);
                out.option(entry.sealed.as_deref());
            }
            if let Some(above) = &section.above {
                out.above(above);
            }
        }
        out.count(self.keys.len());
        for key in &self.keys {
            out.0.extend_from_slice(key.log.as_bytes());
            out.i64(key.day);
            out.bytes(key.epoch.as_bytes());
            out.0.extend_from_slice(&key.key_id);
            out.u64(key.first);
            out.bytes(&key.wrapped);
            out.option(key.superseded_at.map(i64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice));
        }
        let signature = sign(key, environment, &sha256(&out.0));
        out.0.extend_from_slice(&signature);
        out.0
    }

    /// Accepts only what [`encode`](Self::encode) wrote for this environment.
    pub fn open(bytes: &[u8], key: &VerifierKey, environment: &EnvironmentOrigin) -> Result<Self, PartError> {
        if !bytes.starts_with(MAGIC) {
            return Err(PartError::Format);
        }
        let (signed, signature) = bytes.split_last_chunk::<SIGNATURE_LENGTH>().ok_or(PartError::Length)?;
        if !is_signed(key, environment, &sha256(signed), signature) {
            return Err(PartError::Signature);
        }
        let mut rest = Reader(signed.get(MAGIC.len()..).ok_or(PartError::Length)?);
        let part = rest.part().ok_or(PartError::Length)?;
        if rest.0.is_empty() { Ok(part) } else { Err(PartError::Length) }
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn u32(&mut self, number: u32) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    fn u64(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    fn i64(&mut self, number: i64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    fn count(&mut self, count: usize) {
        // parts are bounded far below this
        self.u32(u32::try_from(count).unwrap_or(u32::MAX));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn above(&mut self, above: &Above) {
        let edge: Vec<Hash> = above.edge.iter().flat_map(Range::hashes).collect();
        self.count(edge.len());
        for hash in &edge {
            self.0.extend_from_slice(hash.as_bytes());
        }
        self.count(above.nodes.len());
        for (node, hash) in &above.nodes {
            self.0.push(node.level);
            self.u64(node.index);
            self.0.extend_from_slice(hash.as_bytes());
        }
    }

    /// Writes `None` as no bytes: a value has at least one byte.
    fn option(&mut self, bytes: Option<&[u8]>) {
        self.bytes(bytes.unwrap_or_default());
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn part(&mut self) -> Option<Part> {
        let (number, put_us) = (self.u64()?, self.i64()?);
        let generations = self.many(|rest| Some((LogId::from_bytes(rest.array()?), rest.u32()?)))?;
        let sections = self.many(Self::section)?;
        let keys = self.many(Self::key)?;
        Some(Part { number, put_us, generations, sections, keys })
    }

    fn section(&mut self) -> Option<Section> {
        let log = LogId::from_bytes(self.array()?);
        let [flags] = self.array::<1>()?;
        let (generation, first) = (self.u32()?, self.u64()?);
        let entries = self.many(Self::entry)?;
        let has = |flag: u8| flags & flag != 0;
        let mut section = Section { log, is_platform: has(OF_PLATFORM), generation, first, repeated: has(REPEATED), entries, above: None };
        if has(WITH_ABOVE) {
            section.above = Some(self.above(section.end())?);
        }
        Some(section)
    }

    /// No hashes mean that the edge is unknown: a section has an entry, so that its edge has a hash.
    fn above(&mut self, end: u64) -> Option<Above> {
        let edge = self.many(Self::hash)?;
        let edge = if edge.is_empty() { None } else { Some(Range::from_hashes(0, end, &edge).ok()?) };
        let node = |rest: &mut Self| {
            let [level] = rest.array::<1>()?;
            Some((Node { level, index: rest.u64()? }, rest.hash()?))
        };
        Some(Above { edge, nodes: self.many(node)? })
    }

    fn hash(&mut self) -> Option<Hash> {
        self.array().map(Hash::from_bytes)
    }

    fn entry(&mut self) -> Option<ArchivedEntry> {
        Some(ArchivedEntry {
            day: self.i64()?,
            time_us: self.i64()?,
            appended_us: self.i64()?,
            id: there(self.bytes()?).map(<[u8; 16]>::try_from).transpose().ok()?,
            leaf: self.bytes()?.to_vec(),
            sealed: there(self.bytes()?).map(<[u8]>::to_vec),
        })
    }

    fn key(&mut self) -> Option<KeyCopy> {
        Some(KeyCopy {
            log: LogId::from_bytes(self.array()?),
            day: self.i64()?,
            epoch: String::from_utf8(self.bytes()?.to_vec()).ok()?,
            key_id: self.array()?,
            first: self.u64()?,
            wrapped: self.bytes()?.to_vec(),
            superseded_at: there(self.bytes()?).map(<[u8; 8]>::try_from).transpose().ok()?.map(i64::from_be_bytes),
        })
    }

    fn many<T>(&mut self, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.u32()?;
        // reserves no memory for `count`, which may be larger than what follows
        (0..count).map(|_| one(self)).collect()
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*array)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u32()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }
}

/// Reads what [`Writer::option`] wrote.
fn there(bytes: &[u8]) -> Option<&[u8]> {
    (!bytes.is_empty()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> EnvironmentOrigin {
        format!("audit.tsujiban.dev/{name}").parse().unwrap()
    }

    fn part() -> Part {
        let log = LogId::from_bytes([7; 16]);
        let entry =
            ArchivedEntry { day: 19_000, time_us: 5, appended_us: 6, id: Some([1; 16]), leaf: vec![1; 58], sealed: Some(vec![2; 300]) };
        let leaf_only = ArchivedEntry { id: None, sealed: None, ..entry.clone() };
        let section =
            Section { log, is_platform: true, generation: 2, first: 10, repeated: false, entries: vec![entry, leaf_only], above: None };
        let lost = ArchivedEntry { id: None, leaf: Vec::new(), sealed: None, ..section.entries[0].clone() };
        let edge = Range::from_hashes(0, 13, &[4, 5, 6].map(|n| Hash::from_bytes([n; 32]))).unwrap();
        let above = Above { edge: Some(edge), nodes: vec![(Node { level: 8, index: 3 }, Hash::from_bytes([7; 32]))] };
        let damaged = Section { first: 12, entries: vec![lost], above: Some(above), ..section.clone() };
        let unknown = Section { repeated: true, above: Some(Above { edge: None, nodes: Vec::new() }), ..damaged.clone() };
        let sections = vec![section, damaged, unknown];
        let keys = vec![KeyCopy {
            log,
            day: 19_000,
            epoch: "ab".repeat(16),
            key_id: [3; 16],
            first: 10,
            wrapped: vec![9; 60],
            superseded_at: Some(-1),
        }];
        Part { number: 12, put_us: 99, generations: vec![(log, 2)], sections, keys }
    }

    fn key(seed: u8) -> (SigningKey, VerifierKey) {
        let key = SigningKey::from_seed(&[seed; 32]).unwrap();
        let verifier = key.verifier("audit.tsujiban.dev/test".parse().unwrap());
        (key, verifier)
    }

    #[test]
    fn a_part_is_read_as_it_was_written() {
        let (key, verifier) = key(1);
        let bytes = part().encode(&key, &environment("test"));
        assert_eq!(Part::open(&bytes, &verifier, &environment("test")), Ok(part()));
        assert_eq!(part().sections[0].end(), 12);
    }

    #[test]
    fn what_was_changed_or_is_somebody_elses_is_no_part() {
        let ((signer, verifier), (_, other)) = (key(1), key(2));
        let bytes = part().encode(&signer, &environment("test"));
        assert_eq!(Part::open(&bytes, &other, &environment("test")), Err(PartError::Signature));
        assert_eq!(Part::open(&bytes, &verifier, &environment("production")), Err(PartError::Signature));
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(Part::open(&flipped, &verifier, &environment("test")).is_err(), "byte {at}");
            assert!(Part::open(&bytes[..at], &verifier, &environment("test")).is_err(), "cut at {at}");
        }
    }
}
