//! The object storage, with only the operations that services need. [`S3`] talks to a real storage. [`Memory`] keeps objects in the process, and
//! its locks end by a [`Clock`](tsujiban_core::clock::Clock). Both pass the same contract tests.

mod args;
mod hooked;
mod measured;
mod memory;
mod s3;
#[cfg(feature = "testing")]
pub mod testing;

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::{Timestamp, Unit};

pub use args::S3Args;
pub use hooked::{AfterPut, Hooked};
pub use measured::{Measured, StoreMetrics};
pub use memory::Memory;
pub use s3::{InvalidS3, S3, S3Settings};

/// Objects with versions, in a bucket with Object Lock.
#[async_trait]
pub trait Objects: Send + Sync + 'static {
    /// The region of the bucket, and whether it has Object Lock. Called once, at start.
    async fn facts(&self) -> Result<BucketFacts, StoreError>;

    /// Stores an object and answers its version when the storage has confirmed it. With a lock, nobody can delete the version
    /// before that time (COMPLIANCE).
    async fn put(&self, key: &str, body: Bytes, lock: Option<LockUntil>) -> Result<Version, StoreError>;

    /// The same, if there is no object of this name; else fails with [`StoreError::AlreadyExists`]. Of several that try at the same time
    /// one succeeds. When an answer is lost, the object that already exists may be the one that was to be stored.
    async fn put_new(&self, key: &str, body: Bytes, lock: Option<LockUntil>) -> Result<Version, StoreError>;

    /// What the storage knows of a version; of the newest one for `None`.
    async fn head(&self, key: &str, version: Option<&Version>) -> Result<Head, StoreError>;

    /// The bytes of a version; of the newest one for `None`.
    async fn get(&self, key: &str, version: Option<&Version>) -> Result<Bytes, StoreError>;

    /// Moves the end of a version's lock. The storage refuses to move it to an earlier time.
    async fn set_lock(&self, key: &str, version: &Version, lock: LockUntil) -> Result<(), StoreError>;

    /// The versions and delete markers of all keys with a prefix, ordered by key, a page at a time.
    async fn list(&self, prefix: &str, from: Option<Cursor>) -> Result<Page, StoreError>;

    /// Deletes a version for good. Refused while it is locked; a version that is not there counts as deleted.
    async fn delete(&self, key: &str, version: &Version) -> Result<(), StoreError>;
}

/// Names one version of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub String);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The end of a lock, in whole seconds: not every storage keeps more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockUntil(Timestamp);

impl LockUntil {
    /// Rounded up, so that a lock never ends early.
    pub fn at_least(time: Timestamp) -> Self {
        let round = jiff::TimestampRound::new().smallest(Unit::Second).mode(jiff::RoundMode::Ceil);
        Self(time.round(round).unwrap_or(time))
    }

    pub fn time(self) -> Timestamp {
        self.0
    }
}

/// What a bucket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketFacts {
    pub region: String,
    pub object_lock: bool,
}

/// Why a bucket may not hold customer data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsuitableBucket {
    #[error("the bucket is in region {region}, and customer data may only be kept in {allowed}; use a bucket there")]
    Region { region: String, allowed: String },
    #[error(
        "the bucket has no Object Lock, so nothing in it can be kept safe; make a bucket with Object Lock turned on, it cannot be added later"
    )]
    NoObjectLock,
}

impl BucketFacts {
    /// Whether customer data may be kept there: in Japan (C21), and where locks hold.
    pub fn must_suit(&self, allowed_regions: &[String]) -> Result<(), UnsuitableBucket> {
        if !allowed_regions.contains(&self.region) {
            return Err(UnsuitableBucket::Region { region: self.region.clone(), allowed: allowed_regions.join(", ") });
        }
        if self.object_lock { Ok(()) } else { Err(UnsuitableBucket::NoObjectLock) }
    }
}

/// What the storage knows of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub version: Version,
    pub bytes: u64,
    pub lock: Option<Lock>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lock {
    /// Whether even the account's owner cannot lift it.
    pub compliance: bool,
    pub until: Timestamp,
}

/// Where the next page of a listing begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    pub key: String,
    pub version: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    pub entries: Vec<Entry>,
    pub next: Option<Cursor>,
}

/// A version in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub version: Version,
    /// A delete marker holds nothing; it only hides the versions below it.
    pub delete_marker: bool,
}

/// Why the storage did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("the storage has no object {key}")]
    NotFound { key: String },
    #[error("the storage has an object {key} already")]
    AlreadyExists { key: String },
    /// The bytes are not what was stored, and a retry gets the same. A body that was cut on its way is [`StoreError::Unreachable`].
    #[error("object {key} is damaged: {detail}")]
    Damaged { key: String, detail: String },
    #[error("the storage refused {what} of {key}: {detail}")]
    Refused { what: &'static str, key: String, detail: String },
    #[error("the storage cannot be reached for {what} of {key}: {detail}")]
    Unreachable { what: &'static str, key: String, detail: String },
    #[error("the storage answered {what} of {key} with something that is not understood: {detail}")]
    Odd { what: &'static str, key: String, detail: String },
}

/// All entries with a prefix, for listings that are known to be short.
pub async fn list_all(store: &dyn Objects, prefix: &str) -> Result<Vec<Entry>, StoreError> {
    let (mut entries, mut from) = (Vec::new(), None);
    loop {
        let page = store.list(prefix, from).await?;
        entries.extend(page.entries);
        from = page.next;
        if from.is_none() {
            return Ok(entries);
        }
    }
}
