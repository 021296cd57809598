//! Tests with the service's own credentials that the storage keeps locked objects and deletes unlocked ones (C23).

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tsujiban_core::error::chain;
use tsujiban_objects::{LockUntil, StoreError, Version, list_all};

use crate::catalogue::Meta;
use crate::error::{Error, Result};
use crate::metrics;
use crate::service::Backup;

const PREFIX: &str = "canary/";
const LOCK: SignedDuration = SignedDuration::from_hours(24);
const SHORTER: SignedDuration = SignedDuration::from_hours(1);

/// What the newest canary found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    pub checked_at: Timestamp,
    pub passed: bool,
    /// What went wrong, and what to do.
    pub detail: String,
}

/// Why the canary failed.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the canary could not be tried: {0}; it is tried again within the hour")]
    Store(#[from] StoreError),
    #[error(
        "the storage says that a locked object is {found} instead of locked in COMPLIANCE mode until {until}; use a bucket with Object Lock"
    )]
    WrongLock { found: String, until: Timestamp },
    #[error("the storage deleted a locked object; snapshots are not safe there, move to a storage that keeps Object Lock")]
    Deleted,
    #[error("the storage shortened a lock in COMPLIANCE mode; snapshots are not safe there, move to a storage that keeps Object Lock")]
    Shortened,
    #[error("the storage did not delete an unlocked object; allow s3:DeleteObjectVersion, else nothing ever expires")]
    NotDeleted,
}

impl Backup {
    /// Runs the canary and records its result in metrics, log and database.
    pub async fn run_canary(&self) -> Result<Canary> {
        let checked_at = self.now();
        let tried = self.try_storage(checked_at).await;
        let detail = tried.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let canary = Canary { checked_at, passed: tried.is_ok(), detail };
        self.metrics.canary_ok.set(i64::from(canary.passed));
        self.metrics.canary_checked.set(metrics::seconds(checked_at));
        if canary.passed {
            tracing::info!("canary: the storage keeps locked objects and deletes unlocked ones");
        } else {
            tracing::error!(detail = canary.detail, "canary: the storage does not keep its promise");
        }
        let text = serde_json::to_string(&canary).map_err(|_| crate::object::ObjectError::Contents("the canary cannot be written"))?;
        self.catalogue.set_meta(Meta::Canary, &text).await?;
        Ok(canary)
    }

    /// What the newest canary found; `None` before the first one.
    pub async fn canary(&self) -> Result<Option<Canary>> {
        Ok(self.catalogue.meta(Meta::Canary).await?.and_then(|text| serde_json::from_str(&text).ok()))
    }

    async fn try_storage(&self, now: Timestamp) -> Result<(), Broken> {
        self.clean_up(now).await?;
        let name = hex::encode(self.random_id().map_err(|error| odd(&error))?);
        self.try_locked(&format!("{PREFIX}{name}-locked"), now).await?;
        self.try_unlocked(&format!("{PREFIX}{name}-unlocked")).await
    }

    /// Puts an unlocked object and deletes it at once, to check that the storage accepts objects.
    pub(crate) async fn try_put(&self) -> Result<()> {
        let key = format!("{PREFIX}{}-put", hex::encode(self.random_id()?));
        let version = self.store.put(&key, Bytes::from_static(b"unlocked"), None).await?;
        Ok(self.store.delete(&key, &version).await?)
    }

    async fn try_locked(&self, key: &str, now: Timestamp) -> Result<(), Broken> {
        let lock = LockUntil::at_least(now + LOCK);
        let version = self.store.put(key, Bytes::from_static(b"locked"), Some(lock)).await?;
        self.check_lock_of(key, &version, lock).await?;
        // a refusal does not tell its cause (lock or missing right), so the lock is read again at the end
        match self.store.delete(key, &version).await {
            Err(StoreError::Refused { .. }) => {}
            Err(error) => return Err(error.into()),
            Ok(()) => return Err(Broken::Deleted),
        }
        match self.store.set_lock(key, &version, LockUntil::at_least(now + SHORTER)).await {
            Err(StoreError::Refused { .. }) => {}
            Err(error) => return Err(error.into()),
            Ok(()) => return Err(Broken::Shortened),
        }
        self.check_lock_of(key, &version, lock).await
    }

    async fn check_lock_of(&self, key: &str, version: &Version, lock: LockUntil) -> Result<(), Broken> {
        let head = match self.store.head(key, Some(version)).await {
            Err(StoreError::NotFound { .. }) => return Err(Broken::Deleted),
            head => head?,
        };
        match head.lock {
            Some(found) if found.compliance && found.until == lock.time() => Ok(()),
            found => Err(Broken::WrongLock { found: format!("{found:?}"), until: lock.time() }),
        }
    }

    async fn try_unlocked(&self, key: &str) -> Result<(), Broken> {
        let version = self.store.put(key, Bytes::from_static(b"unlocked"), None).await?;
        match self.store.delete(key, &version).await {
            Err(StoreError::Refused { .. }) => return Err(Broken::NotDeleted),
            deleted => deleted?,
        }
        match self.store.head(key, Some(&version)).await {
            Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => Err(Broken::NotDeleted),
        }
    }

    /// Deletes earlier canaries whose lock has run out.
    async fn clean_up(&self, now: Timestamp) -> Result<(), Broken> {
        for entry in list_all(&*self.store, PREFIX).await? {
            let locked = match self.store.head(&entry.key, Some(&entry.version)).await {
                Ok(head) => head.lock.is_some_and(|lock| lock.until > now),
                Err(StoreError::NotFound { .. }) => false,
                // HEAD of a delete marker fails
                Err(_) if entry.delete_marker => false,
                Err(error) => return Err(error.into()),
            };
            if !locked {
                self.store.delete(&entry.key, &entry.version).await?;
            }
        }
        Ok(())
    }
}

fn odd(error: &Error) -> StoreError {
    StoreError::Odd { what: "the canary", key: PREFIX.to_owned(), detail: chain(error) }
}
