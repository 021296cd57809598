//! What can go wrong, and what a caller is told of it.

use tsujiban_core::error::chain;
use tsujiban_database::is_unavailable;
use tsujiban_history::checkpoint::CheckpointError;
use tsujiban_objects::StoreError;
use tsujiban_proto::error::{Kind, ServiceError};
use tsujiban_sealing::{KeyError, SealingError};

use crate::engine::EngineError;

/// The reason of a refusal to write to a history that is not the newest one.
pub const HISTORY_FORKED: &str = "HISTORY_FORKED";

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
    /// The database does not hold together.
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

impl From<Error> for ServiceError {
    fn from(error: Error) -> Self {
        let (kind, reason, advice) = match &error {
            Error::Refused(refused) => return refused.clone(),
            Error::Engine(EngineError::ReadOnly(_)) => (
                Kind::Precondition,
                HISTORY_FORKED,
                "bring the newest state of the database back; if it is really lost, let staff declare the gap: tsujiban audit declare-gap",
            ),
            Error::Engine(EngineError::Overloaded) => (Kind::Exhausted, "OVERLOADED", "try again in a few seconds"),
            Error::Engine(EngineError::NoLeaf(_)) => (Kind::Invalid, "NO_LEAF", "shorten the name of who declares it"),
            Error::Engine(EngineError::TooLarge(_)) => (Kind::Invalid, "TOO_LARGE", "shorten target, reason or detail"),
            Error::Engine(EngineError::Stopped) => (Kind::Unavailable, "STOPPED", "try again later"),
            // whether it was written is not known: the same ids may be sent again
            Error::Engine(EngineError::Database(_)) => (Kind::Unavailable, "DATABASE", "try again later with the same ids"),
            Error::Database(cause) if is_unavailable(cause) => (Kind::Unavailable, "DATABASE", "try again later"),
            Error::Store(StoreError::Unreachable { .. }) => (Kind::Unavailable, "STORE", "try again later"),
            Error::Engine(EngineError::Key(_)) | Error::Key(_) => (Kind::Internal, "KEYS", "the service's log says more"),
            Error::Engine(EngineError::Damaged(_) | EngineError::OtherOwner(_)) | Error::Damaged(_) => {
                (Kind::DataLoss, "DAMAGED", "tell the platform's staff")
            }
            Error::Engine(EngineError::Start(_)) | Error::Database(_) | Error::Store(_) | Error::Checkpoint(_) => {
                (Kind::Internal, "INTERNAL", "the service's log says more")
            }
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
