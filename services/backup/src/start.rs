//! Checks that this service, database, bucket and these keys belong together; otherwise the service does not start: customer data of one
//! environment must never mix with another's (C12), and it stays in Japan (C21).

use std::sync::Arc;

use tsujiban_core::id::{EnvironmentName, KeyId};
use tsujiban_objects::{StoreError, UnsuitableBucket};

use crate::catalogue::{Catalogue, CatalogueError, Meta};
use crate::error::Error;
use crate::keytable::Found;
pub use crate::marker::MARKER;
use crate::marker::{self, Marker};
use crate::object;
use crate::rebuild::Reads;
use crate::service::{Backup, Parts};

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
        "the bucket has snapshots, or the database was used before, but object {MARKER} is missing; mount the volume and name the bucket that belong together; is the bucket lost, see docs/recovery.md"
    )]
    NoMarker,
    #[error(
        "object {MARKER} in the bucket is damaged, and nothing else says that the bucket is this service's: {0}; restore its newest good version"
    )]
    BadMarker(String),
    #[error("the storage cannot be used")]
    Store(#[from] StoreError),
    #[error("the database cannot be used")]
    Catalogue(#[from] CatalogueError),
    #[error("a metric is registered twice; this is a bug")]
    Metrics(#[from] prometheus::Error),
    #[error("the keys or the catalogue cannot be brought up to date")]
    Recovery(#[from] Error),
}

impl StartError {
    /// Whether a retry may succeed without anybody's intervention.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) | Self::Recovery(Error::Store(error)) => matches!(error, StoreError::Unreachable { .. }),
            Self::Catalogue(error) | Self::Recovery(Error::Catalogue(error)) => error.is_transient(),
            _ => false,
        }
    }
}

/// Checks everything, then makes the service. Nothing is written before the checks have passed. A database that is older than the key
/// table's copy in the bucket is brought up to date first. Damage does not prevent a start, not even when neither the database nor the copy
/// has the keys.
pub async fn start(parts: Parts, allowed_regions: &[String]) -> Result<Arc<Backup>, StartError> {
    parts.store.facts().await?.must_suit(allowed_regions)?;
    let backup = Arc::new(Backup::new(parts));
    backup.catalogue.database().make_room().await.map_err(CatalogueError::from)?;
    let own = backup.own_marker();
    let known = database_marker(&backup.catalogue).await?;
    if let Some(known) = &known {
        known.must_equal(&own, "database")?;
    }
    let has_snapshots = !backup.store.list(object::PREFIX, None).await?.entries.is_empty();
    let copy = backup.read_copy().await?;
    match marker::read(&*backup.store).await? {
        marker::Found::Marker(marker) => marker.must_equal(&own, "bucket")?,
        // the copy opens with an epoch key of this service, which proves as much as the marker
        lost if matches!(copy, Found::Read(_)) => {
            tracing::error!(
                ?lost,
                "the bucket's marker is missing or damaged, and its key table is this service's; the marker was put again"
            );
            own.write(&*backup.store).await?;
        }
        marker::Found::Damaged(detail) => return Err(StartError::BadMarker(detail)),
        marker::Found::Missing if known.is_some() || has_snapshots => return Err(StartError::NoMarker),
        marker::Found::Missing => own.write(&*backup.store).await?,
    }
    if known.is_none() {
        // before any key is taken from the bucket: a restored copy may hold keys that were destroyed on purpose
        backup.take_in_erasure_records().await?;
        if has_snapshots {
            recover_keys(&backup, copy).await?;
        }
    }
    backup.catalogue.set_meta(Meta::Environment, own.environment.as_str()).await?;
    backup.catalogue.set_meta(Meta::MasterKey, own.master.as_str()).await?;
    backup.compare_key_table().await?;
    // nothing is served while the database lacks devices: their next configs would be stored under new incarnations
    if backup.catalogue.meta(Meta::RebuildDue).await?.is_some() {
        backup.walk(Reads::Unknown).await?;
        backup.catalogue.clear_meta(Meta::RebuildDue).await?;
    }
    Ok(backup)
}

/// Recovers the keys when the database is new and the bucket is not. Without a usable copy of the key table the service begins without the
/// keys of before. A copy that needs an epoch key which is not mounted may have them: then the start fails until that epoch key is
/// restored.
async fn recover_keys(backup: &Backup, copy: Found) -> Result<(), StartError> {
    let why = match copy {
        Found::Read(_) => return Ok(()),
        Found::Unopened { error, .. } => return Err(StartError::Recovery(error.into())),
        Found::Missing => "is missing".to_owned(),
        Found::Damaged(detail) | Found::Foreign(detail) => format!("cannot be used ({detail})"),
    };
    match backup.salvage_copy().await? {
        Some(Found::Unopened { error, .. }) => Err(StartError::Recovery(error.into())),
        Some(_) => Ok(()),
        None => Ok(backup.begin_without_keys(&why).await?),
    }
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

async fn database_marker(catalogue: &Catalogue) -> Result<Option<Marker>, StartError> {
    let (environment, master) = (catalogue.meta(Meta::Environment).await?, catalogue.meta(Meta::MasterKey).await?);
    let (Some(environment), Some(master)) = (environment, master) else { return Ok(None) };
    let corrupt = |column, value: &str| CatalogueError::Corrupt { column, value: value.to_owned() };
    Ok(Some(Marker {
        environment: environment.parse().map_err(|_| corrupt("environment", &environment))?,
        master: master.parse().map_err(|_| corrupt("master key", &master))?,
    }))
}
