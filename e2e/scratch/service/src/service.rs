//! The service: what it is made of, what can go wrong, and what its methods do.

use std::sync::Arc;

use jiff::Timestamp;
use tsujiban_core::clock::Clock;
use tsujiban_core::error::chain;
use tsujiban_core::id::{EnvironmentName, GroupId};
use tsujiban_database::{Class, Database, Failure, Rights, Schema, is_unavailable, on, why_unwritable};
use tsujiban_proto::error::{Kind, ServiceError};
use tsujiban_sealing::{KeyError, Keyring, Random, SealedEpochKey, SealingError};
use tsujiban_service::caller::GroupScope;
use tsujiban_service::history::History;
use tsujiban_service::history::spool::SpoolKeyError;
use tsujiban_service::writing::{Resource, WriteState};

/// One text for both databases.
pub static SCHEMA: Schema = Schema {
    sqlite: sqlx::migrate!("./migrations"),
    postgres: sqlx::migrate!("./migrations"),
    additions: "",
    oldest: "0.2.0",
    rights: Rights::AllRows,
};

/// What to do about a database that is malformed.
const WAY_OUT: &str = "restore the newest backup of the database";

/// What the service is made of. Whatever it knows of the world comes from here.
#[derive(Clone)]
pub struct Parts {
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub database: Database,
    pub keyring: Arc<Keyring>,
    pub environment: EnvironmentName,
    /// Where it is recorded what came of each call. `None`: nowhere.
    pub history: Option<History>,
    pub writing: WriteState,
}

/// The service. [`start`](Self::start) makes it.
pub struct Scratch {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) database: Database,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) history: Option<History>,
    pub writing: WriteState,
}

/// Why a call could not be answered, or the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A refusal; the caller reads it as it is.
    #[error(transparent)]
    Refused(#[from] ServiceError),
    #[error("the database of the counters failed")]
    Database(#[from] sqlx::Error),
    #[error("the database belongs to {what} {found}, and this is {own}; give each environment its own, and mount its master key")]
    Other { what: &'static str, found: String, own: String },
    #[error("the database holds {value:?} as {column}")]
    Corrupt { column: &'static str, value: String },
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the key of the history's spool cannot be used")]
    Spool(#[from] SpoolKeyError),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn refuse(kind: Kind, reason: &str, message: impl Into<String>) -> Self {
        Self::Refused(ServiceError::new(kind, reason, message))
    }

    /// Whether it may work in a moment, without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Database(error) => is_unavailable(error),
            _ => false,
        }
    }
}

impl From<SealingError> for Error {
    fn from(error: SealingError) -> Self {
        Self::Key(error.into())
    }
}

impl Failure for Error {
    fn database(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Database(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Error> for ServiceError {
    fn from(error: Error) -> Self {
        let (kind, reason, advice) = match &error {
            Error::Refused(refused) => return refused.clone(),
            Error::Database(cause) => match Class::of(cause) {
                Class::Damaged => (Kind::DataLoss, "DATABASE", WAY_OUT),
                class if class.may_pass() || class == Class::Replaced => (Kind::Unavailable, "DATABASE", class.advice(WAY_OUT)),
                _ => (Kind::Internal, "DATABASE", "the service's log says more"),
            },
            Error::Corrupt { .. } => (Kind::DataLoss, "DATABASE", WAY_OUT),
            _ => (Kind::Internal, "INTERNAL", "the service's log says more"),
        };
        let chain = chain(&error);
        tracing::error!(reason, error = %chain, "a call failed");
        Self::new(kind, reason, format!("{chain}; {advice}"))
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        ServiceError::from(error).into()
    }
}

impl Scratch {
    /// Checks that database, environment and keys belong together (C12), then makes the service.
    pub async fn start(parts: Parts) -> Result<Arc<Self>> {
        let Parts { clock, random, database, keyring, environment, history, writing } = parts;
        database.make_room().await?;
        must_equal(&database, "environment", environment.to_string()).await?;
        must_equal(&database, "master key", keyring.master_id().to_string()).await?;
        Ok(Arc::new(Self { clock, random, database, keyring, history, writing }))
    }

    /// Adds one to a group's counter and answers its new value.
    pub async fn increment(&self, scope: &GroupScope) -> Result<u64> {
        const TEXT: &str = "UPDATE counters SET value = value + 1
            WHERE incarnation = (SELECT incarnation FROM groups WHERE group_id = $1 AND state = 'living') RETURNING value";
        self.writing.check()?;
        let group = scope.group();
        let value: Option<i64> = on!(self.database.writes(), p => sqlx::query_scalar(TEXT).bind(group.as_str()).fetch_optional(p).await)?;
        count(value.ok_or_else(|| no_counter(group))?)
    }

    /// The value of a group's counter, also while the group is retained.
    pub async fn value(&self, scope: &GroupScope) -> Result<u64> {
        const TEXT: &str = "SELECT value FROM counters
            WHERE incarnation = (SELECT incarnation FROM groups WHERE group_id = $1 AND state <> 'erased')";
        let group = scope.group();
        let value: Option<i64> = on!(self.database.reads(), p => sqlx::query_scalar(TEXT).bind(group.as_str()).fetch_optional(p).await)?;
        count(value.ok_or_else(|| no_counter(group))?)
    }

    /// Takes the epoch keys that are mounted now. They wrap nothing here but the key of the history's spool.
    pub fn follow_keys(&self, mounted: &[SealedEpochKey]) -> Result<()> {
        self.keyring.replace_epochs(mounted)?;
        if let Some(history) = &self.history {
            history.follow_epochs()?;
        }
        self.keyring.forget_unmounted();
        Ok(())
    }

    /// Tries to write, or answers why that fails.
    pub async fn try_write(&self) -> Result<(), String> {
        let written = self.database.try_write(self.now().as_microsecond()).await;
        written.map_err(|error| why_unwritable(&error, WAY_OUT))
    }

    /// Whether the database holds together; what was found is in the state of writing.
    pub async fn check_database(&self) -> Result<()> {
        match self.database.damage().await?.first() {
            None => self.writing.works(Resource::Integrity),
            Some(first) => self.writing.fails(Resource::Integrity, format!("the database is malformed ({first}): {WAY_OUT}")),
        }
        Ok(())
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// A number of the database.
pub(crate) fn count(value: i64) -> Result<u64> {
    u64::try_from(value).map_err(|_| Error::Corrupt { column: "value", value: value.to_string() })
}

/// The one answer for a group that never was here and for one that was erased.
fn no_counter(group: &GroupId) -> Error {
    Error::refuse(Kind::NotFound, "NO_COUNTER", format!("group {group} has no counter; ask for a report of the groups there are"))
}

/// The first start writes down whose the database is, and each start after it compares.
async fn must_equal(database: &Database, what: &'static str, own: String) -> Result<()> {
    const PUT: &str = "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    const GET: &str = "SELECT value FROM meta WHERE name = $1";
    on!(database.writes(), p => sqlx::query(PUT).bind(what).bind(own.clone()).execute(p).await.map(drop))?;
    let found: String = on!(database.reads(), p => sqlx::query_scalar(GET).bind(what).fetch_one(p).await)?;
    if found == own { Ok(()) } else { Err(Error::Other { what, found, own }) }
}
