use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use sqlx::{PgConnection, Postgres, Sqlite, SqliteConnection, Transaction};
use tokio::sync::OwnedMutexGuard;

use crate::{Backend, Database, Failure, is_conflict};

/// How often a transaction is tried while others conflict with it, and the longest pause before a retry. Together about a second.
const TRIES: u32 = 16;
const LONGEST_PAUSE: Duration = Duration::from_millis(128);

/// A transaction. Without [`commit`](Self::commit) it is rolled back.
#[derive(Debug)]
pub struct Tx {
    inner: Backend<Transaction<'static, Sqlite>, Transaction<'static, Postgres>>,
    database: Database,
    _turn: Option<OwnedMutexGuard<()>>,
}

impl Tx {
    /// The connection, for [`on!`](crate::on).
    pub fn on(&mut self) -> Backend<&mut SqliteConnection, &mut PgConnection> {
        match &mut self.inner {
            Backend::Sqlite(tx) => Backend::Sqlite(tx),
            Backend::Postgres(tx) => Backend::Postgres(tx),
        }
    }

    /// Commits durably. With SQLite fails before that when the file was removed or replaced: what is written there could not be read again.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.database.check_files()?;
        match self.inner {
            Backend::Sqlite(tx) => tx.commit().await,
            Backend::Postgres(tx) => tx.commit().await,
        }
    }
}

impl Database {
    /// Begins a serializable transaction. SQLite runs one at a time; PostgreSQL runs several, and fails one that read what another one
    /// changed ([`is_conflict`]). [`transaction!`](macro@crate::transaction) retries by itself.
    pub async fn begin(&self) -> Result<Tx, sqlx::Error> {
        // before a connection is taken: a caller that waits for its turn leaves the connections to others
        let turn = self.turn().await;
        self.check_files()?;
        let tx = match self.writes() {
            Backend::Sqlite(writer) => Backend::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?),
            Backend::Postgres(pool) => Backend::Postgres(pool.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE").await?),
        };
        Ok(Tx { inner: tx, database: self.clone(), _turn: turn })
    }
}

/// Evaluates an expression in a transaction and commits it; on a conflict starts again from the beginning, a bounded number of times. So
/// the expression must have no effect outside the database. It evaluates to a `Result` whose error is a [`Failure`]; on an error the
/// transaction is rolled back. `?` and `return` in it end the try, not the function.
///
/// ```text
/// transaction!(database, tx => {
///     let used: i64 = on!(tx.on(), c => sqlx::query_scalar("SELECT used FROM accounts").fetch_one(c).await)?;
///     Ok(used)
/// })
/// ```
// not a function that takes an async closure: the compiler cannot yet require that closure's future to be `Send`
#[macro_export]
macro_rules! transaction {
    ($database:expr, $tx:ident => $body:expr) => {{
        let mut tries = $crate::Tries::new(&$database);
        loop {
            let mut tx = match tries.begin().await {
                Ok(tx) => tx,
                Err(error) => break Err(error.into()),
            };
            let done = async {
                let $tx: &mut $crate::Tx = &mut tx;
                $body
            };
            let done = done.await;
            if let Some(done) = tries.end(tx, done).await {
                break done;
            }
        }
    }};
}

/// The tries of a [`transaction!`](macro@crate::transaction).
#[derive(Debug)]
pub struct Tries<'a> {
    database: &'a Database,
    left: u32,
    pause: Duration,
}

impl<'a> Tries<'a> {
    pub fn new(database: &'a Database) -> Self {
        Self { database, left: TRIES, pause: Duration::from_millis(1) }
    }

    pub async fn begin(&mut self) -> Result<Tx, sqlx::Error> {
        self.left = self.left.saturating_sub(1);
        self.database.begin().await
    }

    /// Commits what was done. `None`: another transaction conflicted, and it has to be tried again.
    pub async fn end<T, E: Failure>(&mut self, tx: Tx, done: Result<T, E>) -> Option<Result<T, E>> {
        let done = match done {
            Ok(done) => tx.commit().await.map(|()| done).map_err(E::from),
            Err(error) => {
                drop(tx);
                Err(error)
            }
        };
        let in_the_way = done.as_ref().err().and_then(Failure::database).is_some_and(is_conflict);
        if !in_the_way || self.left == 0 {
            return Some(done);
        }
        tokio::time::sleep(jittered(self.pause)).await;
        self.pause = LONGEST_PAUSE.min(self.pause * 2);
        None
    }
}

/// A random time between half of the pause and all of it, so that transactions that conflicted do not conflict again.
fn jittered(pause: Duration) -> Duration {
    let chance = RandomState::new().build_hasher().finish() & 0xff;
    pause / 2 + pause.mul_f64(f64::from(u8::try_from(chance).unwrap_or_default()) / 512.0)
}
