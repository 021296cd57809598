//! The engine: takes entries of many callers at the same time and makes one history of them.
//!
//! One task, the sequencer, decides about the order. It takes whatever waits, seals bodies and grows trees in memory, and writes all of it in
//! one transaction; nobody is answered before that is durable. With SQLite, whose only writer it is, it prepares the next batch meanwhile.
//! With PostgreSQL there may be several: each locks the logs of its batch first, and looks whether they are as it remembers them.

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

/// How many calls wait at most.
const QUEUE: usize = 16_384;
/// How many KiB of bodies wait at most; what comes on top is refused.
const QUEUE_KIB: usize = 64 * 1024;

/// What a body is about, as far as the engine has to know.
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
    /// Makes a repeated entry one.
    pub id: [u8; 16],
    /// The operation's id, the same for its intent and its outcome.
    pub operation: [u8; 16],
    pub phase: Phase,
    /// When it happened.
    pub time: Timestamp,
    pub body: Vec<u8>,
}

impl Addition {
    /// What this service observed by itself. Id and time are the operation's own: the scrub holds the columns to what the body says.
    pub fn observed(owner: Owner, operation: &Operation) -> Result<Self, InvalidOperation> {
        let (id, time) = (*operation.id.as_bytes(), operation.time.timestamp());
        Ok(Self { owner, id, operation: id, phase: Phase::Observed, time, body: operation.encode()? })
    }

    /// The id of the entry that ends what this intent begins, as callers give it.
    fn ended_by(&self) -> Option<[u8; 16]> {
        (self.phase == Phase::Intent).then(|| entry_id(&self.operation, wire::Phase::Outcome))
    }
}

/// Where an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Added {
    pub sequence: u64,
    /// Whether it was there already.
    pub is_duplicate: bool,
}

/// Whether the history may go on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Standing {
    #[default]
    Sound,
    /// It is older than, or another one than, what lies in the bucket. Says what was found.
    Forked(Arc<str>),
}

/// What the engine is made of.
#[derive(Clone)]
pub struct EngineParts {
    pub database: Database,
    pub keyring: Arc<Keyring>,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    /// SQLite: the folder of the database, where the mark of the newest entry lies, too.
    pub folder: Option<PathBuf>,
    /// Told when the database cannot be written.
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
    /// Until when entries make no log for a group, in microseconds since 1970.
    holding: Arc<AtomicI64>,
}

/// What somebody wants to have written, and where the answer goes.
struct Request {
    work: Work,
    answer: oneshot::Sender<Result<Vec<Added>, EngineError>>,
    _room: Option<OwnedSemaphorePermit>,
}

enum Work {
    Append(Vec<Addition>),
    Statement(Statement),
    /// Entries that were here before, and were lost.
    Restore {
        log: i64,
        entries: Vec<Restored>,
        hashes: Option<RestoredHashes>,
    },
    /// A log for an incarnation of a group that has none.
    Make {
        owner: Owner,
        incarnation: String,
    },
    /// A log that was here before, and was lost.
    Adopt(Adopted),
    /// What is remembered of logs is read again: somebody else changed it.
    Forget,
}

/// A log that comes back under its id. Whose it was is known of the platform's own log only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adopted {
    pub id: LogId,
    pub is_platform: bool,
}

/// An entry that comes back as it was.
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

/// The hashes above entries that do not lead to them, since some are lost or wrong.
#[derive(Debug, Clone)]
pub struct RestoredHashes {
    /// The tree up to the last of the entries.
    pub edge: Range,
    /// What tiles store.
    pub nodes: Vec<(Node, Hash)>,
}

/// A leaf that holds no customer data: a gap or a retention.
pub struct Statement {
    /// The number of the log.
    pub log: i64,
    /// The leaf for its place in the log.
    pub leaf: Box<dyn Fn(u64) -> Result<Leaf, InvalidLeaf> + Send + Sync>,
    /// For a retention: the day that goes with it.
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

    /// Adds entries, all or none, and answers when they are durable: in the order in which they were given.
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

    /// Brings entries of one log back behind those that are there, also while the history is read-only. Whoever calls has proven that they
    /// were there. Answers how many were missing.
    pub async fn restore(&self, log: i64, entries: Vec<Restored>) -> Result<usize, EngineError> {
        Ok(self.send(Work::Restore { log, entries, hashes: None }, None).await?.len())
    }

    /// The same for entries of which the tree does not follow: it goes on from the hashes that are given, unless it has come further.
    pub async fn restore_below(&self, log: i64, entries: Vec<Restored>, hashes: RestoredHashes) -> Result<usize, EngineError> {
        Ok(self.send(Work::Restore { log, entries, hashes: Some(hashes) }, None).await?.len())
    }

    /// Makes a log for an incarnation of a group whose newest log is of one that was erased, or that has none. Answers the log's number in
    /// the database: that of the newest log, if its group was not erased.
    pub async fn make_log(&self, owner: Owner, incarnation: String) -> Result<i64, EngineError> {
        self.sound()?;
        let added = self.send(Work::Make { owner, incarnation }, None).await?;
        added.first().map(|made| made.sequence.cast_signed()).ok_or(EngineError::Stopped)
    }

    /// Makes a log under the id that it had. Answers its number in the database, also when it is there already.
    pub async fn adopt(&self, log: Adopted) -> Result<i64, EngineError> {
        let added = self.send(Work::Adopt(log), None).await?;
        added.first().map(|made| made.sequence.cast_signed()).ok_or(EngineError::Stopped)
    }

    /// Heads or rows were mended in the database: what is remembered of logs and of ids is read again.
    pub async fn forget(&self) -> Result<(), EngineError> {
        self.send(Work::Forget, None).await.map(drop)
    }

    /// Entries of a group without a log are refused until then: its log may have come back, and nobody has said yet that it is the group's.
    pub fn hold_new_logs(&self, until: Timestamp) {
        self.holding.store(until.as_microsecond(), Ordering::Relaxed);
    }

    /// Whether entries that were acknowledged are not in the database, as the mark beside it says.
    pub fn lost_tail(&self) -> bool {
        self.lost_tail.load(Ordering::Relaxed)
    }

    /// Staff have declared that they are lost.
    pub fn tail_is_given_up(&self) {
        self.lost_tail.store(false, Ordering::Relaxed);
    }

    pub fn standing(&self) -> Standing {
        self.standing.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_standing(&self, standing: Standing) {
        *self.standing.write().unwrap_or_else(PoisonError::into_inner) = standing;
    }

    /// The logs to which nothing is added, though the history is sound.
    pub fn refused(&self) -> &Refused {
        &self.refused
    }

    /// Nothing, or the reason why the history is read-only.
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
