//! The storage over the S3 API.

mod connect;

use std::error::Error;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{AggregatedBytes, ByteStream, DateTime};
use aws_sdk_s3::types::{ObjectLockEnabled, ObjectLockMode, ObjectLockRetention, ObjectLockRetentionMode};
use aws_smithy_checksums::body::validate::Error as Mismatch;
use bytes::Bytes;
use jiff::Timestamp;
use tsujiban_core::error::chain;

use super::{BucketFacts, Cursor, Entry, Head, Lock, LockUntil, Objects, Page, StoreError, Version};

pub use connect::{InvalidS3, S3Settings};

/// As `If-None-Match`: stores an object only if none of its name exists.
const ABSENT: &str = "*";

/// A bucket of an S3 storage.
#[derive(Debug, Clone)]
pub struct S3 {
    client: Client,
    bucket: String,
}

impl S3 {
    async fn store(&self, key: &str, body: Bytes, lock: Option<LockUntil>, only_if: Option<&str>) -> Result<Version, StoreError> {
        let step = step("the storing", key);
        let request = self.client.put_object().bucket(&self.bucket).key(key).body(ByteStream::from(body));
        let request = request.set_if_none_match(only_if.map(str::to_owned));
        let request = match lock {
            Some(lock) => request
                .object_lock_mode(ObjectLockMode::Compliance)
                .object_lock_retain_until_date(DateTime::from_secs(lock.time().as_second())),
            None => request,
        };
        let stored = request.send().await.map_err(|e| step.failed(&e))?;
        match stored.version_id() {
            Some(version) if version != "null" => Ok(Version(version.to_owned())),
            _ => Err(step.odd("the answer names no version; turn on versioning for the bucket")),
        }
    }
}

#[async_trait]
impl Objects for S3 {
    async fn facts(&self) -> Result<BucketFacts, StoreError> {
        let step = step("the facts", "the bucket");
        // a listing first: its errors have a text, those of a HEAD have none
        self.client.list_objects_v2().bucket(&self.bucket).max_keys(1).send().await.map_err(|e| step.failed(&e))?;
        let head = self.client.head_bucket().bucket(&self.bucket).send().await.map_err(|e| step.failed(&e))?;
        let region = match head.bucket_region() {
            Some(region) if !region.is_empty() => region.to_owned(),
            _ => return Err(step.odd("the answer names no region; use a storage that sends x-amz-bucket-region")),
        };
        let object_lock = match self.client.get_object_lock_configuration().bucket(&self.bucket).send().await {
            Ok(found) => found.object_lock_configuration().and_then(|c| c.object_lock_enabled()) == Some(&ObjectLockEnabled::Enabled),
            Err(error) if error.code() == Some("ObjectLockConfigurationNotFoundError") => false,
            Err(error) => return Err(step.failed(&error)),
        };
        Ok(BucketFacts { region, object_lock })
    }

    async fn put(&self, key: &str, body: Bytes, lock: Option<LockUntil>) -> Result<Version, StoreError> {
        self.store(key, body, lock, None).await
    }

    async fn put_new(&self, key: &str, body: Bytes, lock: Option<LockUntil>) -> Result<Version, StoreError> {
        self.store(key, body, lock, Some(ABSENT)).await
    }

    async fn head(&self, key: &str, version: Option<&Version>) -> Result<Head, StoreError> {
        let step = step("the look", key);
        let request = self.client.head_object().bucket(&self.bucket).key(key).set_version_id(version.map(|v| v.0.clone()));
        let head = request.send().await.map_err(|e| step.failed(&e))?;
        let lock = match (head.object_lock_mode(), head.object_lock_retain_until_date()) {
            (Some(mode), Some(until)) => {
                let until = Timestamp::new(until.secs(), 0).map_err(|_| step.odd("the end of the lock is out of range"))?;
                Some(Lock { compliance: *mode == ObjectLockMode::Compliance, until })
            }
            _ => None,
        };
        let bytes = head.content_length().and_then(|n| u64::try_from(n).ok()).ok_or_else(|| step.odd("the answer has no length"))?;
        match head.version_id().map(|v| Version(v.to_owned())).or_else(|| version.cloned()) {
            Some(version) => Ok(Head { version, bytes, lock }),
            None => Err(step.odd("the answer names no version")),
        }
    }

    async fn get(&self, key: &str, version: Option<&Version>) -> Result<Bytes, StoreError> {
        let step = step("the reading", key);
        let request = self.client.get_object().bucket(&self.bucket).key(key).set_version_id(version.map(|v| v.0.clone()));
        let found = request.send().await.map_err(|e| step.failed(&e))?;
        found.body.collect().await.map(AggregatedBytes::into_bytes).map_err(|error| step.unread(&error))
    }

    async fn set_lock(&self, key: &str, version: &Version, lock: LockUntil) -> Result<(), StoreError> {
        let retention = ObjectLockRetention::builder()
            .mode(ObjectLockRetentionMode::Compliance)
            .retain_until_date(DateTime::from_secs(lock.time().as_second()))
            .build();
        let request = self.client.put_object_retention().bucket(&self.bucket).key(key).version_id(&version.0).retention(retention);
        request.send().await.map(drop).map_err(|e| step("the locking", key).failed(&e))
    }

    async fn list(&self, prefix: &str, from: Option<Cursor>) -> Result<Page, StoreError> {
        let step = step("the listing", prefix);
        let (marker, last) = from.map_or((None, None), |from| (Some(from.key), from.version));
        let request = self.client.list_object_versions().bucket(&self.bucket).prefix(prefix);
        let request = request.set_key_marker(marker.clone()).set_version_id_marker(last.clone());
        let page = request.send().await.map_err(|e| step.failed(&e))?;
        let versions = page.versions().iter().map(|v| (v.key(), v.version_id(), false));
        let markers = page.delete_markers().iter().map(|m| (m.key(), m.version_id(), true));
        let mut entries = Vec::new();
        for (key, version, delete_marker) in versions.chain(markers) {
            let (Some(key), Some(version)) = (key, version) else { return Err(step.odd("an entry has no key or no version")) };
            // versitygw repeats the entry at which the page before ended
            if marker.as_deref() != Some(key) || last.as_deref() != Some(version) {
                entries.push(Entry { key: key.to_owned(), version: Version(version.to_owned()), delete_marker });
            }
        }
        // versions and markers come in two lists; together they are ordered by key
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        let next = match (page.is_truncated(), page.next_key_marker()) {
            (Some(true), Some(key)) => Some(Cursor { key: key.to_owned(), version: page.next_version_id_marker().map(str::to_owned) }),
            (Some(true), None) => return Err(step.odd("the listing is cut and does not say where to go on")),
            _ => None,
        };
        Ok(Page { entries, next })
    }

    async fn delete(&self, key: &str, version: &Version) -> Result<(), StoreError> {
        match self.client.delete_object().bucket(&self.bucket).key(key).version_id(&version.0).send().await {
            Ok(_) => Ok(()),
            Err(error) => match step("the deletion", key).failed(&error) {
                StoreError::NotFound { .. } => Ok(()),
                other => Err(other),
            },
        }
    }
}

/// What is being done to which object, for messages.
struct Step {
    what: &'static str,
    key: String,
}

fn step(what: &'static str, key: &str) -> Step {
    Step { what, key: key.to_owned() }
}

impl Step {
    fn odd(&self, detail: &str) -> StoreError {
        StoreError::Odd { what: self.what, key: self.key.clone(), detail: detail.to_owned() }
    }

    /// A body that came whole with another checksum than the storage keeps of it is damaged. Any other failure is the connection's.
    fn unread(self, error: &(dyn Error + 'static)) -> StoreError {
        let detail = chain(error);
        let differs = std::iter::successors(Some(error), |&error| error.source()).any(<dyn Error>::is::<Mismatch>);
        if differs {
            StoreError::Damaged { key: self.key, detail }
        } else {
            StoreError::Unreachable { what: self.what, key: self.key, detail }
        }
    }

    /// Told apart by status, since a HEAD's errors have no code: a 4xx is an answer that will be the same again; everything
    /// else may pass.
    fn failed<E>(&self, error: &SdkError<E>) -> StoreError
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let (what, key) = (self.what, self.key.clone());
        let status = error.raw_response().map(|response| response.status().as_u16());
        let named = error.code().zip(error.message()).map(|(code, message)| format!("{code}: {message}"));
        match status {
            Some(404) => StoreError::NotFound { key },
            Some(412) => StoreError::AlreadyExists { key },
            // 409: AWS has not decided yet which of several concurrent new objects of a name it keeps
            Some(status @ 400..500) if ![408, 409, 429].contains(&status) => {
                let detail = named.unwrap_or_else(|| format!("status {status}; check the credentials and the region"));
                StoreError::Refused { what, key, detail }
            }
            _ => StoreError::Unreachable { what, key, detail: named.unwrap_or_else(|| chain(error)) },
        }
    }
}
