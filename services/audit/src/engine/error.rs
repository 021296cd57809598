//! Why the engine added nothing.

use std::sync::Arc;

use tsujiban_history::leaf::InvalidLeaf;
use tsujiban_sealing::{KeyError, SealingError};

/// The longest body in bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// Why nothing was added.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    #[error("the history's database failed")]
    Database(#[source] Arc<sqlx::Error>),
    #[error("the keys of the history cannot be used")]
    Key(#[source] Arc<KeyError>),
    #[error("the history is read-only: {0}")]
    ReadOnly(Arc<str>),
    #[error("more entries are waiting than the service takes")]
    Overloaded,
    #[error("an entry has {0} bytes, and {MAX_BODY} are the limit")]
    TooLarge(usize),
    #[error("log {0} is not what the database said when it was written; the database is damaged")]
    Damaged(i64),
    /// The owner of the log was changed in the database.
    #[error("{0}")]
    OtherOwner(Arc<str>),
    /// The stored log is inconsistent. The other logs accept entries.
    #[error("nothing is added to {owner}'s history: {why}")]
    LogRefused { owner: Arc<str>, why: Arc<str> },
    #[error("the statement to be added is not a valid leaf; this is a bug")]
    NoLeaf(#[from] InvalidLeaf),
    /// The group's log may be one of those that were restored from the bucket.
    #[error("the history came back from the bucket, and the operator has not said yet which log is the group's")]
    Unclaimed,
    #[error("the engine has stopped")]
    Stopped,
    #[error("the engine cannot be started: {0}")]
    Start(Arc<str>),
}

impl From<sqlx::Error> for EngineError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(Arc::new(error))
    }
}

impl From<KeyError> for EngineError {
    fn from(error: KeyError) -> Self {
        Self::Key(Arc::new(error))
    }
}

impl From<SealingError> for EngineError {
    fn from(error: SealingError) -> Self {
        KeyError::from(error).into()
    }
}
