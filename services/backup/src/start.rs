//! Whether this service, this database, this bucket and these keys belong together. They do, or it does not start: customer
//! data of one environment must never meet another one (C12), and it stays in Japan (C21).

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tsujiban_core::id::{EnvironmentName, KeyId};
use tsujiban_objects::{Objects, StoreError, UnsuitableBucket};

use crate::catalogue::{CatalogueError, Meta};
use crate::error::Error;
use crate::keytable;
use crate::object;
use crate::service::{Backup, Parts};

/// The object that says to whom a bucket belongs.
pub const MARKER: &str = "tsujiban.json";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    environment: EnvironmentName,
    master: KeyId,
}

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Bucket(#[from] UnsuitableBucket),
    #[error("the {what} belongs to environment {found}, and this is {own}; give each environment its own")]
    Environment { what: &'static str, found: EnvironmentName, own: EnvironmentName },
    #[error("the {what} needs master key {needed}, and {mounted} is mounted; bring the Secret tsujiban-master-key back from escrow")]
    MasterKey { what: &'static str, needed: KeyId, mounted: KeyId },
    #[error(
        "the bucket has snapshots, or the database was used before, but object {MARKER} is missing; mount the volume and name the bucket that belong together"
    )]
    NoMarker,
    #[error("the bucket has snapshots, but the key table's copy is missing from it and the database is new; bring the volume back")]
    NoKeyTable,
    #[error("object {MARKER} in the bucket cannot be read; restore its newest good version")]
    BadMarker,
    #[error("the storage cannot be used")]
    Store(#[from] StoreError),
    #[error("the database cannot be used")]
    Catalogue(#[from] CatalogueError),
    #[error("the keys or the catalogue cannot be brought up to date")]
    Recovery(#[from] Error),
}

impl StartError {
    /// Whether it may work in a moment, without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) | Self::Recovery(Error::Store(error)) => matches!(error, StoreError::Unreachable { .. }),
            Self::Catalogue(error) | Self::Recovery(Error::Catalogue(error)) => error.is_transient(),
            _ => false,
        }
    }
}

/// Checks everything, then makes the service. Nothing is written before everything was found to belong together. A database
/// that is older than the key table's copy in the bucket is brought up to date first.
pub async fn start(parts: Parts, allowed_regions: &[String]) -> Result<Arc<Backup>, StartError> {
    parts.store.facts().await?.must_suit(allowed_regions)?;
    let own = Marker { environment: parts.environment.clone(), master: parts.keyring.master_id() };
    let known = database_marker(&parts).await?;
    if let Some(known) = &known {
        known.must_equal(&own, "database")?;
    }
    let has_snapshots = !parts.store.list(object::PREFIX, None).await?.entries.is_empty();
    match bucket_marker(&*parts.store).await? {
        Some(marker) => marker.must_equal(&own, "bucket")?,
        None if known.is_some() || has_snapshots => return Err(StartError::NoMarker),
        None => {
            let text = serde_json::to_vec(&own).map_err(|_| StartError::BadMarker)?;
            parts.store.put(MARKER, Bytes::from(text), None).await?;
        }
    }
    if known.is_none() && has_snapshots && !has_key_table(&*parts.store).await? {
        return Err(StartError::NoKeyTable);
    }
    parts.catalogue.set_meta(Meta::Environment, own.environment.as_str()).await?;
    parts.catalogue.set_meta(Meta::MasterKey, own.master.as_str()).await?;
    let backup = Arc::new(Backup::new(parts));
    if backup.restore_key_table().await? || backup.catalogue.meta(Meta::RebuildDue).await?.is_some() {
        backup.rebuild().await?;
        backup.catalogue.clear_meta(Meta::RebuildDue).await?;
    }
    backup.copy_key_table().await?;
    Ok(backup)
}

impl Marker {
    fn must_equal(&self, own: &Self, what: &'static str) -> Result<(), StartError> {
        if self.environment != own.environment {
            return Err(StartError::Environment { what, found: self.environment.clone(), own: own.environment.clone() });
        }
        if self.master != own.master {
            return Err(StartError::MasterKey { what, needed: self.master.clone(), mounted: own.master.clone() });
        }
        Ok(())
    }
}

async fn database_marker(parts: &Parts) -> Result<Option<Marker>, StartError> {
    let (environment, master) = (parts.catalogue.meta(Meta::Environment).await?, parts.catalogue.meta(Meta::MasterKey).await?);
    let (Some(environment), Some(master)) = (environment, master) else { return Ok(None) };
    let corrupt = |column, value: &str| CatalogueError::Corrupt { column, value: value.to_owned() };
    Ok(Some(Marker {
        environment: environment.parse().map_err(|_| corrupt("environment", &environment))?,
        master: master.parse().map_err(|_| corrupt("master key", &master))?,
    }))
}

async fn bucket_marker(store: &dyn Objects) -> Result<Option<Marker>, StartError> {
    match store.get(MARKER, None).await {
        Ok(marker) => serde_json::from_slice(&marker).map(Some).map_err(|_| StartError::BadMarker),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn has_key_table(store: &dyn Objects) -> Result<bool, StartError> {
    match store.head(keytable::OBJECT, None).await {
        Ok(_) => Ok(true),
        Err(StoreError::NotFound { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
