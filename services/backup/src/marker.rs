//! The object that says which environment and master key a bucket belongs to.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tsujiban_core::id::{EnvironmentName, KeyId};
use tsujiban_objects::{Objects, StoreError};
use tsujiban_proto::error::Kind;

use crate::error::{Error, Result};
use crate::object::ObjectError;
use crate::service::Backup;

/// Its name.
pub const MARKER: &str = "tsujiban.json";

/// The environment and the master key that a bucket or database belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    pub environment: EnvironmentName,
    pub master: KeyId,
}

/// The marker of a bucket.
#[derive(Debug)]
pub enum Found {
    Missing,
    /// It exists, and is not what was stored.
    Damaged(String),
    Marker(Marker),
}

pub async fn read(store: &dyn Objects) -> Result<Found, StoreError> {
    match store.get(MARKER, None).await {
        Ok(marker) => Ok(serde_json::from_slice(&marker).map_or_else(|error| Found::Damaged(error.to_string()), Found::Marker)),
        Err(StoreError::NotFound { .. }) => Ok(Found::Missing),
        Err(StoreError::Damaged { detail, .. }) => Ok(Found::Damaged(detail)),
        Err(error) => Err(error),
    }
}

impl Marker {
    pub async fn write(&self, store: &dyn Objects) -> Result<()> {
        let text = serde_json::to_vec(self).map_err(|_| ObjectError::Contents("the bucket's marker cannot be written"))?;
        store.put(MARKER, Bytes::from(text), None).await?;
        Ok(())
    }
}

impl Backup {
    pub(crate) fn own_marker(&self) -> Marker {
        Marker { environment: self.environment.clone(), master: self.keyring.master_id() }
    }

    /// Fails when the bucket is another one than at the start, or was emptied: what such a bucket lacks must not change the catalogue.
    pub(crate) async fn check_marker(&self) -> Result<()> {
        let found = match read(&*self.store).await? {
            Found::Marker(marker) if marker == self.own_marker() => return Ok(()),
            Found::Marker(marker) => format!("it belongs to environment {} and master key {}", marker.environment, marker.master),
            Found::Missing => format!("object {MARKER} is missing from it: it was emptied, or is another one"),
            Found::Damaged(detail) => format!("object {MARKER} in it is damaged: {detail}"),
        };
        let message = format!(
            "the bucket is not the one of this service: {found}; nothing was changed; bring back what was there, or name the right bucket (docs/recovery.md)"
        );
        Err(Error::refuse(Kind::Precondition, "OTHER_BUCKET", message))
    }
}
