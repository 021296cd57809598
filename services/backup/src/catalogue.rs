//! The catalogue: what is stored, for whom, under which keys. SQLite, with one connection that writes and several that read.
//!
//! It knows rows and no secrets: whatever a customer typed arrives here sealed, and keys arrive wrapped.

mod attempts;
mod devices;
mod erasure;
mod groups;
mod keys;
mod lives;
mod meta;
mod row;
mod snapshots;

use std::path::Path;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, Transaction};

pub use attempts::{Answered, AttemptRow, NewAttempt};
pub use devices::DeviceRow;
pub use erasure::{Due, Erased, LeftoverRow};
pub use groups::{GroupRow, GroupState, GroupUse};
pub use keys::{KeyRow, KeyTableState};
pub use meta::Meta;
pub use snapshots::SnapshotRow;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

const READERS: u32 = 4;
const BUSY: Duration = Duration::from_secs(5);

/// Why the catalogue could not answer.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    #[error("the catalogue's database failed")]
    Database(#[source] sqlx::Error),
    #[error("the catalogue's database cannot be brought to this version; was a newer version of the service here?")]
    Migration(#[from] MigrateError),
    #[error("the catalogue holds {value:?} as {column}; rebuild it from the bucket")]
    Corrupt { column: &'static str, value: String },
    #[error("what the row belongs to was erased")]
    Gone,
    #[error("the Device was deleted and its data erased")]
    LifeEnded,
}

impl From<sqlx::Error> for CatalogueError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database) if database.is_foreign_key_violation() => Self::Gone,
            _ => Self::Database(error),
        }
    }
}

/// The database.
#[derive(Debug, Clone)]
pub struct Catalogue {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Catalogue {
    /// Opens the database file, or makes it, and brings it to this version.
    pub async fn open(file: &Path) -> Result<Self, CatalogueError> {
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
        MIGRATIONS.run(&writer).await?;
        let readers = SqlitePoolOptions::new().max_connections(READERS).connect_with(options.read_only(true)).await?;
        Ok(Self { writer, readers })
    }

    /// Ends all connections, so that the file is whole.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    async fn write(&self) -> Result<Transaction<'static, Sqlite>, CatalogueError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Moves everything from the log into the database and empties the log, so that nothing deleted stays in it.
    pub async fn flush_log(&self) -> Result<(), CatalogueError> {
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&self.writer).await?;
        Ok(())
    }
}
