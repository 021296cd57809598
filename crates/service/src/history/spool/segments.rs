//! The files of a spool.
//!
//! Record numbers have no hole, and a file is named after the number of its first record. So the number of records in a damaged place or in
//! a missing file is known.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::damage::{self, Loss};
use super::frame::{CallId, Frame, Kind};
use super::reader::Reader;

const SUFFIX: &str = "spool";

/// A file of records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub path: PathBuf,
    pub bytes: u64,
    /// The number of the last record; `None` while the segment holds none.
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

/// The content of a spool's folder.
#[derive(Debug)]
pub(super) struct Found {
    pub segments: Segments,
    /// The sequence that the next record gets.
    pub next: u64,
    /// How many entries have not arrived yet.
    pub entries: u64,
    /// The calls that have begun and did not end.
    pub begun: Vec<Frame>,
    /// How many segments hold something that is no record.
    pub damaged: u64,
    /// Records that cannot be read any more, and have not arrived.
    pub losses: Vec<Loss>,
}

/// The path of a segment.
pub(super) fn path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:016x}.{SUFFIX}"))
}

/// The number in the name of a file of this kind.
pub(super) fn first(path: &Path, suffix: &str) -> Option<u64> {
    let name = path.extension().is_some_and(|extension| extension == suffix).then(|| path.file_stem()).flatten()?.to_str()?;
    u64::from_str_radix(name, 16).ok().filter(|_| name.len() == 16)
}

/// The files of a kind in a folder, by the numbers of their first records.
pub(super) fn files(dir: &Path, suffix: &str) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        files.extend(first(&path, suffix).map(|first| (first, path)));
    }
    files.sort();
    Ok(files)
}

/// Reads all segments.
pub(super) fn scan(dir: &Path) -> io::Result<Found> {
    let arrived = ARRIVED.read(dir)?;
    let paths = files(dir, SUFFIX)?;
    let mut begun = HashMap::<CallId, Frame>::new();
    let mut found = Found {
        segments: Segments::default(),
        next: arrived.map_or(0, |arrived| arrived + 1),
        entries: 0,
        begun: vec![],
        damaged: 0,
        losses: vec![],
    };
    // a file is deleted when all in it has arrived, and the newest is never deleted
    let mut expected = arrived.map(|arrived| arrived + 1);
    if paths.is_empty() && arrived.is_some() {
        found.losses.push(Loss { first: found.next, records: 0 });
    }
    let newest = paths.last().map(|(first, _)| *first);
    for (first, path) in paths {
        found.losses.extend(expected.and_then(|expected| Loss::between(expected, first)));
        let mut next = first;
        let mut segment = Segment { bytes: fs::metadata(&path)?.len(), path, last: None };
        let mut reader = Reader::open(&segment.path, 0, segment.bytes)?;
        while let Some(frame) = reader.next()? {
            found.losses.extend(Loss::between(next, frame.sequence));
            next = next.max(frame.sequence + 1);
            segment.last = Some(frame.sequence);
            match frame.kind {
                Kind::Begun => drop(begun.insert(frame.call, frame)),
                Kind::Entry => {
                    begun.remove(&frame.call);
                    found.entries += u64::from(arrived.is_none_or(|arrived| frame.sequence > arrived));
                }
                Kind::Kept => {}
            }
        }
        if reader.damaged() > 0 {
            found.damaged += 1;
            damage::set_aside(&segment.path);
            if newest == Some(first) && reader.is_damaged_at_end() {
                // at least one record is lost; the real number is unknown
                found.losses.push(Loss { first: next, records: 1 });
                next += 1;
            }
        } else if reader.position() < segment.bytes {
            // an unfinished record: no caller was told that it was written
            let bytes = segment.bytes - reader.position();
            tracing::info!(path = %segment.path.display(), bytes, "the last record was cut off while it was written");
        }
        expected = Some(next.max(expected.unwrap_or_default()));
        found.next = found.next.max(next);
        found.segments.0.push_back(segment);
    }
    found.losses = found.losses.into_iter().filter_map(|loss| loss.behind(arrived)).collect();
    found.begun = begun.into_values().collect();
    found.begun.sort_by_key(|frame| frame.sequence);
    Ok(found)
}

/// The sequence up to which everything has arrived. Not synchronised: after a crash of the machine the last entries are sent again, and the
/// history recognises their ids.
pub(super) const ARRIVED: Numbers = Numbers("arrived");

/// A file that holds a number. The number counts only if its checksum fits.
pub(super) struct Numbers(pub &'static str);

impl Numbers {
    pub(super) fn read(&self, dir: &Path) -> io::Result<Option<u64>> {
        let bytes = match fs::read(dir.join(self.0)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        let number = bytes.split_first_chunk::<8>().filter(|(number, sum)| *sum == crc32fast::hash(*number).to_be_bytes());
        Ok(number.map(|(number, _)| u64::from_be_bytes(*number)))
    }

    pub(super) fn note(&self, dir: &Path, number: u64) -> io::Result<()> {
        let number = number.to_be_bytes();
        let bytes = [&number[..], &crc32fast::hash(&number).to_be_bytes()].concat();
        File::options().create(true).write(true).truncate(false).open(dir.join(self.0))?.write_all_at(&bytes, 0)
    }

    pub(super) fn synchronise(&self, dir: &Path) -> io::Result<()> {
        File::open(dir.join(self.0))?.sync_data()
    }
}
