//! The spool: operations on their way to the history, sealed, on a volume, in the order in which they happened.
//!
//! A written record survives the end of the process, and a synchronised one a crash of the machine; many calls share one synchronisation.
//! The history gets the records in order and in batches, each with an id by which it recognises a repeated one. A segment file is deleted
//! when everything in it has arrived. No more than one batch is read back into memory.
//!
//! Entries that have arrived are kept in other files until a root list covers them ([`Keeper`]). Entries that their log does not accept for
//! now wait in others ([`BlockedEntries`]).

mod apart;
mod damage;
mod drain;
mod frame;
mod kept_files;
mod key;
mod metrics;
mod reader;
mod segments;
mod succession;
mod writer;

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use prometheus::Registry;
use prost::Message;
use tokio::sync::{Notify, mpsc, oneshot};
use tsujiban_core::id::KeyId;
use tsujiban_proto::audit::v1::NewEntry;
use tsujiban_proto::error::{Kind as ErrorKind, ServiceError};
use tsujiban_sealing::{Keyring, Random};

use self::apart::BlockedEntries;
pub(crate) use self::damage::Loss;
pub(crate) use self::drain::Drain;
use self::frame::{CallId, Kind};
use self::kept_files::KeptFiles;
use self::key::SpoolKey;
pub use self::key::SpoolKeyError;
use self::metrics::Metrics;
use self::segments::Segments;
pub(crate) use self::succession::Succession;
use self::writer::{Command, Item};
use super::keeper::Keeper;
use super::losses::{self, Name};

/// How much one record may take on the disk, in bytes. Everything that goes into one is cut to fit.
pub(crate) const RECORD_BYTES: u64 = 8 * 1024;
/// How many bytes a spool may take unless told otherwise.
pub const DEFAULT_BYTES: u64 = 256 * 1024 * 1024;
/// No spool is smaller.
const LEAST_BYTES: u64 = 256 * 1024;
/// Kept entries may take the spool's bytes divided by this on top, and so may entries that wait apart.
const KEPT: u64 = 4;

/// A spool that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("the spool in {path} cannot be read or written; is the volume mounted and writable?")]
    File { path: PathBuf, source: io::Error },
    #[error("another process uses the spool in {path}; give each its own folder")]
    InUse { path: PathBuf },
    #[error("the spool has no key")]
    Key(#[from] SpoolKeyError),
    #[error("the spool's thread cannot be started")]
    Thread(#[source] io::Error),
    #[error("the metrics of the spool cannot be registered")]
    Metrics(#[from] prometheus::Error),
}

/// The spool of one process. Clones share it.
#[derive(Clone)]
pub(crate) struct Spool {
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
}

/// What the callers, the writer and the drain share.
struct Shared {
    dir: PathBuf,
    limit: u64,
    key: SpoolKey,
    name: Name,
    state: Mutex<State>,
    /// Notified when something was written.
    written: Notify,
    metrics: Metrics,
    /// Held open so that no other process uses the folder.
    _lock: File,
}

#[derive(Debug)]
struct State {
    segments: Segments,
    /// Reserved for calls that have begun, in bytes.
    reserved: u64,
    /// Whether the last write failed.
    broken: bool,
    /// Entries that have not arrived yet.
    depth: u64,
    /// Losses that were reported, by the numbers of their first records.
    reported: BTreeSet<u64>,
}

/// What a spool held when it was opened.
pub(crate) struct Opened {
    pub spool: Spool,
    pub drain: Drain,
    pub keeper: Keeper,
    /// Set when the spool is a new one, which has to be recorded.
    pub beginning: Option<Succession>,
    /// The intents of calls that were cut off. Each stays open until an entry of its call is written.
    pub begun: Vec<NewEntry>,
}

/// Room for the records that a call will write.
pub(crate) struct Reservation {
    spool: Spool,
    bytes: u64,
}

/// How durable a record has to be before [`Written`] is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Survives the end of this process.
    Written,
    /// Survives a crash of the machine.
    Synchronised,
}

/// Becomes ready when a record is as durable as it has to be.
pub(crate) type Written = oneshot::Receiver<Result<(), WriteFailed>>;

/// A record that could not be written. It is tried again until it can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WriteFailed;

impl Spool {
    /// Opens the spool in `dir`, which is made if it is missing, and starts its thread.
    pub(crate) fn open(
        dir: &Path,
        limit: u64,
        (keyring, random): (&Keyring, Arc<dyn Random>),
        service: &'static str,
        now: Timestamp,
        registry: &Registry,
    ) -> Result<Opened, SpoolError> {
        let unusable = |source| SpoolError::File { path: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(unusable)?;
        let lock = File::create(dir.join("lock")).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SpoolError::InUse { path: dir.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
        let key = SpoolKey::open(dir, keyring, random, now)?;
        key.wrap(keyring, now)?;
        let found = segments::scan(dir).map_err(unusable)?;
        let metrics = Metrics::register(registry)?;
        metrics.damaged.inc_by(found.damaged);
        let limit = limit.max(LEAST_BYTES);
        let name = Name { service, spool: key.id().to_string() };
        let (files, kept) = KeptFiles::open(dir, key.clone(), limit / KEPT).map_err(unusable)?;
        let keeper = Keeper::new(Box::new(files), kept, limit / KEPT, registry)?;
        let apart = BlockedEntries::open(dir, key.clone(), limit / KEPT).map_err(unusable)?;
        metrics.apart.set(i64::try_from(apart.entries()).unwrap_or(i64::MAX));
        let beginning = Succession::look(dir, &name.spool);
        let reported = BTreeSet::new();
        let state = State { segments: found.segments, reserved: 0, broken: false, depth: found.entries + apart.entries(), reported };
        let open_calls = found.begun.iter().filter_map(|frame| opened(&key, frame).map(|entry| (frame.call, entry)));
        let open_calls: Vec<(CallId, NewEntry)> = open_calls.collect();
        if open_calls.len() < found.begun.len() {
            tracing::error!(calls = found.begun.len() - open_calls.len(), "calls were cut off, and which ones cannot be read any more");
        }
        let (dir, state) = (dir.to_owned(), Mutex::new(state));
        let shared = Arc::new(Shared { dir, limit, key, name, state, written: Notify::new(), metrics, _lock: lock });
        let begun = open_calls.iter().map(|(_, entry)| entry.clone()).collect();
        let open_calls = open_calls.into_iter().map(|(call, entry)| (call, entry.encode_to_vec())).collect();
        let commands = writer::start(Arc::clone(&shared), found.next, open_calls).map_err(SpoolError::Thread)?;
        shared.show();
        let spool = Self { shared: Arc::clone(&shared), commands };
        for loss in found.losses {
            spool.report(loss, now);
        }
        let drain = Drain::new(spool.clone(), keeper.clone(), apart);
        Ok(Opened { spool, drain, keeper, beginning, begun })
    }

    /// Reserves room for `records` records, or returns the reason why there is none.
    pub(crate) fn reserve(&self, records: u64) -> Result<Reservation, ServiceError> {
        let bytes = records * RECORD_BYTES;
        let refusal = {
            let mut state = self.shared.state();
            if state.broken {
                Some((
                    ErrorKind::Unavailable,
                    "SPOOL_FAILED",
                    "what is done cannot be recorded, since the volume of the history's spool cannot be written; look at the volume of the service",
                ))
            } else if state.segments.bytes() + state.reserved + bytes > self.shared.limit {
                Some((
                    ErrorKind::Exhausted,
                    "SPOOL_FULL",
                    "what is done cannot be recorded, since the history has not been reached for so long that its spool is full; bring \
                     tsujiban-audit back, or give the spool more bytes (--spool-bytes) and its volume the room",
                ))
            } else {
                state.reserved += bytes;
                None
            }
        };
        match refusal {
            None => Ok(Reservation { spool: self.clone(), bytes }),
            Some((kind, reason, message)) => {
                self.shared.metrics.refused.inc();
                Err(ServiceError::new(kind, reason, message))
            }
        }
    }

    /// Wraps the spool's key by the epoch keys that wrap now. For the job that follows the mounted keys.
    pub(crate) fn rewrap(&self, keyring: &Keyring, now: Timestamp) -> Result<(), SpoolKeyError> {
        self.shared.key.wrap(keyring, now)
    }

    /// The epoch keys without which the spool cannot be opened.
    pub(crate) fn epochs(&self) -> Result<Vec<KeyId>, SpoolKeyError> {
        self.shared.key.epochs()
    }

    /// How many entries have not arrived yet.
    pub(crate) fn depth(&self) -> u64 {
        self.shared.state().depth
    }

    /// Reports records that cannot be read any more. `false`: they were reported before.
    fn report(&self, loss: Loss, now: Timestamp) -> bool {
        if !self.shared.state().reported.insert(loss.first) {
            return false;
        }
        tracing::error!(records = loss.records, first = loss.first, "operations on their way to the history are lost");
        self.shared.metrics.lost.inc_by(loss.records.max(1));
        drop(self.force(&losses::damaged(&self.shared.name, loss, now)));
        true
    }

    /// Records that this spool began, or replaced another one. The result is ready when that is on the disk.
    pub(crate) fn report_beginning(&self, beginning: &Succession, now: Timestamp) -> Written {
        let before = beginning.before();
        if let Some(before) = before {
            tracing::error!(before, "the history's spool is gone, with everything that was in it; another one begins");
        } else {
            tracing::info!("the history's spool begins");
        }
        self.shared.metrics.lost.inc_by(u64::from(before.is_some()));
        self.force(&losses::begun(&self.shared.name, before, now))
    }

    /// Queues an entry without a reservation.
    pub(crate) fn force(&self, entry: &NewEntry) -> Written {
        self.send(Kind::Entry, entry, Durability::Synchronised, 0)
    }

    fn send(&self, kind: Kind, entry: &NewEntry, durability: Durability, reserved: u64) -> Written {
        let (done, written) = oneshot::channel();
        let call = entry.operation.as_ref().and_then(|operation| operation.id.as_slice().try_into().ok()).unwrap_or_default();
        if kind == Kind::Entry {
            self.shared.state().depth += 1;
        }
        let item = Item { kind, call, plain: entry.encode_to_vec(), durability, reserved, done: Some(done) };
        // sending fails only if a bug ended the writer thread; then `written` fails at once
        drop(self.commands.send(Command::Write(item)));
        written
    }
}

impl Reservation {
    /// Records that a call has begun. The next start treats the call as cut off, unless it ended.
    pub(crate) fn begin(&mut self, entry: &NewEntry) -> Written {
        let reserved = self.take();
        self.spool.send(Kind::Begun, entry, Durability::Synchronised, reserved)
    }

    /// Queues the entry that ends the call.
    pub(crate) fn end(&mut self, entry: &NewEntry, durability: Durability) -> Written {
        let reserved = self.take();
        self.spool.send(Kind::Entry, entry, durability, reserved)
    }

    fn take(&mut self) -> u64 {
        let taken = self.bytes.min(RECORD_BYTES);
        self.bytes -= taken;
        taken
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.spool.shared.state();
        state.reserved = state.reserved.saturating_sub(self.bytes);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows in the metrics how full the spool is.
    fn show(&self) {
        let (depth, bytes) = {
            let state = self.state();
            (state.depth, state.segments.bytes())
        };
        self.metrics.depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
        self.metrics.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

/// The entry in a record; `None` when the record does not unseal or decode.
fn opened(key: &SpoolKey, frame: &frame::Frame) -> Option<NewEntry> {
    let record = frame::record(frame.kind, frame.sequence, &frame.call);
    let plain = key.key.open(frame::context(&record), &frame.sealed).ok()?;
    NewEntry::decode(plain.as_slice()).ok()
}

#[cfg(test)]
mod tests;
