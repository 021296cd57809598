//! Entries whose log accepts none for now, sealed on the volume of the spool, in one file for each group. There they hold up no other
//! group's entries, and go to the history in their order once their log accepts entries again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;
use tsujiban_core::backoff::Backoff;
use tsujiban_proto::audit::v1::NewEntry;

use super::frame::{self, Frame};
use super::key::SpoolKey;
use super::reader::Reader;
use super::{damage, opened, segments};

const SUFFIX: &str = "apart";
/// How long entries of a group wait before they are tried again: at first, and at most.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_mins(5));
/// At most this many entries and bytes are read at once.
const PIECE_ENTRIES: usize = 256;
const PIECE_BYTES: usize = 1024 * 1024;

/// The entries that wait, by their groups.
pub(super) struct BlockedEntries {
    dir: PathBuf,
    key: SpoolKey,
    /// How many bytes all waiting entries may take.
    bound: u64,
    groups: BTreeMap<String, Waiting>,
}

/// The entries of one group.
#[derive(Debug)]
struct Waiting {
    path: PathBuf,
    bytes: u64,
    entries: u64,
    /// The position in the file up to which the entries have arrived.
    position: u64,
    until: Instant,
    /// How often they were refused while they waited.
    refusals: u32,
}

/// The next entries of a group.
#[derive(Debug)]
pub(super) struct Piece {
    pub entries: Vec<NewEntry>,
    /// The position in the file after them.
    pub position: u64,
}

impl BlockedEntries {
    /// Loads the entries that an earlier process left. A copy of a damaged file is kept aside.
    pub(super) fn open(dir: &Path, key: SpoolKey, bound: u64) -> io::Result<Self> {
        let mut groups = BTreeMap::new();
        for (_, path) in segments::files(dir, SUFFIX)? {
            let bytes = fs::metadata(&path)?.len();
            let mut reader = Reader::open(&path, 0, bytes)?;
            let (mut group, mut entries, mut unreadable) = (None, 0, 0);
            while let Some(frame) = reader.next()? {
                match opened(&key, &frame) {
                    Some(entry) => {
                        entries += 1;
                        group.get_or_insert(entry.group);
                    }
                    None => unreadable += 1,
                }
            }
            if unreadable > 0 || reader.damaged() > 0 {
                tracing::error!(path = %path.display(), unreadable, bytes = reader.damaged(), "entries that waited apart cannot be read any more");
                damage::set_aside(&path);
            }
            match group {
                Some(group) => {
                    let waiting = Waiting { path, bytes, entries, position: 0, until: Instant::now(), refusals: 0 };
                    groups.insert(group, waiting);
                }
                None => fs::remove_file(&path)?,
            }
        }
        Ok(Self { dir: dir.to_owned(), key, bound, groups })
    }

    /// How many entries wait.
    pub(super) fn entries(&self) -> u64 {
        self.groups.values().map(|waiting| waiting.entries).sum()
    }

    /// Whether entries of a group wait. Then later ones of that group have to wait as well.
    pub(super) fn holds(&self, group: &str) -> bool {
        self.groups.contains_key(group)
    }

    /// Appends entries of a group to those that wait. `false`: there is no room, and nothing was written.
    pub(super) fn put(&mut self, group: &str, frames: &[Frame]) -> io::Result<bool> {
        let Some(first) = frames.first() else { return Ok(true) };
        let mut out = Vec::new();
        for frame in frames {
            frame::write(&mut out, &frame::record(frame.kind, frame.sequence, &frame.call), &frame.sealed);
        }
        let (more, used) = (length(out.len()), self.groups.values().map(|waiting| waiting.bytes).sum::<u64>());
        if used.saturating_add(more) > self.bound {
            return Ok(false);
        }
        let (path, from) = match self.groups.get(group) {
            Some(waiting) => (waiting.path.clone(), waiting.bytes),
            None => (self.dir.join(format!("{:016x}.{SUFFIX}", first.sequence)), 0),
        };
        let mut file = File::options().create(true).append(true).open(&path)?;
        // cuts off what an earlier failed write left
        file.set_len(from)?;
        file.write_all(&out)?;
        file.sync_all()?;
        File::open(&self.dir)?.sync_all()?;
        let new = || Waiting { path, bytes: 0, entries: 0, position: 0, until: Instant::now() + BACKOFF.wait(0), refusals: 0 };
        let waiting = self.groups.entry(group.to_owned()).or_insert_with(new);
        waiting.bytes += more;
        waiting.entries += length(frames.len());
        Ok(true)
    }

    /// A group whose entries are due to be sent again.
    pub(super) fn due(&self, now: Instant) -> Option<String> {
        self.groups.iter().find(|(_, waiting)| waiting.until <= now).map(|(group, _)| group.clone())
    }

    /// When the next group is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.groups.values().map(|waiting| waiting.until).min()
    }

    /// The next entries of a group.
    pub(super) fn read(&self, group: &str) -> io::Result<Piece> {
        let Some(waiting) = self.groups.get(group) else { return Ok(Piece { entries: Vec::new(), position: 0 }) };
        let mut reader = Reader::open(&waiting.path, waiting.position, waiting.bytes)?;
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while entries.len() < PIECE_ENTRIES
            && bytes < PIECE_BYTES
            && let Some(frame) = reader.next()?
        {
            bytes += frame.sealed.len();
            entries.extend(opened(&self.key, &frame));
        }
        let is_end = entries.len() < PIECE_ENTRIES && bytes < PIECE_BYTES;
        let position = if is_end { waiting.bytes } else { reader.position() };
        Ok(Piece { entries, position })
    }

    /// Notes that a piece has arrived. Returns how many entries no longer wait: with the last piece also those that could not be read.
    pub(super) fn arrived(&mut self, group: &str, piece: &Piece) -> io::Result<u64> {
        let Some(waiting) = self.groups.get_mut(group) else { return Ok(0) };
        waiting.position = piece.position;
        if piece.position < waiting.bytes {
            let entries = length(piece.entries.len()).min(waiting.entries);
            waiting.entries -= entries;
            return Ok(entries);
        }
        let (path, entries) = (waiting.path.clone(), waiting.entries);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => drop(self.groups.remove(group)),
        }
        Ok(entries)
    }

    /// Lets a group wait longer: its log still accepts no entries.
    pub(super) fn refused(&mut self, group: &str) {
        if let Some(waiting) = self.groups.get_mut(group) {
            waiting.until = Instant::now() + BACKOFF.wait(waiting.refusals);
            waiting.refusals = waiting.refusals.saturating_add(1);
        }
    }
}

fn length(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
