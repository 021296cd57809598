//! Checks that this service, this database, this bucket and these keys belong together. If not, the service does not start (C12, C21).

use std::sync::Arc;

use tsujiban_database::{is_unavailable, on};
use tsujiban_objects::{StoreError, UnsuitableBucket};

use crate::engine::EngineError;
use crate::error::Error;
use crate::service::{Audit, Parts};

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Bucket(#[from] UnsuitableBucket),
    #[error("the database belongs to {what} {found}, and this is {own}; give each environment its own, and mount its master key")]
    Other { what: &'static str, found: String, own: String },
    #[error("the storage cannot be used")]
    Store(#[from] StoreError),
    #[error("the database cannot be used")]
    Database(#[from] sqlx::Error),
    #[error("a metric is registered twice; this is a bug")]
    Metrics(#[from] prometheus::Error),
    #[error("the history cannot be opened")]
    History(#[from] Error),
}

impl StartError {
    /// Whether a retry may succeed without anyone fixing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(StoreError::Unreachable { .. }) | Self::History(Error::Store(StoreError::Unreachable { .. })) => true,
            Self::Database(error) | Self::History(Error::Database(error)) => is_unavailable(error),
            Self::History(Error::Engine(EngineError::Database(error))) => is_unavailable(error),
            _ => false,
        }
    }
}

/// Checks everything, makes the service, and compares the history with the newest root list. An older history is served read-only.
pub async fn start(parts: Parts, allowed_regions: &[String]) -> Result<Arc<Audit>, StartError> {
    parts.store.facts().await?.must_suit(allowed_regions)?;
    parts.database.make_room().await?;
    must_equal(&parts, "environment", parts.environment.environment.to_string()).await?;
    must_equal(&parts, "master key", parts.keyring.master_id().to_string()).await?;
    let audit = Audit::open(parts).await?;
    audit.compare_at_start().await?;
    Ok(audit)
}

async fn must_equal(parts: &Parts, what: &'static str, own: String) -> Result<(), StartError> {
    const PUT: &str = "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    const GET: &str = "SELECT value FROM meta WHERE name = $1";
    on!(parts.database.writes(), p => sqlx::query(PUT).bind(what).bind(own.clone()).execute(p).await.map(drop))?;
    let found: String = on!(parts.database.reads(), p => sqlx::query_scalar(GET).bind(what).fetch_one(p).await)?;
    if found == own { Ok(()) } else { Err(StartError::Other { what, found, own }) }
}
