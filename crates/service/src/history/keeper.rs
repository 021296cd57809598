//! Keeps entries that the history has acknowledged until a root list covers them. Asks the history about them, and adds again those that it
//! no longer knows.
//!
//! The decisions are in [`kept`](super::kept). A failure to keep entries stops nothing: such entries are counted, and left out.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use prometheus::{IntCounter, IntGauge, Registry};
use prost::Message;
use tokio::task::spawn_blocking;
use tsujiban_proto::audit::v1::NewEntry;
use tsujiban_proto::error::{Kind, ServiceError};

use super::kept::{Entry, Kept, Order, Question, Verdict};
use super::ledger::{Ledger, concerns_one_log};

/// At most this many entries and bytes are added again at once.
const BATCH_ENTRIES: usize = 256;
const BATCH_BYTES: usize = 1024 * 1024;
/// What an entry takes beside its text.
const OVERHEAD: u64 = 128;

/// The storage of kept entries.
pub trait Store: Send + Sync + 'static {
    /// Appends entries, all or none.
    fn put(&self, entries: &[(Order, Timestamp, NewEntry)]) -> io::Result<()>;

    /// Makes all stored entries survive a crash of the machine.
    fn synchronise(&self) -> io::Result<()>;

    /// An entry as it was stored; `None` when it cannot be read any more.
    fn get(&self, order: Order) -> Option<NewEntry>;

    /// Frees the room of these entries. No entry before `oldest` is needed any more.
    fn forget(&self, orders: &[Order], oldest: Order);

    /// The entry up to which all have to be dropped, when forgetting entries does not free enough room.
    fn excess(&self) -> Option<Order> {
        None
    }
}

/// Keeps entries. Clones share it.
#[derive(Clone)]
pub struct Keeper(Arc<Shared>);

struct Shared {
    kept: Mutex<Kept>,
    store: Box<dyn Store>,
    /// How many bytes the entries may take.
    bound: u64,
    metrics: Metrics,
}

#[derive(Debug)]
struct Metrics {
    entries: IntGauge,
    dropped: IntCounter,
    resent: IntCounter,
    possibly_lost: IntCounter,
}

impl Keeper {
    /// Keeps up to so many bytes in a store that holds these entries already.
    pub fn new(store: Box<dyn Store>, kept: Kept, bound: u64, registry: &Registry) -> Result<Self, prometheus::Error> {
        let keeper = Self(Arc::new(Shared { kept: Mutex::new(kept), store, bound, metrics: Metrics::register(registry)? }));
        keeper.0.show();
        Ok(keeper)
    }

    /// Keeps up to so many bytes in memory, for as long as the process lives.
    pub fn in_memory(bound: u64, registry: &Registry) -> Result<Self, prometheus::Error> {
        Self::new(Box::new(Memory::default()), Kept::default(), bound, registry)
    }

    /// How many entries are kept.
    pub fn len(&self) -> usize {
        self.0.kept().len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.kept().is_empty()
    }

    /// Keeps entries that were acknowledged now, after all earlier ones. Returns when they survive the end of this process.
    pub async fn keep(&self, entries: Vec<NewEntry>, now: Timestamp) {
        self.blocking(move |shared| shared.keep(entries, now)).await;
    }

    /// Returns when all kept entries survive a crash of the machine.
    pub async fn synchronise(&self) {
        self.blocking(|shared| {
            if let Err(error) = shared.store.synchronise() {
                tracing::warn!(%error, "what is kept until a root list covers it cannot be synchronised");
            }
        })
        .await;
    }

    /// Asks the history about all entries that are kept now, and adds those again that it does not know, in the order in which they were
    /// acknowledged.
    pub async fn ask(&self, ledger: &dyn Ledger, now: Timestamp) -> Result<(), ServiceError> {
        let end = self.0.kept().next();
        let mut after = None;
        loop {
            let question = self.0.kept().question(after, end);
            let Some(question) = question else { return Ok(()) };
            after = Some(question.last);
            let verdict = self.ask_about(ledger, &question, now).await?;
            self.add_again(ledger, verdict.lost).await?;
        }
    }

    async fn ask_about(&self, ledger: &dyn Ledger, question: &Question, now: Timestamp) -> Result<Verdict, ServiceError> {
        let answer = ledger.covered(question.request.clone()).await?;
        let no_answer = |error: super::kept::Mismatch| ServiceError::new(Kind::Internal, "BAD_ANSWER", error.to_string());
        let verdict = self.0.kept().answered(question, &answer, now).map_err(no_answer)?;
        if verdict.possibly_lost > 0 {
            self.0.metrics.possibly_lost.inc_by(verdict.possibly_lost);
            tracing::error!(entries = verdict.possibly_lost, "the history does not know entries that are too old to be added again");
        }
        let done = verdict.done.clone();
        self.blocking(move |shared| shared.release(&done)).await;
        Ok(verdict)
    }

    async fn add_again(&self, ledger: &dyn Ledger, lost: Vec<Order>) -> Result<(), ServiceError> {
        if lost.is_empty() {
            return Ok(());
        }
        tracing::warn!(entries = lost.len(), "the history does not know entries that it has acknowledged; they are added again");
        let mut lost = lost.into_iter().peekable();
        while lost.peek().is_some() {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            while bytes < BATCH_BYTES
                && batch.len() < BATCH_ENTRIES
                && let Some(order) = lost.next()
            {
                match self.blocking(move |shared| shared.store.get(order)).await.flatten() {
                    Some(entry) => {
                        bytes += entry.encoded_len();
                        batch.push((order, entry));
                    }
                    None => self.give_up(order, "it cannot be read any more").await,
                }
            }
            self.send(ledger, batch).await?;
        }
        Ok(())
    }

    /// Adds entries again. Neither an entry that the history rejects nor a log that accepts none holds up the others; the entries of such a
    /// log are kept, and asked about again.
    async fn send(&self, ledger: &dyn Ledger, batch: Vec<(Order, NewEntry)>) -> Result<(), ServiceError> {
        let count = u64::try_from(batch.len()).unwrap_or_default();
        match ledger.append(batch.iter().map(|(_, entry)| entry.clone()).collect()).await {
            Ok(()) => {
                self.0.metrics.resent.inc_by(count);
                return Ok(());
            }
            Err(error) if error.kind != Kind::Invalid && !concerns_one_log(&error) => return Err(error),
            Err(_) => {}
        }
        let mut refused = BTreeSet::new();
        for (order, entry) in batch {
            if refused.contains(&entry.group) {
                continue;
            }
            match ledger.append(vec![entry.clone()]).await {
                Ok(()) => self.0.metrics.resent.inc(),
                Err(error) if error.kind == Kind::Invalid => self.give_up(order, &error.message).await,
                Err(error) if concerns_one_log(&error) => {
                    tracing::warn!(group = entry.group, error = error.message, "a group's entries cannot be added again yet");
                    refused.insert(entry.group);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn give_up(&self, order: Order, why: &str) {
        tracing::error!(why, "an entry that the history does not know any more cannot be added again");
        self.0.metrics.possibly_lost.inc();
        self.blocking(move |shared| {
            shared.kept().forget(order);
            shared.release(&[order]);
        })
        .await;
    }

    /// Runs work that waits for the disk. `None` when the process ends.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Shared) -> T + Send + 'static) -> Option<T> {
        let shared = Arc::clone(&self.0);
        spawn_blocking(move || work(&shared)).await.ok()
    }
}

impl Shared {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, entries: Vec<NewEntry>, now: Timestamp) {
        // locked until the entries are stored, so that they are stored in the order of their numbers
        let mut kept = self.kept();
        let number = |entry: NewEntry| {
            let bytes = u64::try_from(entry.encoded_len()).unwrap_or(u64::MAX).saturating_add(OVERHEAD);
            let order = kept.acknowledged(Entry { group: entry.group.clone(), id: entry.id.clone(), acknowledged: now, bytes });
            (order, now, entry)
        };
        let entries: Vec<_> = entries.into_iter().map(number).collect();
        let mut dropped = kept.drop_beyond(self.bound);
        if let Err(error) = self.store.put(&entries) {
            tracing::error!(%error, entries = entries.len(), "acknowledged entries cannot be kept until a root list covers them");
            for (order, ..) in &entries {
                kept.forget(*order);
            }
            dropped.retain(|order| entries.iter().all(|(new, ..)| new != order));
            self.count_dropped(entries.len());
        }
        if let Some(last) = self.store.excess() {
            dropped.extend(kept.drop_through(last));
        }
        self.count_dropped(dropped.len());
        self.store.forget(&dropped, kept.oldest());
        drop(kept);
        self.show();
    }

    fn count_dropped(&self, entries: usize) {
        self.metrics.dropped.inc_by(u64::try_from(entries).unwrap_or_default());
    }

    fn release(&self, done: &[Order]) {
        let oldest = self.kept().oldest();
        self.store.forget(done, oldest);
        self.show();
    }

    fn show(&self) {
        self.metrics.entries.set(i64::try_from(self.kept().len()).unwrap_or(i64::MAX));
    }
}

impl Metrics {
    fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let entries =
            IntGauge::new("tsujiban_history_kept_entries", "Entries that the history has acknowledged and no root list covers yet.")?;
        registry.register(Box::new(entries.clone()))?;
        Ok(Self {
            entries,
            dropped: counter(
                "tsujiban_history_kept_dropped_total",
                "Acknowledged entries that were not kept until a root list covered them, since there was no room.",
            )?,
            resent: counter(
                "tsujiban_history_resent_total",
                "Acknowledged entries that the history did not know any more, and has again.",
            )?,
            possibly_lost: counter(
                "tsujiban_history_possibly_lost_total",
                "Acknowledged entries that the history did not know any more, and that could not be added again.",
            )?,
        })
    }
}

/// Entries in memory.
#[derive(Debug, Default)]
struct Memory(Mutex<BTreeMap<Order, NewEntry>>);

impl Memory {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<Order, NewEntry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Memory {
    fn put(&self, entries: &[(Order, Timestamp, NewEntry)]) -> io::Result<()> {
        self.entries().extend(entries.iter().map(|(order, _, entry)| (*order, entry.clone())));
        Ok(())
    }

    fn synchronise(&self) -> io::Result<()> {
        Ok(())
    }

    fn get(&self, order: Order) -> Option<NewEntry> {
        self.entries().get(&order).cloned()
    }

    fn forget(&self, orders: &[Order], _: Order) {
        let mut entries = self.entries();
        for order in orders {
            entries.remove(order);
        }
    }
}
