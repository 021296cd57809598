//! A storage that calls a hook after each put.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{BucketFacts, Cursor, Head, LockUntil, Objects, Page, StoreError, Version};

/// What is done when an object was put, or could not be.
#[async_trait]
pub trait AfterPut: Send + Sync + 'static {
    /// Gets the storage's answer and gives the one that the caller gets.
    async fn after_put(&self, key: &str, lock: Option<LockUntil>, put: Result<Version, StoreError>) -> Result<Version, StoreError>;
}

/// Forwards every call to another storage, and passes the result of each [`put`](Objects::put) to a hook.
pub struct Hooked<H> {
    inner: Arc<dyn Objects>,
    pub hook: H,
}

impl<H> Hooked<H> {
    pub fn new(inner: Arc<dyn Objects>, hook: H) -> Self {
        Self { inner, hook }
    }
}

#[async_trait]
impl<H: AfterPut> Objects for Hooked<H> {
    async fn facts(&self) -> Result<BucketFacts, StoreError> {
        self.inner.facts().await
    }
    async fn put(&self, key: &str, body: Bytes, lock: Option<LockUntil>) -> Result<Version, StoreError> {
        self.hook.after_put(key, lock, self.inner.put(key, body, lock).await).await
    }
    async fn put_new(&self, key: &str, body: Bytes, lock: Option<LockUntil>) -> Result<Version, StoreError> {
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
