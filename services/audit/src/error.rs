//! Errors, and how they are reported to callers.

use tsujiban_core::error::chain;
use tsujiban_core::id::KeyId;
use tsujiban_database::Class;
use tsujiban_history::OriginDomain;
use tsujiban_history::checkpoint::CheckpointError;
use tsujiban_objects::StoreError;
use tsujiban_proto::error::{Kind, ServiceError};
use tsujiban_sealing::{KeyError, SealingError};
pub use tsujiban_service::history::LOG_REFUSED;

use crate::engine::EngineError;

/// The reason for refusing to write to a history that is not the newest one.
pub const HISTORY_FORKED: &str = "HISTORY_FORKED";

/// What to do about a database that is malformed.
pub const WAY_OUT: &str = "stop the service, keep a copy of history.db, history.db-wal and history.db-shm, and delete the three: the history comes back from the bucket; on PostgreSQL restore the newest backup";

/// Why the database cannot be written, and what to do about it, for people.
pub fn why_unwritable(error: &sqlx::Error) -> String {
    tsujiban_database::why_unwritable(error, WAY_OUT)
}

/// Why a call could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A refusal; the caller reads it as it is.
    #[error(transparent)]
    Refused(#[from] ServiceError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("the history's database failed")]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a checkpoint cannot be signed")]
    Checkpoint(#[from] CheckpointError),
    #[error(
        "the bucket has root lists, and no key that signed one of them opens; bring the database's volume back, or the objects signing-key/ of \
         the bucket and the master key that sealed them (the mounted one is {master}); no other key is made"
    )]
    NoSigningKey { master: KeyId },
    #[error(
        "the origin domain {own} is not the one of the logs that are there: it was fixed as {fixed} by the first start; set it back \
         (--origin-domain, TSUJIBAN_ORIGIN_DOMAIN, value audit.originDomain of the chart)"
    )]
    OtherDomain { fixed: OriginDomain, own: OriginDomain },
    /// The database is inconsistent.
    #[error("the history's database is damaged: {0}")]
    Damaged(String),
}

impl From<SealingError> for Error {
    fn from(error: SealingError) -> Self {
        Self::Key(error.into())
    }
}

impl tsujiban_database::Failure for Error {
    fn database(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Database(error) => Some(error),
            _ => None,
        }
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn refuse(kind: Kind, reason: &str, message: impl Into<String>) -> Self {
        Self::Refused(ServiceError::new(kind, reason, message))
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::refuse(Kind::Invalid, "INVALID", message)
    }
}

/// How a failure is reported: its kind, its reason, and what to do.
type Told = (Kind, &'static str, &'static str);

const INTERNAL: Told = (Kind::Internal, "INTERNAL", "the service's log says more");

fn of_database(error: &sqlx::Error) -> Told {
    match Class::of(error) {
        // it is unknown whether the entries were written: callers may send the same ids again
        Class::Conflict | Class::Unavailable => (Kind::Unavailable, "DATABASE", "try again later with the same ids"),
        class @ (Class::Full | Class::Replaced) => (Kind::Unavailable, "DATABASE", class.advice(WAY_OUT)),
        Class::Damaged => (Kind::DataLoss, "DAMAGED", WAY_OUT),
        Class::Rejected | Class::Other => INTERNAL,
    }
}

impl From<Error> for ServiceError {
    fn from(error: Error) -> Self {
        let (kind, reason, advice) = match &error {
            Error::Refused(refused) => return refused.clone(),
            Error::Engine(EngineError::ReadOnly(_)) => (
                Kind::Precondition,
                HISTORY_FORKED,
                "bring the newest state of the database back; if it is really lost, let staff declare the gap: tsujiban audit declare-gap",
            ),
            Error::Engine(EngineError::LogRefused { .. }) => (
                Kind::Precondition,
                LOG_REFUSED,
                "all other groups' histories go on; what the bucket has of this one comes back by itself, and when some of it is really lost, let \
                 staff say so: tsujiban audit declare-gap",
            ),
            Error::Engine(EngineError::Overloaded) => (Kind::Exhausted, "OVERLOADED", "try again in a few seconds"),
            Error::Engine(EngineError::NoLeaf(_)) => (Kind::Invalid, "NO_LEAF", "shorten the name of who declares it"),
            Error::Engine(EngineError::TooLarge(_)) => (Kind::Invalid, "TOO_LARGE", "shorten target, reason or detail"),
            Error::Engine(EngineError::Unclaimed) => (Kind::Unavailable, "UNCLAIMED", "try again in a minute with the same ids"),
            Error::Engine(EngineError::Stopped) => (Kind::Unavailable, "STOPPED", "try again later"),
            Error::Engine(EngineError::Database(cause)) => of_database(cause),
            Error::Database(cause) => of_database(cause),
            Error::Store(StoreError::Unreachable { .. }) => (Kind::Unavailable, "STORE", "try again later"),
            Error::Engine(EngineError::Key(_)) | Error::Key(_) => (Kind::Internal, "KEYS", "the service's log says more"),
            Error::Engine(EngineError::OtherOwner(_)) => (
                Kind::DataLoss,
                "OTHER_OWNER",
                "the group has its log again when the operator has named it; if not, tell the platform's staff",
            ),
            Error::Engine(EngineError::Damaged(_)) | Error::Damaged(_) => (Kind::DataLoss, "DAMAGED", "tell the platform's staff"),
            Error::Engine(EngineError::Start(_))
            | Error::Store(_)
            | Error::Checkpoint(_)
            | Error::NoSigningKey { .. }
            | Error::OtherDomain { .. } => INTERNAL,
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
