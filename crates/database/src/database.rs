use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::SqlitePool;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::sqlite::Sqlite;

/// How long to wait for a connection. The pool retries by itself, by default for half a minute.
const ACQUIRE: Duration = Duration::from_secs(3);

/// A value for SQLite, or its counterpart for PostgreSQL. [`on!`](crate::on) matches on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend<S, P> {
    Sqlite(S),
    Postgres(P),
}

/// Evaluates an expression on whichever database it is. The expression is compiled twice: once for each.
///
/// `on!(db.reads(), p => …)` and `on!(db.writes(), p => …)` give a pool, `on!(tx.on(), c => …)` gives the connection of a transaction,
/// which is used up by the first query; `&mut *c` serves several.
#[macro_export]
macro_rules! on {
    ($backend:expr, $on:pat => $body:expr) => {
        match $backend {
            $crate::Backend::Sqlite($on) => $body,
            $crate::Backend::Postgres($on) => $body,
        }
    };
}

/// The database.
#[derive(Clone)]
pub struct Database(Backend<Sqlite, Postgres>);

#[derive(Clone)]
struct Postgres {
    pool: PgPool,
    /// Locked while a transaction runs; `None`: transactions run concurrently.
    turn: Option<Arc<Mutex<()>>>,
}

impl Database {
    /// Opens a file, or makes it.
    pub async fn sqlite(file: &Path) -> Result<Self, sqlx::Error> {
        Ok(Self(Backend::Sqlite(Sqlite::open(file).await?)))
    }

    /// Connects to PostgreSQL, with at most `connections` connections. Fails within seconds when it is unreachable.
    pub async fn postgres(options: PgConnectOptions, connections: u32) -> Result<Self, sqlx::Error> {
        let pool = PgPoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE);
        // a connection that is still in a transaction is not used again
        let pool = pool
            .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
            .after_release(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }));
        Ok(Self(Backend::Postgres(Postgres { pool: pool.connect_with(options).await?, turn: None })))
    }

    /// For tables whose writers nearly always conflict, as when each increments one number: the transactions of this process run one after
    /// another, first come, first served, as SQLite's do anyway. Those of other processes may still conflict, and are few.
    #[must_use]
    pub fn taking_turns(self) -> Self {
        Self(match self.0 {
            Backend::Postgres(postgres) => Backend::Postgres(Postgres { turn: Some(Arc::default()), ..postgres }),
            sqlite @ Backend::Sqlite(_) => sqlite,
        })
    }

    /// Waits until it is this caller's turn to begin a transaction, if there are turns.
    pub(crate) async fn turn(&self) -> Option<OwnedMutexGuard<()>> {
        let Backend::Postgres(Postgres { turn: Some(turn), .. }) = &self.0 else { return None };
        Some(Arc::clone(turn).lock_owned().await)
    }

    /// The pool for single statements that only read. With SQLite a write is refused here.
    pub fn reads(&self) -> Backend<&SqlitePool, &PgPool> {
        match &self.0 {
            Backend::Sqlite(sqlite) => Backend::Sqlite(&sqlite.readers),
            Backend::Postgres(postgres) => Backend::Postgres(&postgres.pool),
        }
    }

    /// The pool for single statements that write. To read and then write, use a [`transaction!`](macro@crate::transaction).
    pub fn writes(&self) -> Backend<&SqlitePool, &PgPool> {
        match &self.0 {
            Backend::Sqlite(sqlite) => {
                // if the file was replaced this closes the pool, so that the statement fails
                let _ = sqlite.check_files();
                Backend::Sqlite(&sqlite.writer)
            }
            Backend::Postgres(postgres) => Backend::Postgres(&postgres.pool),
        }
    }

    /// SQLite: fails with [`Class::Replaced`](crate::Class) when the file was removed or replaced since it was opened. From then on nothing is written, and
    /// so nothing acknowledged, until the database is opened anew; what was there can still be read.
    pub fn check_files(&self) -> Result<(), sqlx::Error> {
        match &self.0 {
            Backend::Sqlite(sqlite) => sqlite.check_files(),
            Backend::Postgres(_) => Ok(()),
        }
    }

    /// SQLite: frees space on a full volume for what a service writes while it starts, so that it can serve reads and report what is wrong.
    pub async fn make_room(&self) -> Result<(), sqlx::Error> {
        match &self.0 {
            Backend::Sqlite(sqlite) => sqlite.make_room().await,
            Backend::Postgres(_) => Ok(()),
        }
    }

    /// Tries a write: puts the time into a row of table `meta`, which has the columns `name` and `value` in every service. With SQLite also
    /// checks that the file is the one that was opened, and that the volume has space.
    pub async fn try_write(&self, now_us: i64) -> Result<(), sqlx::Error> {
        const PUT: &str =
            "INSERT INTO meta (name, value) VALUES ('last write check', $1) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        self.check_files()?;
        if let Backend::Sqlite(sqlite) = &self.0 {
            sqlite.check_space().await?;
        }
        on!(self.writes(), p => sqlx::query(PUT).bind(now_us.to_string()).execute(p).await.map(drop))
    }

    /// SQLite: the damage in the file, found by reading all of it and comparing indexes with tables, while other connections work. Empty:
    /// none. A call during a check or soon after it (30 s, or 50 times as long as it took) gets the result of that check. Damage that
    /// prevents the check is reported like any other. PostgreSQL has to be checked by its own means.
    pub async fn damage(&self) -> Result<Vec<String>, sqlx::Error> {
        match &self.0 {
            Backend::Sqlite(sqlite) => sqlite.damage().await,
            Backend::Postgres(_) => Ok(Vec::new()),
        }
    }

    /// SQLite: moves everything from the log into the database and empties the log, so that nothing deleted stays in it.
    ///
    /// PostgreSQL has nothing like it: what was deleted stays in dead rows until they are reused, in its log and in whatever copies are
    /// made of both, out of reach of any statement. Data that must be destroyable there is wrapped under a key that is stored elsewhere and
    /// is destroyed in its place (docs/keys.md).
    pub async fn flush_log(&self) -> Result<(), sqlx::Error> {
        match &self.0 {
            Backend::Sqlite(sqlite) => sqlite.flush_log().await,
            Backend::Postgres(_) => Ok(()),
        }
    }

    /// Closes all connections. With SQLite everything is in the one file then, and a copy of it is a copy of the database.
    pub async fn close(&self) {
        match &self.0 {
            Backend::Sqlite(sqlite) => sqlite.close().await,
            Backend::Postgres(postgres) => postgres.pool.close().await,
        }
    }
}

/// Prints which database it is and not its URL, which may hold secrets.
impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Backend::Sqlite(_) => "Database(SQLite)",
            Backend::Postgres(_) => "Database(PostgreSQL)",
        })
    }
}
