//! Kept entries, sealed on the volume of the spool, in files of their own, so that they take no room from entries that have not arrived.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use prost::Message;
use tsujiban_proto::audit::v1::NewEntry;

use super::damage;
use super::frame::{self, CALL_BYTES, Frame, Kind, Next};
use super::key::SpoolKey;
use super::reader::Reader;
use super::segments::{self, Numbers};
use crate::history::keeper::Store;
use crate::history::kept::{Entry, Kept, Order};

const SUFFIX: &str = "kept";
/// The file with the number of the entry before which none is needed any more.
const NEEDED: Numbers = Numbers("needed");
/// A new file begins when the last one has reached the bound divided by this.
const PART: u64 = 8;
/// A file without needed entries is deleted; the newest one only when it has at least this many bytes.
const WORTH_ENDING: u64 = 64 * 1024;

/// The files.
pub(super) struct KeptFiles {
    dir: PathBuf,
    key: SpoolKey,
    bound: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By the numbers of their first entries.
    files: BTreeMap<Order, KeptFile>,
    /// The newest one, while it is being written.
    writing: Option<Arc<File>>,
    needed: Order,
}

#[derive(Debug)]
struct KeptFile {
    path: PathBuf,
    bytes: u64,
    /// Position and length of each needed entry.
    places: BTreeMap<Order, (u64, usize)>,
}

impl KeptFiles {
    /// Reads which entries an earlier process kept. Those that cannot be read are left out: the history has them, unless it has lost them.
    pub(super) fn open(dir: &Path, key: SpoolKey, bound: u64) -> io::Result<(Self, Kept)> {
        let needed = NEEDED.read(dir)?.unwrap_or_default();
        let mut kept = Kept::starting_at(needed);
        let mut state = State { needed, ..State::default() };
        for (first, path) in segments::files(dir, SUFFIX)? {
            let mut file = KeptFile { bytes: fs::metadata(&path)?.len(), path, places: BTreeMap::new() };
            let mut reader = Reader::open(&file.path, 0, file.bytes)?;
            let (mut unreadable, mut end) = (0, first.saturating_add(1));
            while let Some(frame) = reader.next()? {
                end = end.max(frame.sequence.saturating_add(1));
                if frame.kind != Kind::Kept || frame.sequence < needed {
                    continue;
                }
                let Some((acknowledged, entry)) = opened(&key, &frame) else {
                    unreadable += 1;
                    continue;
                };
                let length = frame::length(&frame);
                let at = reader.position().saturating_sub(u64::try_from(length).unwrap_or_default());
                file.places.insert(frame.sequence, (at, length));
                let bytes = u64::try_from(length).unwrap_or_default();
                kept.reload(frame.sequence, Entry { group: entry.group, id: entry.id, acknowledged, bytes });
            }
            if reader.damaged() > 0 || unreadable > 0 {
                tracing::error!(path = %file.path.display(), bytes = reader.damaged(), unreadable, "kept entries cannot be read any more");
                damage::set_aside(&file.path);
            }
            // so that no number is used twice
            kept.skip_to(end);
            state.files.insert(first, file);
        }
        let this = Self { dir: dir.to_owned(), key, bound, state: Mutex::new(state) };
        this.forget(&[], kept.oldest());
        Ok((this, kept))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file that is being written, a new one if there is none or it is large enough.
    fn writing(&self, state: &mut State, first: Order) -> io::Result<Arc<File>> {
        let is_large = state.files.values().next_back().is_some_and(|file| file.bytes >= self.bound / PART);
        if let Some(file) = state.writing.as_ref().filter(|_| !is_large) {
            return Ok(Arc::clone(file));
        }
        let path = self.dir.join(format!("{first:016x}.{SUFFIX}"));
        let file = Arc::new(File::options().create(true).write(true).read(true).truncate(true).open(&path)?);
        File::open(&self.dir)?.sync_all()?;
        state.files.insert(first, KeptFile { path, bytes: 0, places: BTreeMap::new() });
        state.writing = Some(Arc::clone(&file));
        Ok(file)
    }

    fn seal(&self, out: &mut Vec<u8>, (order, at, entry): &(Order, Timestamp, NewEntry)) -> io::Result<()> {
        let record = frame::record(Kind::Kept, *order, &[0; CALL_BYTES]);
        let plain = [&at.as_microsecond().to_be_bytes()[..], &entry.encode_to_vec()].concat();
        let sealed = self.key.key.seal(frame::context(&record), &plain, self.key.random()).map_err(io::Error::other)?;
        frame::write(out, &record, &sealed);
        Ok(())
    }
}

impl Store for KeptFiles {
    fn put(&self, entries: &[(Order, Timestamp, NewEntry)]) -> io::Result<()> {
        let Some((first, ..)) = entries.first() else { return Ok(()) };
        let (mut out, mut places) = (Vec::new(), Vec::new());
        for entry in entries {
            let at = out.len();
            self.seal(&mut out, entry)?;
            places.push((entry.0, at, out.len() - at));
        }
        let mut state = self.state();
        let file = self.writing(&mut state, *first)?;
        let Some(kept) = state.files.values_mut().next_back() else { return Ok(()) };
        let from = kept.bytes;
        if let Err(error) = (&*file).write_all(&out) {
            // what cannot be cut off is read as damage at the next start; the next entries go to another file
            let _ = file.set_len(from);
            state.writing = None;
            return Err(error);
        }
        kept.bytes += u64::try_from(out.len()).unwrap_or_default();
        let place = |(order, at, length)| (order, (from + u64::try_from(at).unwrap_or_default(), length));
        kept.places.extend(places.into_iter().map(place));
        Ok(())
    }

    fn synchronise(&self) -> io::Result<()> {
        let writing = self.state().writing.clone();
        writing.map_or(Ok(()), |file| file.sync_data())
    }

    fn get(&self, order: Order) -> Option<NewEntry> {
        let state = self.state();
        let (_, file) = state.files.range(..=order).next_back()?;
        let (at, length) = *file.places.get(&order)?;
        let mut bytes = vec![0; length];
        File::open(&file.path).and_then(|file| file.read_exact_at(&mut bytes, at)).ok()?;
        match frame::read(&bytes) {
            Next::Frame(frame, _) if frame.sequence == order => opened(&self.key, &frame).map(|(_, entry)| entry),
            _ => {
                damage::set_aside(&file.path);
                None
            }
        }
    }

    fn forget(&self, orders: &[Order], oldest: Order) {
        let mut state = self.state();
        for order in orders {
            if let Some((_, file)) = state.files.range_mut(..=*order).next_back() {
                file.places.remove(order);
            }
        }
        if oldest > state.needed {
            state.needed = oldest;
            if let Err(error) = NEEDED.note(&self.dir, oldest) {
                tracing::warn!(%error, "it cannot be noted which entries need not be kept any more; they are asked for again");
            }
        }
        let State { files, writing, .. } = &mut *state;
        let newest = files.keys().next_back().copied().filter(|_| writing.is_some());
        let may_go = |first: &Order, file: &KeptFile| file.places.is_empty() && (newest != Some(*first) || file.bytes >= WORTH_ENDING);
        for (first, file) in files.extract_if(.., |first, file| may_go(first, file)) {
            if newest == Some(first) {
                *writing = None;
            }
            match fs::remove_file(&file.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %file.path.display(), %error, "a file of kept entries cannot be removed");
                }
                _ => {}
            }
        }
    }

    fn excess(&self) -> Option<Order> {
        let state = self.state();
        let bytes: u64 = state.files.values().map(|file| file.bytes).sum();
        // the entries themselves may take the bound, and the newest file a part of it more
        let is_excessive = bytes > self.bound.saturating_add(self.bound / PART * 2);
        let oldest = state.files.values().next().filter(|_| is_excessive && state.files.len() > 1)?;
        oldest.places.keys().next_back().copied()
    }
}

/// When an entry was acknowledged, and the entry.
fn opened(key: &SpoolKey, frame: &Frame) -> Option<(Timestamp, NewEntry)> {
    let record = frame::record(frame.kind, frame.sequence, &frame.call);
    let plain = key.key.open(frame::context(&record), &frame.sealed).ok()?;
    let (at, entry) = plain.split_first_chunk::<8>()?;
    Some((Timestamp::from_microsecond(i64::from_be_bytes(*at)).ok()?, NewEntry::decode(entry).ok()?))
}
