use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{BucketFacts, Cursor, Head, LockUntil, Objects, Page, StoreError, Version};
use crate::metrics::Metrics;

/// A storage whose answers are timed, and whose failures are counted.
pub struct Measured {
    inner: Arc<dyn Objects>,
    metrics: Metrics,
}

impl Measured {
    pub fn new(inner: Arc<dyn Objects>, metrics: Metrics) -> Self {
        Self { inner, metrics }
    }

    async fn measure<T>(&self, operation: &str, call: impl Future<Output = Result<T, StoreError>> + Send) -> Result<T, StoreError> {
        let timer = self.metrics.store_seconds.with_label_values(&[operation]).start_timer();
        let result = call.await;
        timer.observe_duration();
        // that something is not there is an answer
        if matches!(&result, Err(error) if !matches!(error, StoreError::NotFound { .. })) {
            self.metrics.store_errors.with_label_values(&[operation]).inc();
        }
        result
    }
}

#[async_trait]
impl Objects for Measured {
    async fn facts(&self) -> Result<BucketFacts, StoreError> {
        self.measure("facts", self.inner.facts()).await
    }

    async fn put(&self, key: &str, body: Bytes, lock: Option<LockUntil>) -> Result<Version, StoreError> {
        self.measure("put", self.inner.put(key, body, lock)).await
    }

    async fn head(&self, key: &str, version: Option<&Version>) -> Result<Head, StoreError> {
        self.measure("head", self.inner.head(key, version)).await
    }

    async fn get(&self, key: &str, version: Option<&Version>) -> Result<Bytes, StoreError> {
        self.measure("get", self.inner.get(key, version)).await
    }

    async fn set_lock(&self, key: &str, version: &Version, lock: LockUntil) -> Result<(), StoreError> {
        self.measure("lock", self.inner.set_lock(key, version, lock)).await
    }

    async fn list(&self, prefix: &str, from: Option<Cursor>) -> Result<Page, StoreError> {
        self.measure("list", self.inner.list(prefix, from)).await
    }

    async fn delete(&self, key: &str, version: &Version) -> Result<(), StoreError> {
        self.measure("delete", self.inner.delete(key, version)).await
    }
}
