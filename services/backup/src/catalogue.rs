//! The catalogue: what is stored, for whom, under which keys. SQLite or PostgreSQL, with the same SQL.
//!
//! It holds no plaintext secrets: whatever a customer typed arrives here sealed, and keys arrive wrapped.

/// SQL that selects snapshots, each with a flag whether it is damaged.
macro_rules! snapshots {
    ($which:literal) => {
        concat!(
            "SELECT snapshots.*, EXISTS (SELECT 1 FROM damage WHERE damage.snapshot = snapshots.id AND damage.healed_at IS NULL) AS damaged ",
            $which
        )
    };
}

mod attempts;
mod check;
mod damage;
mod devices;
mod erasure;
mod erasures;
mod groups;
mod keys;
mod lives;
mod meta;
mod row;
mod snapshots;
mod table;
mod unreadable;
mod uploads;

use tsujiban_database::{Class, Database, Failure, Rights, Schema, is_unavailable};

pub use attempts::{Answered, AttemptRow, NewAttempt};
pub use damage::{Damage, DamageRow};
pub use devices::DeviceRow;
pub use erasure::{Due, Erased, LeftoverRow};
pub use erasures::{ERASURES_KEPT, ErasureRow};
pub use groups::{GroupRow, GroupState, GroupUse};
pub use keys::{KeyRow, KeyTableState};
pub use meta::Meta;
pub use snapshots::SnapshotRow;
pub use unreadable::{ROW, Rows, Unreadable};

/// The catalogue's tables. Version 0.1.0, to which a rollback is possible, does not know the tables of the additions.
pub static SCHEMA: Schema = Schema {
    sqlite: sqlx::migrate!("./migrations"),
    postgres: sqlx::migrate!("./migrations"),
    additions: include_str!("../schema/additions.sql"),
    oldest: "0.1.0",
    rights: Rights::AllRows,
};

/// Why the catalogue could not answer.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    #[error("the catalogue's database failed")]
    Database(#[source] sqlx::Error),
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

impl Failure for CatalogueError {
    fn database(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Database(error) => Some(error),
            _ => None,
        }
    }
}

impl CatalogueError {
    /// The class of the database's failure, if it is one.
    pub fn class(&self) -> Option<Class> {
        self.database().map(Class::of)
    }

    /// Whether a retry may succeed without anybody's intervention.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Database(error) => is_unavailable(error),
            _ => false,
        }
    }
}

/// The database's tables.
#[derive(Debug, Clone)]
pub struct Catalogue {
    database: Database,
    unreadable: unreadable::Noted,
}

impl Catalogue {
    /// Opens the catalogue in a database that has the tables of this version.
    pub async fn new(database: Database) -> Result<Self, CatalogueError> {
        // transactions would nearly always conflict: each attempt takes the next cursor, each key change raises the key table's generation
        let catalogue = Self { database: database.taking_turns(), unreadable: unreadable::Noted::default() };
        catalogue.record_past_erasures().await?;
        Ok(catalogue)
    }

    /// Closes all connections, so that a SQLite file holds everything.
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// The database itself, for what is not about its rows.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Does what it can so that nothing deleted stays in the database's files: see [`Database::flush_log`].
    pub async fn flush_log(&self) -> Result<(), CatalogueError> {
        Ok(self.database.flush_log().await?)
    }
}
