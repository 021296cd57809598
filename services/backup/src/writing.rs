//! Whether this service can store configs: in its database, and in the storage. docs/recovery.md says what becomes of a service that cannot.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tsujiban_core::error::chain;
use tsujiban_database::{Class, why_unwritable};
use tsujiban_objects::{BucketFacts, Cursor, Head, LockUntil, Objects, Page, StoreError, Version};
use tsujiban_proto::error::ServiceError;
use tsujiban_service::writing::{Place, WriteState};

use crate::catalogue::CatalogueError;
use crate::error::{Error, Result, WAY_OUT};
use crate::service::Backup;

impl Backup {
    /// Tries to write to the database, and to the storage if that took nothing when it was last tried; or answers why the database fails.
    pub async fn try_write(&self) -> Result<(), String> {
        let written = self.catalogue.database().try_write(self.now().as_microsecond()).await;
        written.map_err(|error| why_unwritable(&error, WAY_OUT))?;
        if !self.writing.storage_works() {
            // what came of it is noted by the store itself
            let _ = self.try_put().await;
        }
        Ok(())
    }

    /// Whether the database holds together, by reading all of it; what was found is in the state of writing.
    pub async fn check_database(&self) -> Result<()> {
        let found = match self.catalogue.database().damage().await {
            Err(error) if Class::of(&error) == Class::Damaged => vec![error.to_string()],
            found => found.map_err(CatalogueError::from)?,
        };
        match found.first() {
            None => self.writing.works(Place::Integrity),
            Some(first) => {
                tracing::error!(found = found.len(), first, "the database is malformed");
                self.writing.fails(Place::Integrity, format!("the database is malformed ({first}): {WAY_OUT}"));
            }
        }
        Ok(())
    }

    /// Refuses a call that would have to write, before it puts an object that would be in no catalogue.
    pub(crate) fn check_writing(&self) -> Result<(), ServiceError> {
        if let Err(error) = self.catalogue.database().check_files() {
            self.writing.fails(Place::Database, why_unwritable(&error, WAY_OUT));
        }
        self.writing.check()
    }

    /// Notes that a call could not write, so that nobody has to wait for the next try.
    pub(crate) fn note_failure(&self, error: &Error) {
        if let Error::Catalogue(CatalogueError::Database(error)) = error
            && Class::of(error).is_of_the_database()
        {
            self.writing.fails(Place::Database, why_unwritable(error, WAY_OUT));
        }
    }
}

/// A storage that notes whether it takes objects.
pub(crate) struct Noted {
    inner: Arc<dyn Objects>,
    writing: WriteState,
}

impl Noted {
    pub fn new(inner: Arc<dyn Objects>, writing: WriteState) -> Self {
        Self { inner, writing }
    }

    fn note<T>(&self, put: Result<T, StoreError>) -> Result<T, StoreError> {
        match &put {
            Ok(_) => self.writing.works(Place::Storage),
            Err(error) => self.writing.fails(Place::Storage, format!("the storage took no object ({}); it is tried again", chain(error))),
        }
        put
    }
}

#[async_trait]
impl Objects for Noted {
    async fn facts(&self) -> Result<BucketFacts, StoreError> {
        self.inner.facts().await
    }
    async fn put(&self, key: &str, body: Bytes, lock: Option<LockUntil>) -> Result<Version, StoreError> {
        self.note(self.inner.put(key, body, lock).await)
    }
    async fn put_new(&self, key: &str, body: Bytes, lock: Option<LockUntil>) -> Result<Version, StoreError> {
        // that the object is there already is an answer, too
        self.inner.put_new(key, body, lock).await
    }
    async fn head(&self, key: &str, version: Option<&Version>) -> Result<Head, StoreError> {
        self.inner.head(key, version).await
    }
    async fn get(&self, key: &str, version: Option<&Version>) -> Result<Bytes, StoreError> {
        self.inner.get(key, version).await
    }
    async fn set_lock(&self, key: &str, version: &Version, lock: LockUntil) -> Result<(), StoreError> {
        self.inner.set_lock(key, version, lock).await
    }
    async fn list(&self, prefix: &str, from: Option<Cursor>) -> Result<Page, StoreError> {
        self.inner.list(prefix, from).await
    }
    async fn delete(&self, key: &str, version: &Version) -> Result<(), StoreError> {
        self.inner.delete(key, version).await
    }
}
