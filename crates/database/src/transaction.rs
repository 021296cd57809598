use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use sqlx::{PgConnection, Postgres, Sqlite, SqliteConnection, Transaction};
use tokio::sync::OwnedMutexGuard;

use crate::{Backend, Database, Failure, is_conflict};

/// How often a transaction is begun anew when others were in its way, and the longest pause before that. Together about a second.
const TRIES: u32 = 16;
const LONGEST_PAUSE: Duration = Duration::from_millis(128);

/// A transaction. Without [`commit`](Self::commit) it has never been.
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

    /// What is committed is durable. With SQLite it fails before that when the file was removed or replaced: nobody would read it again.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.database.check_files()?;
        match self.inner {
            Backend::Sqlite(tx) => tx.commit().await,
            Backend::Postgres(tx) => tx.commit().await,
        }
    }
}

impl Database {
    /// Begins to write as if nobody else did: SQLite lets one write at a time, PostgreSQL several, and fails the one that saw what another
    /// one changed ([`is_conflict`]). [`transaction!`](crate::transaction) tries again by itself.
    pub async fn begin(&self) -> Result<Tx, sqlx::Error> {
        // before a connection: who waits for a turn leaves them to others
        let turn = self.turn().await;
        self.check_files()?;
        let tx = match self.writes() {
            Backend::Sqlite(writer) => Backend::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?),
            Backend::Postgres(pool) => Backend::Postgres(pool.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE").await?),
        };
        Ok(Tx { inner: tx, database: self.clone(), _turn: turn })
    }
}

/// Does something in a transaction and commits it, from the beginning and for a bounded number of times when others were in its way: so it
/// does nothing outside the database. What it evaluates to is a `Result` whose error is a [`Failure`]; of what fails nothing is kept. `?`
/// and `return` in it end the try, not the function.
///
/// ```text
/// transaction!(database, tx => {
///     let used: i64 = on!(tx.on(), c => sqlx::query_scalar("SELECT used FROM accounts").fetch_one(c).await)?;
///     Ok(used)
/// })
/// ```
// not a function that takes an async closure: of that one's future no compiler says yet that it can be moved between threads
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

/// The tries of a [`transaction!`](crate::transaction).
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

    /// Commits what was done. `None`: others were in the way, and it shall be tried again.
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
        tokio::time::sleep(some_of(self.pause)).await;
        self.pause = LONGEST_PAUSE.min(self.pause * 2);
        None
    }
}

/// Between a half and the whole, by chance: those that met once shall not meet again.
fn some_of(pause: Duration) -> Duration {
    let chance = RandomState::new().build_hasher().finish() & 0xff;
    pause / 2 + pause.mul_f64(f64::from(u8::try_from(chance).unwrap_or_default()) / 512.0)
}
