use std::fmt;
use std::path::Path;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};

const READERS: u32 = 4;
const BUSY: Duration = Duration::from_secs(5);
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

/// How the tables come to be: `sqlx::migrate!` of one folder for each database. What is common text may be one folder, named twice.
#[derive(Debug)]
pub struct Migrations {
    pub sqlite: Migrator,
    pub postgres: Migrator,
}

/// The database.
#[derive(Clone)]
pub struct Database(Backend<Sqlite, PgPool>);

#[derive(Clone)]
struct Sqlite {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Database {
    /// Opens a file, or makes it.
    pub async fn sqlite(file: &Path) -> Result<Self, sqlx::Error> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY)
            .foreign_keys(true)
            // what is deleted is overwritten: a destroyed key must not be found in a free page
            .pragma("secure_delete", "ON");
        let writer = SqlitePoolOptions::new().max_connections(1).min_connections(1).idle_timeout(None).max_lifetime(None);
        let writer = writer.connect_with(options.clone()).await?;
        let readers = SqlitePoolOptions::new().max_connections(READERS).connect_with(options.read_only(true)).await?;
        Ok(Self(Backend::Sqlite(Sqlite { writer, readers })))
    }

    /// Connects to PostgreSQL, with so many connections at most. Fails within seconds when it is not there.
    pub async fn postgres(options: PgConnectOptions, connections: u32) -> Result<Self, sqlx::Error> {
        let pool = PgPoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE);
        Ok(Self(Backend::Postgres(pool.connect_with(options).await?)))
    }

    /// Brings the tables to this version. Several processes may do so at the same time.
    pub async fn migrate(&self, migrations: &Migrations) -> Result<(), MigrateError> {
        match &self.0 {
            Backend::Sqlite(sqlite) => migrations.sqlite.run(&sqlite.writer).await,
            Backend::Postgres(pool) => migrations.postgres.run(pool).await,
        }
    }

    /// Where single statements that only read go. With SQLite a write is refused here.
    pub fn reads(&self) -> Backend<&SqlitePool, &PgPool> {
        match &self.0 {
            Backend::Sqlite(sqlite) => Backend::Sqlite(&sqlite.readers),
            Backend::Postgres(pool) => Backend::Postgres(pool),
        }
    }

    /// Where single statements that write go. What reads and then writes is a [`transaction!`](crate::transaction).
    pub fn writes(&self) -> Backend<&SqlitePool, &PgPool> {
        match &self.0 {
            Backend::Sqlite(sqlite) => Backend::Sqlite(&sqlite.writer),
            Backend::Postgres(pool) => Backend::Postgres(pool),
        }
    }

    /// SQLite: moves everything from the log into the database and empties the log, so that nothing deleted stays in it.
    ///
    /// PostgreSQL has nothing like it: what was deleted stays in dead rows until they are reused, in its log and in whatever copies are
    /// made of both, out of reach of any statement. Who must destroy something there keeps it wrapped under a key that lies elsewhere
    /// and is destroyed in turn (docs/keys.md).
    pub async fn flush_log(&self) -> Result<(), sqlx::Error> {
        if let Backend::Sqlite(sqlite) = &self.0 {
            sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&sqlite.writer).await?;
        }
        Ok(())
    }

    /// Ends all connections, so that a file is whole.
    pub async fn close(&self) {
        match &self.0 {
            Backend::Sqlite(sqlite) => {
                sqlite.readers.close().await;
                sqlite.writer.close().await;
            }
            Backend::Postgres(pool) => pool.close().await,
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
