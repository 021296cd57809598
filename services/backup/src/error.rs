//! The errors of the service, and the answer that a caller gets for each.

use tsujiban_core::error::chain;
use tsujiban_database::Class;
use tsujiban_objects::StoreError;
use tsujiban_proto::error::{DEVICE_ERASED, Kind, ServiceError};
use tsujiban_sealing::{KeyError, SealingError};
use tsujiban_service::history::spool::SpoolKeyError;

use crate::catalogue::CatalogueError;
use crate::damage::Damaged;
use crate::object::ObjectError;

/// What to do about a database that is malformed.
pub const DAMAGE_ADVICE: &str = "stop the service, keep a copy of catalogue.db, catalogue.db-wal and catalogue.db-shm, and delete the three: the catalogue comes back from the bucket; on PostgreSQL restore the newest backup";

/// Why a call could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A refusal; the caller reads it as it is.
    #[error(transparent)]
    Refused(#[from] ServiceError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the key of the history's spool cannot be used")]
    Spool(#[from] SpoolKeyError),
    #[error(transparent)]
    Object(#[from] ObjectError),
    #[error(transparent)]
    Damaged(#[from] Damaged),
}

impl From<SealingError> for Error {
    fn from(error: SealingError) -> Self {
        Self::Key(error.into())
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn refuse(kind: Kind, reason: &str, message: impl Into<String>) -> Self {
        Self::Refused(ServiceError::new(kind, reason, message))
    }

    /// Whether storage or database is unavailable, so that nothing else would work either.
    pub(crate) fn concerns_all(&self) -> bool {
        match self {
            Self::Store(error) => matches!(error, StoreError::Unreachable { .. }),
            Self::Catalogue(error) => !matches!(error, CatalogueError::Corrupt { .. }),
            _ => false,
        }
    }

    /// The same answer for a snapshot that never existed, is gone, or was erased, so that callers cannot tell which.
    pub fn no_snapshot(id: &str) -> Self {
        let shown: String = id.chars().take(80).collect();
        Self::refuse(Kind::NotFound, "NO_SNAPSHOT", format!("the group has no snapshot {shown:?}; list its snapshots for those there are"))
    }
}

impl From<Error> for ServiceError {
    fn from(error: Error) -> Self {
        let (kind, reason) = match &error {
            Error::Refused(refused) => return refused.clone(),
            Error::Catalogue(ended @ CatalogueError::LifeEnded) => {
                return Self::new(Kind::Precondition, DEVICE_ERASED, format!("{ended}; leave it out, and list the Devices again"));
            }
            Error::Store(StoreError::NotFound { .. } | StoreError::Damaged { .. }) | Error::Object(_) | Error::Damaged(_) => {
                (Kind::DataLoss, "DAMAGED")
            }
            Error::Store(_) => (Kind::Unavailable, "STORE"),
            Error::Catalogue(CatalogueError::Gone) | Error::Key(KeyError::Destroyed) => (Kind::NotFound, "ERASED"),
            Error::Catalogue(error) => match error.class() {
                Some(Class::Damaged) => (Kind::DataLoss, "CATALOGUE"),
                Some(class) if class.may_pass() || class == Class::Replaced => (Kind::Unavailable, "CATALOGUE"),
                _ => (Kind::Internal, "CATALOGUE"),
            },
            Error::Key(_) | Error::Spool(_) => (Kind::Internal, "KEYS"),
        };
        let chain = chain(&error);
        if kind == Kind::NotFound {
            return Self::new(kind, reason, format!("{chain}; there is nothing to read any more"));
        }
        tracing::error!(reason, error = %chain, "a call failed");
        let advice = match kind {
            Kind::DataLoss if matches!(error, Error::Catalogue(_)) => DAMAGE_ADVICE,
            Kind::DataLoss => "nothing was deleted; tell the platform's staff, who find what to do in docs/recovery.md",
            Kind::Unavailable => "nothing was stored; try again later",
            _ => "the service's log says more",
        };
        Self::new(kind, reason, format!("{chain}; {advice}"))
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        ServiceError::from(error).into()
    }
}
