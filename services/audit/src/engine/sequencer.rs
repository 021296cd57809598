//! The one task that decides about the order.

use std::collections::HashSet;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres, Sqlite, SqlitePool, Transaction};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tsujiban_core::error::chain;
use tsujiban_database::Backend;
use tsujiban_history::Day;

use super::known::{Ids, Known, Memory, REMEMBERED_US};
use super::mark::Mark;
use super::prepare::Prepared;
use super::recent::{Recent, SEGMENT};
use super::rows::{Conn, Rows};
use super::{Added, EngineError, EngineParts, Request, Standing, Work, load};

/// How many entries one batch has at most, and how many bytes of bodies.
const BATCH: usize = 4096;
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// After a failure the database gets a moment, and callers their answer, before the next try.
const REST: Duration = Duration::from_millis(50);

pub(super) struct Sequencer {
    parts: EngineParts,
    standing: Arc<RwLock<Standing>>,
    holding: Arc<AtomicI64>,
    known: Known,
    place: Place,
}

/// Where it writes.
enum Place {
    Sqlite { writer: SqlitePool, reader: PoolConnection<Sqlite>, mark: Mark, entries: u64 },
    Postgres(PgPool),
}

/// A batch that is being written.
struct Flight {
    requests: Vec<Request>,
    answers: Vec<Result<Vec<Added>, EngineError>>,
    ids: Ids,
    entries: u64,
    writing: JoinHandle<Result<(), sqlx::Error>>,
}

impl Sequencer {
    pub async fn open(parts: EngineParts, standing: Arc<RwLock<Standing>>, holding: Arc<AtomicI64>) -> Result<Self, EngineError> {
        let start = |error: &dyn std::fmt::Display| EngineError::Start(error.to_string().into());
        match (parts.database.reads(), parts.database.writes()) {
            (Backend::Sqlite(readers), Backend::Sqlite(writer)) => {
                let folder = parts.folder.clone().ok_or_else(|| start(&"the folder of the database is not known"))?;
                let mark = Mark::open(&folder).map_err(|error| start(&error))?;
                for pragma in ["PRAGMA cache_size = -65536", "PRAGMA wal_autocheckpoint = 8192"] {
                    sqlx::query(pragma).execute(writer).await?;
                }
                let (writer, mut reader) = (writer.clone(), readers.acquire().await?);
                let entries = load::newest_row(&mut Backend::Sqlite(&mut *reader)).await?.cast_unsigned();
                let marked = mark.read().map_err(|error| start(&error))?.unwrap_or_default();
                if marked > entries {
                    let lost = format!("{marked} entries were acknowledged and the database has {entries}: its tail was lost");
                    *standing.write().unwrap_or_else(PoisonError::into_inner) = Standing::Forked(lost.into());
                }
                let memory = recollect(&mut Backend::Sqlite(&mut *reader), parts.clock.now()).await?;
                let place = Place::Sqlite { writer, reader, mark, entries };
                Ok(Self { parts, standing, known: Known::new(memory, Arc::clone(&holding)), holding, place })
            }
            (_, Backend::Postgres(pool)) => {
                let place = Place::Postgres(pool.clone());
                Ok(Self { parts, standing, known: Known::new(Memory::Shared, Arc::clone(&holding)), holding, place })
            }
            (Backend::Postgres(_), Backend::Sqlite(_)) => Err(start(&"the database is of two kinds")),
        }
    }

    /// Works until nobody can ask any more.
    pub async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut flight: Option<Flight> = None;
        loop {
            let first = match &mut flight {
                None => requests.recv().await,
                Some(flying) => tokio::select! {
                    biased;
                    written = &mut flying.writing => {
                        let written = joined(written);
                        if let Some(flight) = flight.take() {
                            self.land(flight, written).await;
                        }
                        continue;
                    }
                    first = requests.recv() => first,
                },
            };
            let Some(first) = first else {
                if let Some(flight) = flight.take() {
                    self.settle(flight).await;
                }
                return;
            };
            let batch = gather(first, &mut requests);
            flight = match self.place {
                Place::Sqlite { .. } => self.fly(batch, flight).await,
                Place::Postgres(_) => {
                    self.write_shared(batch).await;
                    None
                }
            };
        }
    }

    /// SQLite: prepares a batch while the one before is being written, and begins to write it when that is done.
    async fn fly(&mut self, batch: Vec<Request>, mut before: Option<Flight>) -> Option<Flight> {
        let now = self.parts.clock.now();
        if before.is_some() && !self.known.suffices(&batch, Day::of(now)) {
            // what has to be read may be what is being written
            self.settle(before.take()?).await;
        }
        let prepared = self.prepare_alone(&batch, now, before.as_ref().map(|flight| &flight.ids)).await;
        let mut prepared = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                if let Some(before) = before {
                    self.settle(before).await;
                }
                refuse(batch, &error);
                self.recover().await;
                return None;
            }
        };
        if let Some(before) = before
            && !self.settle(before).await
        {
            // it was built on what was never written
            prepared = match self.prepare_alone(&batch, now, None).await {
                Ok(prepared) => prepared,
                Err(error) => {
                    refuse(batch, &error);
                    self.recover().await;
                    return None;
                }
            };
        }
        let Prepared { rows, answers, ids } = prepared;
        let entries = u64::try_from(rows.entries.len()).unwrap_or_default();
        let Place::Sqlite { writer, .. } = &self.place else { return None };
        let writing = tokio::spawn(write(writer.clone(), rows));
        Some(Flight { requests: batch, answers, ids, entries, writing })
    }

    async fn prepare_alone(&mut self, batch: &[Request], now: Timestamp, before: Option<&Ids>) -> Result<Prepared, EngineError> {
        let Place::Sqlite { reader, .. } = &mut self.place else { return Err(EngineError::Stopped) };
        let mut conn: Conn<'_> = Backend::Sqlite(&mut **reader);
        let standing = self.standing.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut rows = Rows::default();
        let failed = self.known.learn(&self.parts, &mut conn, batch, now, &mut rows).await?;
        self.known.prepare(&self.parts.random, &mut conn, batch, (&failed, before), (now, &standing), rows).await
    }

    /// Waits for a batch, and answers. `false`: it was not written, and everything that was built on it is forgotten.
    async fn settle(&mut self, mut flight: Flight) -> bool {
        let written = joined((&mut flight.writing).await);
        self.land(flight, written).await
    }

    async fn land(&mut self, flight: Flight, written: Result<(), EngineError>) -> bool {
        match written {
            Ok(()) => {
                if let Place::Sqlite { mark, entries, .. } = &mut self.place {
                    *entries += flight.entries;
                    if let Err(error) = mark.write(*entries) {
                        tracing::warn!(%error, "the mark of the newest entry cannot be written");
                    }
                }
                for (request, answer) in flight.requests.into_iter().zip(flight.answers) {
                    let _ = request.answer.send(answer); // whoever asked may be gone
                }
                true
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "a batch was not written");
                refuse(flight.requests, &error);
                self.recover().await;
                false
            }
        }
    }

    /// Forgets everything, and reads again what cannot be done without.
    async fn recover(&mut self) {
        loop {
            match &mut self.place {
                Place::Postgres(_) => {
                    self.known = Known::new(Memory::Shared, Arc::clone(&self.holding));
                    tokio::time::sleep(REST).await;
                    return;
                }
                Place::Sqlite { reader, entries, .. } => {
                    let mut conn: Conn<'_> = Backend::Sqlite(&mut **reader);
                    let now = self.parts.clock.now();
                    match (recollect(&mut conn, now).await, load::newest_row(&mut conn).await) {
                        (Ok(memory), Ok(rows)) => {
                            *entries = rows.cast_unsigned();
                            self.known = Known::new(memory, Arc::clone(&self.holding));
                            return;
                        }
                        (Err(error), _) => tracing::error!(error = chain(&error), "the history's database cannot be read"),
                        (_, Err(error)) => tracing::error!(error = chain(&error), "the history's database cannot be read"),
                    }
                    tokio::time::sleep(REST).await;
                }
            }
        }
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
                tracing::error!(error = chain(&error), "a batch was not written");
                refuse(batch, &error);
                self.recover().await;
            }
        }
    }

    async fn try_shared(&mut self, batch: &[Request]) -> Result<Vec<Result<Vec<Added>, EngineError>>, EngineError> {
        let Place::Postgres(pool) = &self.place else { return Err(EngineError::Stopped) };
        let mut tx: Transaction<'_, Postgres> = pool.begin().await?;
        let mut conn: Conn<'_> = Backend::Postgres(&mut *tx);
        // after the locks: two writers' times must not cross
        let now = self.parts.clock.now();
        let standing = self.standing.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut rows = Rows::default();
        let failed = self.known.learn(&self.parts, &mut conn, batch, now, &mut rows).await?;
        let Prepared { rows, answers, .. } =
            self.known.prepare(&self.parts.random, &mut conn, batch, (&failed, None), (now, &standing), rows).await?;
        rows.write(&mut conn).await?;
        tx.commit().await?;
        Ok(answers)
    }
}

async fn write(writer: SqlitePool, rows: Rows) -> Result<(), sqlx::Error> {
    let mut tx: Transaction<'_, Sqlite> = writer.begin_with("BEGIN IMMEDIATE").await?;
    rows.write(&mut Backend::Sqlite(&mut *tx)).await?;
    tx.commit().await
}

fn joined(written: Result<Result<(), sqlx::Error>, tokio::task::JoinError>) -> Result<(), EngineError> {
    written.map_err(|_| EngineError::Stopped)?.map_err(EngineError::from)
}

/// What an only writer has to know from the beginning.
async fn recollect(conn: &mut Conn<'_>, now: Timestamp) -> Result<Memory, EngineError> {
    let next_number = load::newest_number(conn).await? + 1;
    let segments = load::segments(conn).await?;
    let oldest = now.as_microsecond() - REMEMBERED_US;
    // a segment counts when the one after it began in the past 48 hours
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
    Ok(Memory::Alone { recent, segment, began_us, in_segment, next_number, open })
}

/// Whatever waits, within the bounds of a batch.
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
        Work::Restore(entries) => (entries.len(), 0),
        Work::Statement(_) | Work::Make { .. } | Work::Adopt(_) | Work::Forget => (1, 0),
    }
}

fn refuse(batch: Vec<Request>, error: &EngineError) {
    for request in batch {
        let _ = request.answer.send(Err(error.clone()));
    }
}
