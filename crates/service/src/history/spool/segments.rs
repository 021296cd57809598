//! The files of a spool.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Take};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::frame::{self, CallId, Frame, Kind, Next};

const SUFFIX: &str = ".spool";
const ARRIVED: &str = "arrived";
/// How much of a segment is read at once.
const PIECE: usize = 256 * 1024;

/// A file of records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub path: PathBuf,
    pub bytes: u64,
    /// The last record's; `None` while it holds none.
    pub last: Option<u64>,
}

/// The segments, from old to new. The last one is the one that is being written.
#[derive(Debug, Default)]
pub(super) struct Segments(pub VecDeque<Segment>);

impl Segments {
    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|segment| segment.bytes).sum()
    }
}

/// What lies in the folder of a spool.
#[derive(Debug)]
pub(super) struct Found {
    pub segments: Segments,
    /// The sequence that the next record gets.
    pub next: u64,
    /// How many entries have not arrived yet.
    pub entries: u64,
    /// The calls that have begun and did not end.
    pub begun: Vec<Frame>,
    /// How many segments cannot be read to their end.
    pub damaged: u64,
}

/// Where a segment lies.
pub(super) fn path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:016x}{SUFFIX}"))
}

/// Looks through all segments.
pub(super) fn scan(dir: &Path) -> io::Result<Found> {
    let arrived = arrived(dir)?;
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| SUFFIX.trim_start_matches('.') == extension) {
            paths.push(path);
        }
    }
    // the names are the sequences of their first records, all of one length
    paths.sort();
    let mut begun = HashMap::<CallId, Frame>::new();
    let mut found =
        Found { segments: Segments::default(), next: arrived.map_or(0, |arrived| arrived + 1), entries: 0, begun: vec![], damaged: 0 };
    let newest = paths.last().cloned();
    for path in paths {
        let mut segment = Segment { bytes: fs::metadata(&path)?.len(), path, last: None };
        let mut reader = Reader::open(&segment.path, 0, segment.bytes)?;
        while let Some(frame) = reader.next()? {
            segment.last = Some(frame.sequence);
            found.next = found.next.max(frame.sequence + 1);
            match frame.kind {
                Kind::Begun => drop(begun.insert(frame.call, frame)),
                Kind::Entry => {
                    begun.remove(&frame.call);
                    found.entries += u64::from(arrived.is_none_or(|arrived| frame.sequence > arrived));
                }
            }
        }
        if reader.position() < segment.bytes {
            // the newest one may well end in a record that was never finished: nobody was told that it is there
            let lost = segment.bytes - reader.position();
            if newest.as_ref() == Some(&segment.path) && !reader.is_damaged() {
                tracing::info!(path = %segment.path.display(), bytes = lost, "the last record was cut off while it was written");
            } else {
                tracing::error!(path = %segment.path.display(), bytes = lost, "a part of the history's spool cannot be read");
                found.damaged += 1;
            }
        }
        found.segments.0.push_back(segment);
    }
    found.begun = begun.into_values().collect();
    found.begun.sort_by_key(|frame| frame.sequence);
    Ok(found)
}

/// The sequence up to which everything has arrived.
pub(super) fn arrived(dir: &Path) -> io::Result<Option<u64>> {
    let bytes = match fs::read(dir.join(ARRIVED)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read?,
    };
    let number = bytes.split_first_chunk::<8>().filter(|(number, sum)| *sum == crc32fast::hash(*number).to_be_bytes());
    Ok(number.map(|(number, _)| u64::from_be_bytes(*number)))
}

/// Notes it. Not synchronised: after a crash of the machine the last entries are sent again, and are the same.
pub(super) fn note_arrived(dir: &Path, sequence: u64) -> io::Result<()> {
    let number = sequence.to_be_bytes();
    let bytes = [&number[..], &crc32fast::hash(&number).to_be_bytes()].concat();
    File::options().create(true).write(true).truncate(false).open(dir.join(ARRIVED))?.write_all_at(&bytes, 0)
}

/// Reads a segment record by record.
pub(super) struct Reader {
    file: Take<File>,
    /// What was read and not used; it begins at `start`.
    buffer: Vec<u8>,
    used: usize,
    start: u64,
    damaged: bool,
}

impl Reader {
    /// Reads what stands between two positions. What stands behind may still be taken back.
    pub(super) fn open(path: &Path, from: u64, to: u64) -> io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(from))?;
        Ok(Self { file: file.take(to.saturating_sub(from)), buffer: Vec::new(), used: 0, start: from, damaged: false })
    }

    /// Where the next record begins.
    pub(super) fn position(&self) -> u64 {
        self.start + u64::try_from(self.used).unwrap_or(u64::MAX)
    }

    pub(super) const fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// The next record; `None` at the end of what can be read.
    pub(super) fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            match frame::read(self.buffer.get(self.used..).unwrap_or_default()) {
                Next::Frame(frame, bytes) => {
                    self.used += bytes;
                    return Ok(Some(frame));
                }
                Next::Damaged => {
                    self.damaged = true;
                    return Ok(None);
                }
                Next::Short => {
                    self.start = self.position();
                    self.buffer.drain(..self.used);
                    self.used = 0;
                    let before = self.buffer.len();
                    self.file.by_ref().take(PIECE.try_into().unwrap_or(u64::MAX)).read_to_end(&mut self.buffer)?;
                    if self.buffer.len() == before {
                        return Ok(None);
                    }
                }
            }
        }
    }
}
