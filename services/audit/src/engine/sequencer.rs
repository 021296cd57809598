//! The one task that decides about the order.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres, Sqlite, SqlitePool, Transaction};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tsujiban_core::error::chain;
use tsujiban_database::{Backend, Class, Database};
use tsujiban_history::Day;
use tsujiban_service::writing::Resource;

use super::failure::{self, Next};
use super::mark::Mark;
use super::prepare::{May, Prepared};
use super::recent::{Recent, SEGMENT};
use super::refused::Refused;
use super::rows::{Conn, Rows};
use super::sequencer_state::{Ids, REMEMBERED_US, SequencerState, Writers};
use super::{Added, EngineError, EngineParts, Request, Standing, Work, load};
use crate::error::why_unwritable;

/// How many entries one batch has at most, and how many bytes of bodies.
const BATCH: usize = 4096;
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// The pause after a failure before the next try, in which the database can recover and callers get their answers.
const REST: Duration = Duration::from_millis(50);

/// What other tasks decide about what may be written.
pub(super) struct Shared {
    pub standing: Arc<RwLock<Standing>>,
    pub refused: Refused,
    pub holding: Arc<AtomicI64>,
}

pub(super) struct Sequencer {
    parts: EngineParts,
    shared: Shared,
    known: SequencerState,
    /// Something failed: the cached state may never have been written, and is read again before the next batch.
    is_stale: bool,
    /// Batches to write before the requests in the queue: parts of a batch that failed.
    parts_of_failed: VecDeque<Vec<Request>>,
    target: Target,
}

/// The database to which it writes.
enum Target {
    Sqlite {
        database: Database,
        readers: SqlitePool,
        /// `None` if a new connection has to be taken from the pool.
        reader: Option<PoolConnection<Sqlite>>,
        mark: Mark,
        entries: u64,
    },
    Postgres(PgPool),
}

/// The result of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Landed {
    Written,
    /// Not written; so many parts of it are queued as the next batches.
    Failed(usize),
}

/// A batch that is being written.
struct InFlightBatch {
    requests: Vec<Request>,
    answers: Vec<Result<Vec<Added>, EngineError>>,
    ids: Ids,
    entries: u64,
    writing: JoinHandle<Result<(), sqlx::Error>>,
}

impl Shared {
    fn may(&self) -> May {
        May { standing: self.standing.read().unwrap_or_else(PoisonError::into_inner).clone(), refused: self.refused.all() }
    }
}

impl Sequencer {
    pub async fn open(parts: EngineParts, shared: Shared) -> Result<Self, EngineError> {
        let start = |error: &dyn std::fmt::Display| EngineError::Start(error.to_string().into());
        match (parts.database.reads(), parts.database.writes()) {
            (Backend::Sqlite(readers), Backend::Sqlite(_)) => {
                let folder = parts.folder.clone().ok_or_else(|| start(&"the folder of the database is not known"))?;
                let mark = Mark::open(&folder).map_err(|error| start(&error))?;
                let mut reader = readers.acquire().await?;
                let entries = load::newest_row(&mut Backend::Sqlite(&mut *reader)).await?.cast_unsigned();
                let marked = mark.read().map_err(|error| start(&error))?.unwrap_or_default();
                if marked > entries {
                    let lost = format!("{marked} entries were acknowledged and the database has {entries}: its tail was lost");
                    *shared.standing.write().unwrap_or_else(PoisonError::into_inner) = Standing::Forked(lost.into());
                }
                let memory = load_writer_state(&mut Backend::Sqlite(&mut *reader), parts.clock.now()).await?;
                let (database, readers) = (parts.database.clone(), readers.clone());
                let target = Target::Sqlite { database, readers, reader: Some(reader), mark, entries };
                Ok(Self::new(parts, shared, memory, target))
            }
            (_, Backend::Postgres(pool)) => {
                let target = Target::Postgres(pool.clone());
                Ok(Self::new(parts, shared, Writers::Shared, target))
            }
            (Backend::Postgres(_), Backend::Sqlite(_)) => Err(start(&"the database is of two kinds")),
        }
    }

    fn new(parts: EngineParts, shared: Shared, memory: Writers, target: Target) -> Self {
        let known = SequencerState::new(memory, Arc::clone(&shared.holding));
        Self { parts, shared, known, is_stale: false, parts_of_failed: VecDeque::new(), target }
    }

    /// Works until all senders of requests are dropped.
    pub async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut flight: Option<InFlightBatch> = None;
        while let Some(batch) = self.next_batch(&mut requests, &mut flight).await {
            flight = match self.target {
                Target::Sqlite { .. } => self.submit(batch, flight).await,
                Target::Postgres(_) => {
                    self.write_shared(batch).await;
                    None
                }
            };
        }
    }

    /// The next batch: parts of a batch that failed, or waiting requests. Meanwhile answers the requests whose batch gets written. `None`
    /// when all senders are dropped and every request is answered.
    async fn next_batch(&mut self, requests: &mut mpsc::Receiver<Request>, flight: &mut Option<InFlightBatch>) -> Option<Vec<Request>> {
        loop {
            if let Some(batch) = self.parts_of_failed.pop_front() {
                return Some(batch);
            }
            let Some(flying) = flight else {
                let first = requests.recv().await?;
                return Some(gather(first, requests));
            };
            let first = tokio::select! {
                biased;
                written = &mut flying.writing => Err(joined(written)),
                first = requests.recv() => Ok(first),
            };
            match first {
                Ok(Some(first)) => return Some(gather(first, requests)),
                Ok(None) => {
                    self.settle(flight.take()?).await;
                }
                Err(written) => {
                    self.complete(flight.take()?, written).await;
                }
            }
        }
    }

    /// SQLite: prepares a batch while the previous one is being written, and begins to write it when that is done.
    async fn submit(&mut self, batch: Vec<Request>, mut before: Option<InFlightBatch>) -> Option<InFlightBatch> {
        let now = self.parts.clock.now();
        if before.is_some() && !self.known.covers(&batch, Day::of(now)) {
            // the rows to read may be those that are being written
            if let Landed::Failed(parts) = self.settle(before.take()?).await {
                self.parts_of_failed.insert(parts, batch);
                return None;
            }
        }
        let prepared = self.prepare_alone(&batch, now, before.as_ref().map(|flight| &flight.ids)).await;
        if let Some(before) = before
            && let Landed::Failed(parts) = self.settle(before).await
        {
            // this batch was built on state that was never written; it is prepared again after that state's batch
            self.parts_of_failed.insert(parts, batch);
            return None;
        }
        match prepared {
            Ok(Prepared { rows, answers, ids }) => {
                let entries = u64::try_from(rows.entries.len()).unwrap_or_default();
                let Target::Sqlite { database, .. } = &self.target else { return None };
                let writing = tokio::spawn(write(database.clone(), rows));
                Some(InFlightBatch { requests: batch, answers, ids, entries, writing })
            }
            Err(error) => {
                self.fail(batch, &error).await;
                None
            }
        }
    }

    async fn prepare_alone(&mut self, batch: &[Request], now: Timestamp, before: Option<&Ids>) -> Result<Prepared, EngineError> {
        // other code has restored rows: their ids have to be read, too
        if self.is_stale || batch.iter().any(|request| matches!(request.work, Work::Forget)) {
            self.read_again(now).await?;
        }
        let Target::Sqlite { reader: Some(reader), .. } = &mut self.target else { return Err(EngineError::Stopped) };
        let mut conn: Conn<'_> = Backend::Sqlite(&mut **reader);
        let may = self.shared.may();
        let mut rows = Rows::default();
        let failed = self.known.learn(&self.parts, &mut conn, batch, now, &mut rows).await?;
        self.known.prepare(&self.parts.random, &mut conn, batch, (&failed, before), (now, &may), rows).await
    }

    /// Waits until a batch is written, and answers its requests.
    async fn settle(&mut self, mut flight: InFlightBatch) -> Landed {
        let written = joined((&mut flight.writing).await);
        self.complete(flight, written).await
    }

    async fn complete(&mut self, flight: InFlightBatch, written: Result<(), EngineError>) -> Landed {
        match written {
            Ok(()) => {
                if let Target::Sqlite { mark, entries, .. } = &mut self.target {
                    *entries += flight.entries;
                    if let Err(error) = mark.write(*entries) {
                        tracing::warn!(%error, "the mark of the newest entry cannot be written");
                    }
                }
                for (request, answer) in flight.requests.into_iter().zip(flight.answers) {
                    let _ = request.answer.send(answer); // whoever asked may be gone
                }
                Landed::Written
            }
            Err(error) => Landed::Failed(self.fail(flight.requests, &error).await),
        }
    }

    /// Splits a batch that was not written, or answers its requests with the error. Returns how many parts of it are queued.
    async fn fail(&mut self, mut batch: Vec<Request>, error: &EngineError) -> usize {
        self.is_stale = true;
        if let EngineError::Database(cause) = error
            && Class::of(cause).is_of_the_database()
        {
            self.parts.writing.fails(Resource::Database, why_unwritable(cause));
        }
        match failure::next(error, batch.len()) {
            Next::Split(first) => {
                tracing::warn!(error = chain(error), requests = batch.len(), "a batch was not written, and is tried in two parts");
                let second = batch.split_off(first);
                self.parts_of_failed.push_front(second);
                self.parts_of_failed.push_front(batch);
                2
            }
            Next::Refuse => {
                tracing::error!(error = chain(error), requests = batch.len(), "a batch was not written");
                for request in batch {
                    let _ = request.answer.send(Err(error.clone()));
                }
                tokio::time::sleep(REST).await;
                0
            }
        }
    }

    /// Drops the cached state, and reads again what an only writer needs from the beginning.
    async fn read_again(&mut self, now: Timestamp) -> Result<(), EngineError> {
        let memory = match &mut self.target {
            Target::Postgres(_) => Writers::Shared,
            Target::Sqlite { readers, reader, entries, .. } => {
                let (memory, rows) = match read_all(readers, reader, now).await {
                    Ok(read) => read,
                    // the connection may have failed: the second try uses another one
                    Err(_) => read_all(readers, reader, now).await?,
                };
                if rows < *entries {
                    let lost = format!("{entries} entries were acknowledged and the database has {rows}: it is an older one");
                    tracing::error!(lost, "the history is read-only");
                    *self.shared.standing.write().unwrap_or_else(PoisonError::into_inner) = Standing::Forked(lost.into());
                }
                // the database may have a batch whose commit was not confirmed
                *entries = rows.max(*entries);
                memory
            }
        };
        self.known = SequencerState::new(memory, Arc::clone(&self.shared.holding));
        self.is_stale = false;
        Ok(())
    }

    /// PostgreSQL: one transaction from the locking of the logs to the last row.
    async fn write_shared(&mut self, batch: Vec<Request>) {
        match self.try_shared(&batch).await {
            Ok(answers) => {
                for (request, answer) in batch.into_iter().zip(answers) {
                    let _ = request.answer.send(answer);
                }
            }
            Err(error) => {
                self.fail(batch, &error).await;
            }
        }
    }

    async fn try_shared(&mut self, batch: &[Request]) -> Result<Vec<Result<Vec<Added>, EngineError>>, EngineError> {
        if self.is_stale {
            self.read_again(self.parts.clock.now()).await?;
        }
        let Target::Postgres(pool) = &self.target else { return Err(EngineError::Stopped) };
        let mut tx: Transaction<'_, Postgres> = pool.begin().await?;
        let mut conn: Conn<'_> = Backend::Postgres(&mut *tx);
        // before `learn` locks the logs' rows: a writer that waits for the lock appends with an earlier time than the entry before. Days do
        // not go back, since each log keeps its newest one
        let now = self.parts.clock.now();
        let may = self.shared.may();
        let mut rows = Rows::default();
        let failed = self.known.learn(&self.parts, &mut conn, batch, now, &mut rows).await?;
        let Prepared { rows, answers, .. } =
            self.known.prepare(&self.parts.random, &mut conn, batch, (&failed, None), (now, &may), rows).await?;
        rows.write(&mut conn).await?;
        tx.commit().await?;
        Ok(answers)
    }
}

async fn write(database: Database, rows: Rows) -> Result<(), sqlx::Error> {
    let mut tx = database.begin().await?;
    rows.write(&mut tx.on()).await?;
    tx.commit().await
}

fn joined(written: Result<Result<(), sqlx::Error>, tokio::task::JoinError>) -> Result<(), EngineError> {
    written.map_err(|_| EngineError::Stopped)?.map_err(EngineError::from)
}

/// Reads what an only writer needs, and how many entries there are. Uses the held connection, and closes it when that fails.
async fn read_all(
    readers: &SqlitePool,
    reader: &mut Option<PoolConnection<Sqlite>>,
    now: Timestamp,
) -> Result<(Writers, u64), EngineError> {
    let mut held = match reader.take() {
        Some(held) => held,
        None => readers.acquire().await?,
    };
    let mut conn: Conn<'_> = Backend::Sqlite(&mut *held);
    let read = async { Ok((load_writer_state(&mut conn, now).await?, load::newest_row(&mut conn).await?.cast_unsigned())) }.await;
    match &read {
        Ok(_) => *reader = Some(held),
        Err(_) => held.close_on_drop(),
    }
    read
}

/// Reads what an only writer needs from the beginning.
async fn load_writer_state(conn: &mut Conn<'_>, now: Timestamp) -> Result<Writers, EngineError> {
    let next_number = load::newest_number(conn).await? + 1;
    let segments = load::segments(conn).await?;
    let oldest = now.as_microsecond() - REMEMBERED_US;
    // a segment is needed when the next one began in the past 48 hours
    let skip = segments.iter().skip(1).take_while(|(_, began)| *began < oldest).count();
    let mut recent = Recent::default();
    let (mut segment, mut began_us, mut in_segment) = (-1, now.as_microsecond(), SEGMENT);
    for (number, began) in segments.into_iter().skip(skip) {
        recent.begin(number, began, i64::MIN);
        let ids = load::ids_of(conn, number).await?;
        (segment, began_us, in_segment) = (number, began, u64::try_from(ids.len()).unwrap_or(SEGMENT).min(SEGMENT));
        for (log, id) in ids {
            if let Ok(id) = id.try_into() {
                recent.note(log, &id);
            }
        }
    }
    let intents = load::open_intents(conn).await?;
    let open: HashSet<_> = intents.into_iter().filter_map(|(log, operation)| Some((log, operation.try_into().ok()?))).collect();
    Ok(Writers::Single { recent, segment, began_us, in_segment, next_number, open })
}

/// All waiting requests, within the limits of a batch.
fn gather(first: Request, waiting: &mut mpsc::Receiver<Request>) -> Vec<Request> {
    let (mut entries, mut bytes) = weight(&first);
    let mut batch = vec![first];
    while entries < BATCH
        && bytes < BATCH_BYTES
        && let Ok(next) = waiting.try_recv()
    {
        let (more, heavier) = weight(&next);
        (entries, bytes) = (entries + more, bytes + heavier);
        batch.push(next);
    }
    batch
}

fn weight(request: &Request) -> (usize, usize) {
    match &request.work {
        Work::Append(additions) => (additions.len(), additions.iter().map(|addition| addition.body.len()).sum()),
        Work::Restore { entries, .. } => (entries.len(), 0),
        Work::Statement(_) | Work::Make { .. } | Work::Adopt(_) | Work::Forget => (1, 0),
    }
}
