use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::SqlitePool;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::sqlite::Sqlite;

/// A database that is not there would else be waited for half a minute: the pool tries again by itself.
const ACQUIRE: Duration = Duration::from_secs(3);

/// Something of SQLite, or the same of PostgreSQL. [`on!`](crate::on) looks which.
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
    /// Who holds it may begin a transaction; `None`: anybody may.
    turn: Option<Arc<Mutex<()>>>,
}

impl Database {
    /// Opens a file, or makes it.
    pub async fn sqlite(file: &Path) -> Result<Self, sqlx::Error> {
        Ok(Self(Backend::Sqlite(Sqlite::open(file).await?)))
    }

    /// Connects to PostgreSQL, with so many connections at most. Fails within seconds when it is not there.
    pub async fn postgres(options: PgConnectOptions, connections: u32) -> Result<Self, sqlx::Error> {
        let pool = PgPoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE);
        // one whose transaction did not end well is not used again
        let pool = pool
            .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
            .after_release(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }));
        Ok(Self(Backend::Postgres(Postgres { pool: pool.connect_with(options).await?, turn: None })))
    }

    /// The same for tables whose writers nearly always meet, as where each of them raises one number: the transactions of this process take
    /// turns, first come, first served, as SQLite's do anyway. Those of other processes may still be in the way, and are few.
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

    /// Where single statements that only read go. With SQLite a write is refused here.
    pub fn reads(&self) -> Backend<&SqlitePool, &PgPool> {
        match &self.0 {
            Backend::Sqlite(sqlite) => Backend::Sqlite(&sqlite.readers),
            Backend::Postgres(postgres) => Backend::Postgres(&postgres.pool),
        }
    }

    /// Where single statements that write go. What reads and then writes is a [`transaction!`](crate::transaction).
    pub fn writes(&self) -> Backend<&SqlitePool, &PgPool> {
        match &self.0 {
            Backend::Sqlite(sqlite) => {
                // a file that was replaced closes the pool, which answers for that
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

    /// SQLite: makes room on a full volume for what a service writes while it starts, so that it can show what it holds and say what is wrong.
    pub async fn make_room(&self) -> Result<(), sqlx::Error> {
        match &self.0 {
            Backend::Sqlite(sqlite) => sqlite.make_room().await,
            Backend::Postgres(_) => Ok(()),
        }
    }

    /// Whether something can be written, by writing: the moment goes into a row of table `meta`, which has the columns `name` and `value` in
    /// every service. With SQLite the file is compared with the one that was opened, and the volume has to have space.
    pub async fn try_write(&self, now_us: i64) -> Result<(), sqlx::Error> {
        const PUT: &str =
            "INSERT INTO meta (name, value) VALUES ('last write check', $1) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        self.check_files()?;
        if let Backend::Sqlite(sqlite) = &self.0 {
            sqlite.check_space().await?;
        }
        on!(self.writes(), p => sqlx::query(PUT).bind(now_us.to_string()).execute(p).await.map(drop))
    }

    /// SQLite: what is wrong with the file, by reading all of it and comparing indexes with tables, beside everybody else. Empty: nothing.
    /// Who asks while somebody looks, or soon after (30 s, or 50 times as long as it took), is told what that one found. Damage that keeps SQLite
    /// from looking is found like any other. PostgreSQL has to be checked by its own means.
    pub async fn damage(&self) -> Result<Vec<String>, sqlx::Error> {
        match &self.0 {
            Backend::Sqlite(sqlite) => sqlite.damage().await,
            Backend::Postgres(_) => Ok(Vec::new()),
        }
    }

    /// SQLite: moves everything from the log into the database and empties the log, so that nothing deleted stays in it.
    ///
    /// PostgreSQL has nothing like it: what was deleted stays in dead rows until they are reused, in its log and in whatever copies are
    /// made of both, out of reach of any statement. Who must destroy something there keeps it wrapped under a key that lies elsewhere
    /// and is destroyed in turn (docs/keys.md).
    pub async fn flush_log(&self) -> Result<(), sqlx::Error> {
        match &self.0 {
            Backend::Sqlite(sqlite) => sqlite.flush_log().await,
            Backend::Postgres(_) => Ok(()),
        }
    }

    /// Ends all connections. With SQLite everything is in the one file then, and a copy of it is a copy of the database.
    pub async fn close(&self) {
        match &self.0 {
            Backend::Sqlite(sqlite) => sqlite.close().await,
            Backend::Postgres(postgres) => postgres.pool.close().await,
        }
    }
}

/// Says which it is and not where: a URL may hold what nobody should read.
impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Backend::Sqlite(_) => "Database(SQLite)",
            Backend::Postgres(_) => "Database(PostgreSQL)",
        })
    }
}
