use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use super::{BucketFacts, Cursor, Head, LockUntil, Objects, Page, StoreError, Version};

const BUCKETS: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0];

/// What is measured of a storage, by `operation`.
#[derive(Debug, Clone)]
pub struct StoreMetrics {
    pub errors: IntCounterVec,
    pub seconds: HistogramVec,
}

impl StoreMetrics {
    /// Metrics whose names begin with this. Fails when the registry has them already.
    pub fn new(registry: &Registry, prefix: &str) -> Result<Self, prometheus::Error> {
        let errors = Opts::new(format!("{prefix}_store_errors_total"), "Calls that the object storage did not answer as asked.");
        let seconds = HistogramOpts::new(format!("{prefix}_store_seconds"), "How long the object storage took to answer.");
        let metrics = Self {
            errors: IntCounterVec::new(errors, &["operation"])?,
            seconds: HistogramVec::new(seconds.buckets(BUCKETS.to_vec()), &["operation"])?,
        };
        registry.register(Box::new(metrics.errors.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        Ok(metrics)
    }
}

/// A storage whose answers are timed, and whose failures are counted.
pub struct Measured {
    inner: Arc<dyn Objects>,
    metrics: StoreMetrics,
}

impl Measured {
    pub fn new(inner: Arc<dyn Objects>, metrics: StoreMetrics) -> Self {
        Self { inner, metrics }
    }

    async fn measure<T>(&self, operation: &str, call: impl Future<Output = Result<T, StoreError>> + Send) -> Result<T, StoreError> {
        let timer = self.metrics.seconds.with_label_values(&[operation]).start_timer();
        let result = call.await;
        timer.observe_duration();
        // a missing object, or one that exists already, is an answer and no failure
        let failed = |error: &StoreError| !matches!(error, StoreError::NotFound { .. } | StoreError::AlreadyExists { .. });
        if result.as_ref().err().is_some_and(failed) {
            self.metrics.errors.with_label_values(&[operation]).inc();
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

    async fn put_new(&self, key: &str, body: Bytes, lock: Option<LockUntil>) -> Result<Version, StoreError> {
        self.measure("put", self.inner.put_new(key, body, lock)).await
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
