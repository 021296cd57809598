//! The engine: accepts entries of many callers at the same time and appends them to the logs of one history.
//!
//! One task, the sequencer, decides about the order. It takes all waiting requests, seals bodies and grows trees in memory, and writes all
//! of it in one transaction; no caller gets an answer before that is durable. With SQLite, whose only writer it is, it prepares the next
//! batch meanwhile. With PostgreSQL there may be several sequencers: each first locks the logs of its batch and updates its cache.

pub mod cache;
mod error;
mod failure;
mod load;
mod locate;
mod mark;
mod prepare;
mod recent;
mod refused;
mod rows;
mod sequencer;
mod sequencer_state;
mod statement;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tsujiban_core::clock::Clock;
use tsujiban_database::Database;
use tsujiban_history::leaf::InvalidLeaf;
use tsujiban_history::merkle::{Hash, Node, Range};
use tsujiban_history::operation::InvalidOperation;
use tsujiban_history::{Leaf, LogId, Operation};
use tsujiban_proto::audit::v1 as wire;
use tsujiban_sealing::{Keyring, Random};
use tsujiban_service::history::entry_id;
use tsujiban_service::writing::WriteState;

use crate::owner::Owner;

pub use self::error::{EngineError, MAX_BODY};
pub(crate) use self::locate::locate;
pub use self::refused::{Refused, RefusedLogs};
pub use self::rows::{Conn, GoneDay, KeyRow};
pub use self::sequencer_state::edge;

/// The most calls that may wait.
const QUEUE: usize = 16_384;
/// The most KiB of bodies that may wait; calls beyond that are refused.
const QUEUE_KIB: usize = 64 * 1024;

/// The phase of a body's operation, which the engine needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Intent,
    Outcome,
    Observed,
}

/// An entry that is to be added.
#[derive(Debug, Clone)]
pub struct Addition {
    pub owner: Owner,
    /// Identifies the entry: an addition with the same id is a duplicate.
    pub id: [u8; 16],
    /// The operation's id, the same for its intent and its outcome.
    pub operation: [u8; 16],
    pub phase: Phase,
    /// When it happened.
    pub time: Timestamp,
    pub body: Vec<u8>,
}

impl Addition {
    /// An observation of this service itself. Id and time are the operation's own, since the scrub compares the columns with the body.
    pub fn observed(owner: Owner, operation: &Operation) -> Result<Self, InvalidOperation> {
        let (id, time) = (*operation.id.as_bytes(), operation.time.timestamp());
        Ok(Self { owner, id, operation: id, phase: Phase::Observed, time, body: operation.encode()? })
    }

    /// The id of the outcome of this intent, as callers compute it.
    fn ended_by(&self) -> Option<[u8; 16]> {
        (self.phase == Phase::Intent).then(|| entry_id(&self.operation, wire::Phase::Outcome))
    }
}

/// Where an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Added {
    pub sequence: u64,
    /// Whether the log had it already.
    pub is_duplicate: bool,
}

/// Whether the history may be written to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Standing {
    #[default]
    Sound,
    /// It is older than the history in the bucket, or differs from it. Describes what was found.
    Forked(Arc<str>),
}

/// The parts of the engine.
#[derive(Clone)]
pub struct EngineParts {
    pub database: Database,
    pub keyring: Arc<Keyring>,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    /// SQLite: the folder of the database and of the mark file.
    pub folder: Option<PathBuf>,
    /// Receives failures to write to the database.
    pub writing: WriteState,
}

/// The engine. Clones are the same one.
#[derive(Clone)]
pub struct Engine {
    requests: mpsc::Sender<Request>,
    room: Arc<Semaphore>,
    standing: Arc<RwLock<Standing>>,
    refused: Refused,
    lost_tail: Arc<AtomicBool>,
    /// Until when entries of a group without a log are refused, in microseconds since 1970.
    holding: Arc<AtomicI64>,
}

/// The work that a caller requests, and the channel for the answer.
struct Request {
    work: Work,
    answer: oneshot::Sender<Result<Vec<Added>, EngineError>>,
    _room: Option<OwnedSemaphorePermit>,
}

enum Work {
    Append(Vec<Addition>),
    Statement(Statement),
    /// Restores entries that the log had and that were lost.
    Restore {
        log: i64,
        entries: Vec<Restored>,
        hashes: Option<RestoredHashes>,
    },
    /// Makes a log for an incarnation of a group that has none.
    Make {
        owner: Owner,
        incarnation: String,
    },
    /// Restores a log that existed and was lost.
    Adopt(Adopted),
    /// Invalidates the cached logs, since other code changed them in the database.
    Forget,
}

/// A log that is restored under its id. Its group is known only if it is the platform's own log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adopted {
    pub id: LogId,
    pub is_platform: bool,
}

/// An entry that is restored as it was.
#[derive(Debug, Clone)]
pub struct Restored {
    pub sequence: u64,
    pub day: i64,
    pub time_us: i64,
    pub appended_us: i64,
    pub id: Option<[u8; 16]>,
    pub leaf: Vec<u8>,
    pub sealed: Option<Vec<u8>>,
}

/// The hashes above entries from which they cannot be computed, since some are lost or wrong.
#[derive(Debug, Clone)]
pub struct RestoredHashes {
    /// The edge of the tree after the last of the entries.
    pub edge: Range,
    /// The hashes that tiles store.
    pub nodes: Vec<(Node, Hash)>,
}

/// A leaf without customer data: a gap or a retention.
pub struct Statement {
    /// The number of the log.
    pub log: i64,
    /// Makes the leaf for its sequence number.
    pub leaf: Box<dyn Fn(u64) -> Result<Leaf, InvalidLeaf> + Send + Sync>,
    /// For a retention: the day that is destroyed with it.
    pub gone: Option<GoneDay>,
    /// Whether it may be written while the history is read-only.
    pub lawful: bool,
}

impl Engine {
    /// Starts the engine. It runs until the last clone is dropped.
    pub async fn start(parts: EngineParts) -> Result<Self, EngineError> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let standing = Arc::new(RwLock::new(Standing::Sound));
        let holding = Arc::new(AtomicI64::new(i64::MIN));
        let refused = Refused::default();
        let shared = sequencer::Shared { standing: Arc::clone(&standing), refused: refused.clone(), holding: Arc::clone(&holding) };
        let sequencer = sequencer::Sequencer::open(parts, shared).await?;
        tokio::spawn(sequencer.run(receiver));
        let lost_tail = *standing.read().unwrap_or_else(PoisonError::into_inner) != Standing::Sound;
        let room = Arc::new(Semaphore::new(QUEUE_KIB));
        Ok(Self { requests: sender, room, standing, refused, lost_tail: Arc::new(AtomicBool::new(lost_tail)), holding })
    }

    /// Adds entries, all or none. Returns when they are durable; the results are in the order of `additions`.
    pub async fn append(&self, additions: Vec<Addition>) -> Result<Vec<Added>, EngineError> {
        if let Some(long) = additions.iter().map(|addition| addition.body.len()).find(|length| *length > MAX_BODY) {
            return Err(EngineError::TooLarge(long));
        }
        self.sound()?;
        let bytes: usize = additions.iter().map(|addition| addition.body.len() + 256).sum();
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).try_acquire_many_owned(kib).map_err(|_| EngineError::Overloaded)?;
        self.send(Work::Append(additions), Some(room)).await
    }

    /// Adds a gap or a retention.
    pub async fn state(&self, statement: Statement) -> Result<Added, EngineError> {
        let added = self.send(Work::Statement(statement), None).await?;
        added.first().copied().ok_or(EngineError::Stopped)
    }

    /// Appends lost entries to a log again, also while the history is read-only. The caller has proven that the log had them. Returns how
    /// many were missing.
    pub async fn restore(&self, log: i64, entries: Vec<Restored>) -> Result<usize, EngineError> {
        Ok(self.send(Work::Restore { log, entries, hashes: None }, None).await?.len())
    }

    /// The same for entries from which the tree cannot be computed: the tree continues from `hashes`, unless it is already larger.
    pub async fn restore_below(&self, log: i64, entries: Vec<Restored>, hashes: RestoredHashes) -> Result<usize, EngineError> {
        Ok(self.send(Work::Restore { log, entries, hashes: Some(hashes) }, None).await?.len())
    }

    /// Makes a log for an incarnation of a group that has no log, or only logs of erased incarnations. Returns the log's number in the
    /// database: the number of the existing log, if the group has one that was not erased.
    pub async fn make_log(&self, owner: Owner, incarnation: String) -> Result<i64, EngineError> {
        self.sound()?;
        let added = self.send(Work::Make { owner, incarnation }, None).await?;
        added.first().map(|made| made.sequence.cast_signed()).ok_or(EngineError::Stopped)
    }

    /// Makes a lost log again under its id. Returns its number in the database, also when the log exists already.
    pub async fn adopt(&self, log: Adopted) -> Result<i64, EngineError> {
        let added = self.send(Work::Adopt(log), None).await?;
        added.first().map(|made| made.sequence.cast_signed()).ok_or(EngineError::Stopped)
    }

    /// Invalidates the cached logs and ids, after heads or rows were mended in the database.
    pub async fn forget(&self) -> Result<(), EngineError> {
        self.send(Work::Forget, None).await.map(drop)
    }

    /// Refuses entries of groups without a log until then: a group's log may be restored but not yet claimed for the group.
    pub fn hold_new_logs(&self, until: Timestamp) {
        self.holding.store(until.as_microsecond(), Ordering::Relaxed);
    }

    /// Whether the database lacks acknowledged entries, according to the mark file.
    pub fn lost_tail(&self) -> bool {
        self.lost_tail.load(Ordering::Relaxed)
    }

    /// Resets `lost_tail`: the history was checked as a whole, or staff have declared the loss.
    pub fn tail_is_given_up(&self) {
        self.lost_tail.store(false, Ordering::Relaxed);
    }

    pub fn standing(&self) -> Standing {
        self.standing.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_standing(&self, standing: Standing) {
        *self.standing.write().unwrap_or_else(PoisonError::into_inner) = standing;
    }

    /// The logs that accept no entries although the history is sound.
    pub fn refused(&self) -> &Refused {
        &self.refused
    }

    /// Fails with the reason if the history is read-only.
    pub fn sound(&self) -> Result<(), EngineError> {
        match self.standing() {
            Standing::Sound => Ok(()),
            Standing::Forked(why) => Err(EngineError::ReadOnly(why)),
        }
    }

    async fn send(&self, work: Work, room: Option<OwnedSemaphorePermit>) -> Result<Vec<Added>, EngineError> {
        let (answer, answered) = oneshot::channel();
        self.requests.try_send(Request { work, answer, _room: room }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => EngineError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => EngineError::Stopped,
        })?;
        answered.await.map_err(|_| EngineError::Stopped)?
    }
}
