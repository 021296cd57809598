//! Sends the entries of the spool to the history, in order and in batches, and retries until they have arrived.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fs, io};

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tsujiban_core::backoff::Backoff;
use tsujiban_core::clock::Clock;
use tsujiban_proto::audit::v1::NewEntry;
use tsujiban_proto::error::{Kind as ErrorKind, ServiceError};
use tsujiban_proto::time::from_wire;

use super::apart::BlockedEntries;
use super::damage::{self, Loss};
use super::frame::{CALL_BYTES, Frame, Kind};
use super::reader::Reader;
use super::segments::ARRIVED;
use super::writer::Command;
use super::{Shared, Spool, frame, opened};
use crate::history::keeper::Keeper;
use crate::history::ledger::{Ledger, concerns_one_log};

/// At most this many entries and bytes are sent at once, and held in memory.
const BATCH_ENTRIES: usize = 256;
const BATCH_BYTES: usize = 1024 * 1024;
/// How long to wait after a failure: at first, and at most.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(15));
/// A segment is replaced by a new one when everything in it has arrived, unless it is smaller than this.
const WORTH_ROTATING: u64 = 64 * 1024;

/// Sends the entries of the spool to the history.
pub(crate) struct Drain {
    spool: Spool,
    keeper: Keeper,
    apart: Arc<Mutex<BlockedEntries>>,
    position: ReadPosition,
}

/// How far the drain has read.
#[derive(Debug, Clone, Copy, Default)]
struct ReadPosition {
    /// The last record that was passed.
    passed: Option<u64>,
    /// How many bytes of the oldest segment were passed.
    offset: u64,
}

/// An entry, and its record in the spool.
type Waiting = (NewEntry, Frame);

struct Batch {
    entries: Vec<Waiting>,
    /// The position after them.
    position: ReadPosition,
    /// How many of the oldest segments were read to their ends.
    finished: usize,
    /// Records that could not be read.
    losses: Vec<Loss>,
}

impl Drain {
    pub(super) fn new(spool: Spool, keeper: Keeper, apart: BlockedEntries) -> Self {
        Self { spool, keeper, apart: Arc::new(Mutex::new(apart)), position: ReadPosition::default() }
    }

    /// Runs until `stop` is cancelled. Entries that have not arrived by then stay in the spool. Asks about the kept entries at the interval
    /// `every`, and first of all when the history can be reached again: its database may have been restored to an older state.
    pub(crate) async fn run(mut self, ledger: Arc<dyn Ledger>, clock: Arc<dyn Clock>, every: Duration, stop: CancellationToken) {
        let mut failures = 0_u32;
        let mut question = Instant::now();
        loop {
            if question <= Instant::now() {
                question = Instant::now() + every;
                if let Err(error) = self.keeper.ask(&*ledger, clock.now()).await {
                    let (reason, error) = (error.reason, error.message);
                    tracing::warn!(reason, error, kept = self.keeper.len(), "the history does not say which entries are covered");
                }
            }
            let rest = match self.step(&*ledger, &*clock).await {
                Ok(true) => {
                    failures = 0;
                    continue;
                }
                Ok(false) => None,
                Err(Failure(error)) => {
                    self.spool.shared.metrics.failed.inc();
                    let wait = BACKOFF.wait(failures);
                    tracing::warn!(error, again_in = wait.as_secs_f64(), depth = self.spool.depth(), "operations do not reach the history");
                    failures = failures.saturating_add(1);
                    question = Instant::now();
                    Some(wait)
                }
            };
            let look = self.apart().next().map_or(question, |again| again.min(question));
            tokio::select! {
                () = stop.cancelled() => return,
                () = async { match rest {
                    Some(rest) => tokio::time::sleep(rest).await,
                    None => self.spool.shared.written.notified().await,
                } } => {}
                () = sleep_until(look), if rest.is_none() => {}
            }
        }
    }

    /// Sends one batch. `Ok(false)`: there is none.
    async fn step(&mut self, ledger: &dyn Ledger, clock: &dyn Clock) -> Result<bool, Failure> {
        let due = self.apart().due(Instant::now());
        if let Some(group) = due {
            self.try_again(ledger, clock, &group).await?;
            return Ok(true);
        }
        let (shared, position) = (Arc::clone(&self.spool.shared), self.position);
        let batch = spawn_blocking(move || read(&shared, position)).await.map_err(Failure::of)?.map_err(Failure::of)?;
        let oldest = batch.entries.first().and_then(|(entry, _)| entry.operation.as_ref()?.time.as_ref()).and_then(from_wire);
        let age = oldest.map(|oldest| clock.now().duration_since(oldest).as_secs()).unwrap_or_default();
        self.spool.shared.metrics.age.set(age.max(0));
        for loss in &batch.losses {
            if self.spool.report(*loss, clock.now()) {
                let mut state = self.spool.shared.state();
                state.depth = state.depth.saturating_sub(loss.records);
            }
        }
        let arrived = self.deliver(ledger, clock, batch.entries).await?;
        let has_moved = batch.position.passed != self.position.passed || batch.finished > 0;
        if has_moved {
            let shared = Arc::clone(&self.spool.shared);
            let (position, finished) = (batch.position, batch.finished);
            spawn_blocking(move || forget(&shared, position, finished)).await.map_err(Failure::of)?.map_err(Failure::of)?;
            let mut state = self.spool.shared.state();
            state.depth = state.depth.saturating_sub(arrived);
            drop(state);
            self.position = batch.position;
            self.spool.shared.show();
        }
        let is_worth_rotating = {
            let state = self.spool.shared.state();
            state.depth == 0 && self.position.offset >= WORTH_ROTATING
        };
        if is_worth_rotating && !has_moved {
            drop(self.spool.commands.send(Command::Rotate));
        }
        Ok(has_moved)
    }

    fn apart(&self) -> MutexGuard<'_, BlockedEntries> {
        self.apart.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs work that waits for the disk on the entries that wait apart.
    async fn with_apart<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut BlockedEntries) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let apart = Arc::clone(&self.apart);
        let work = move || work(&mut apart.lock().unwrap_or_else(PoisonError::into_inner));
        spawn_blocking(work).await.map_err(Failure::of)?.map_err(Failure::of)
    }

    /// Sends entries to the history. Those of a log that accepts none wait apart, so that they do not hold up the others. Returns how many
    /// need not be sent any more.
    async fn deliver(&self, ledger: &dyn Ledger, clock: &dyn Clock, entries: Vec<Waiting>) -> Result<u64, Failure> {
        let (mut waiting, going): (Vec<Waiting>, Vec<Waiting>) = {
            let apart = self.apart();
            entries.into_iter().partition(|(entry, _)| apart.holds(&entry.group))
        };
        let mut arrived = u64::try_from(going.len()).unwrap_or_default();
        let batch: Vec<NewEntry> = going.iter().map(|(entry, _)| entry.clone()).collect();
        if self.send(ledger, clock, batch).await? == Sent::No {
            let mut groups: BTreeMap<String, Vec<Waiting>> = BTreeMap::new();
            for (entry, frame) in going {
                groups.entry(entry.group.clone()).or_default().push((entry, frame));
            }
            for (group, entries) in groups {
                let batch = entries.iter().map(|(entry, _)| entry.clone()).collect();
                if self.send_each(ledger, clock, batch).await? == Sent::No {
                    tracing::error!(group, entries = entries.len(), "a group's log takes no entries; they wait apart");
                    arrived = arrived.saturating_sub(u64::try_from(entries.len()).unwrap_or_default());
                    waiting.extend(entries);
                }
            }
        }
        self.wait_apart(waiting).await?;
        Ok(arrived)
    }

    async fn wait_apart(&self, waiting: Vec<Waiting>) -> Result<(), Failure> {
        let mut groups: BTreeMap<String, Vec<Frame>> = BTreeMap::new();
        for (entry, frame) in waiting {
            groups.entry(entry.group).or_default().push(frame);
        }
        for (group, frames) in groups {
            if !self.with_apart(move |apart| apart.put(&group, &frames)).await? {
                let full = "entries of logs that take none have no more room apart; bring those logs back (tsujiban audit declare-gap), or give the \
                            spool more bytes (--spool-bytes)";
                return Err(Failure::of(full));
            }
        }
        self.show_apart();
        Ok(())
    }

    fn show_apart(&self) {
        self.spool.shared.metrics.apart.set(i64::try_from(self.apart().entries()).unwrap_or(i64::MAX));
    }

    /// Retries the next entries of a group that wait apart.
    async fn try_again(&self, ledger: &dyn Ledger, clock: &dyn Clock, group: &str) -> Result<(), Failure> {
        let name = group.to_owned();
        let piece = self.with_apart(move |apart| apart.read(&name)).await?;
        let name = group.to_owned();
        if self.send_each(ledger, clock, piece.entries.clone()).await? == Sent::No {
            self.apart().refused(&name);
            return Ok(());
        }
        let arrived = self.with_apart(move |apart| apart.arrived(&name, &piece)).await?;
        let mut state = self.spool.shared.state();
        state.depth = state.depth.saturating_sub(arrived);
        drop(state);
        self.spool.shared.show();
        self.show_apart();
        Ok(())
    }

    /// Sends entries of one group, one by one where the log does not accept them together. One that it will never accept is set aside in a
    /// file.
    async fn send_each(&self, ledger: &dyn Ledger, clock: &dyn Clock, entries: Vec<NewEntry>) -> Result<Sent, Failure> {
        if self.send(ledger, clock, entries.clone()).await? == Sent::All {
            return Ok(Sent::All);
        }
        for entry in entries {
            match ledger.append(vec![entry.clone()]).await {
                Ok(()) => self.keep(vec![entry], clock).await,
                Err(error) if error.kind == ErrorKind::Invalid => self.set_aside(&entry, &error).map_err(Failure::of)?,
                Err(error) if concerns_one_log(&error) => return Ok(Sent::No),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Sent::All)
    }

    /// Sends entries, all or none. Fails when the history accepts no entries, whatever their log.
    async fn send(&self, ledger: &dyn Ledger, clock: &dyn Clock, entries: Vec<NewEntry>) -> Result<Sent, Failure> {
        if entries.is_empty() {
            return Ok(Sent::All);
        }
        match ledger.append(entries.clone()).await {
            Ok(()) => {
                self.keep(entries, clock).await;
                Ok(Sent::All)
            }
            Err(error) if error.kind == ErrorKind::Invalid || concerns_one_log(&error) => Ok(Sent::No),
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps entries that have arrived, before the spool deletes them.
    async fn keep(&self, entries: Vec<NewEntry>, clock: &dyn Clock) {
        self.keeper.keep(entries, clock.now()).await;
        self.keeper.synchronise().await;
    }

    fn set_aside(&self, entry: &NewEntry, error: &ServiceError) -> io::Result<()> {
        let shared = &self.spool.shared;
        let path = shared.dir.join(format!("{}.rejected", hex::encode(&entry.id)));
        tracing::error!(path = %path.display(), reason = error.reason, error = error.message, "the history will never take an operation");
        let record = frame::record(Kind::Entry, 0, &[0; CALL_BYTES]);
        let plain = prost::Message::encode_to_vec(entry);
        let sealed = shared.key.key.seal(frame::context(&record), &plain, shared.key.random()).map_err(io::Error::other)?;
        fs::write(path, sealed)?;
        shared.metrics.rejected.inc();
        Ok(())
    }
}

/// What became of entries that were sent together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    All,
    /// Some of them were not accepted.
    No,
}

/// Why a batch did not arrive.
struct Failure(String);

impl Failure {
    fn of(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        Self(format!("{}: {}", error.reason, error.message))
    }
}

/// The next batch after a position.
fn read(shared: &Shared, mut position: ReadPosition) -> io::Result<Batch> {
    let segments: Vec<_> = shared.state().segments.0.iter().cloned().collect();
    if position.passed.is_none() {
        position.passed = ARRIVED.read(&shared.dir)?;
    }
    let is_new = |sequence: u64, position: &ReadPosition| position.passed.is_none_or(|passed| sequence > passed);
    let (mut entries, mut bytes, mut finished, mut losses) = (Vec::new(), 0, 0, Vec::new());
    for (index, segment) in segments.iter().enumerate() {
        let mut reader = Reader::open(&segment.path, position.offset, segment.bytes)?;
        while entries.len() < BATCH_ENTRIES && bytes < BATCH_BYTES {
            let Some(frame) = reader.next()? else { break };
            if !is_new(frame.sequence, &position) {
                continue;
            }
            if let Some(missing) = position.passed.and_then(|passed| Loss::between(passed + 1, frame.sequence)) {
                missing.add_to(&mut losses);
            }
            position.passed = Some(frame.sequence);
            if frame.kind == Kind::Entry {
                bytes += frame.sealed.len();
                if let Some(entry) = opened(&shared.key, &frame) {
                    entries.push((entry, frame));
                } else {
                    tracing::error!(sequence = frame.sequence, "an operation in the history's spool is not what was sealed, and is lost");
                    damage::set_aside(&segment.path);
                    Loss { first: frame.sequence, records: 1 }.add_to(&mut losses);
                }
            }
        }
        if reader.damaged() > 0 {
            damage::set_aside(&segment.path);
        }
        position.offset = reader.position();
        let is_full = entries.len() >= BATCH_ENTRIES || bytes >= BATCH_BYTES;
        let is_newest = index + 1 == segments.len();
        if is_full || is_newest {
            break;
        }
        // nothing readable is left in it
        finished += 1;
        position.offset = 0;
    }
    Ok(Batch { entries, position, finished, losses })
}

/// Notes that a batch has arrived, and deletes the segments whose entries have all arrived.
fn forget(shared: &Shared, position: ReadPosition, finished: usize) -> io::Result<()> {
    if let Some(passed) = position.passed {
        ARRIVED.note(&shared.dir, passed)?;
    }
    if finished > 0 {
        ARRIVED.synchronise(&shared.dir)?;
    }
    for _ in 0..finished {
        let Some(segment) = shared.state().segments.0.front().cloned() else { break };
        match fs::remove_file(&segment.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => drop(shared.state().segments.0.pop_front()),
        }
    }
    Ok(())
}
