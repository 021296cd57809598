mod damage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tsujiban_core::clock::Clock;

use super::{BucketFacts, Cursor, Entry, Head, Lock, LockUntil, Objects, Page, StoreError, Version};

const PAGE: usize = 1000;

/// A bucket in memory. Its locks hold exactly as long as its clock says, so that a test passes 40 days in a second.
pub struct Memory {
    clock: Arc<dyn Clock>,
    facts: BucketFacts,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By key, versions from old to new.
    objects: BTreeMap<String, Vec<Stored>>,
    last_version: u64,
    outage: Option<String>,
    /// Objects that cannot be read while all others can.
    broken: BTreeSet<String>,
    /// Behaves as a storage without checksums: it returns damaged bodies.
    without_checksums: bool,
}

#[derive(Clone)]
struct Stored {
    version: Version,
    body: Bytes,
    lock: Option<LockUntil>,
    /// Whether the body is not the one that was stored.
    damaged: bool,
}

impl Memory {
    pub fn new(clock: Arc<dyn Clock>, region: &str) -> Self {
        Self { clock, facts: BucketFacts { region: region.to_owned(), object_lock: true }, state: Mutex::default() }
    }

    /// A bucket that was made without Object Lock.
    #[must_use]
    pub fn without_object_lock(mut self) -> Self {
        self.facts.object_lock = false;
        self
    }

    /// Makes every call fail as unreachable from now on; `None` ends that.
    pub fn set_outage(&self, reason: Option<&str>) {
        self.state().outage = reason.map(str::to_owned);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reach(&self, what: &'static str, key: &str) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = self.state();
        match &state.outage {
            Some(detail) => Err(StoreError::Unreachable { what, key: key.to_owned(), detail: detail.clone() }),
            None => Ok(state),
        }
    }

    fn store(&self, key: &str, body: Bytes, lock: Option<LockUntil>, new: bool) -> Result<Version, StoreError> {
        let now = self.clock.now();
        let mut state = self.reach("the storing", key)?;
        if new && state.objects.contains_key(key) {
            return Err(StoreError::AlreadyExists { key: key.to_owned() });
        }
        if lock.is_some_and(|lock| lock.time() <= now || !self.facts.object_lock) {
            let detail = "a lock needs a bucket with Object Lock and a time in the future".to_owned();
            return Err(StoreError::Refused { what: "the storing", key: key.to_owned(), detail });
        }
        state.last_version += 1;
        let version = Version(format!("{:016}", state.last_version));
        state.objects.entry(key.to_owned()).or_default().push(Stored { version: version.clone(), body, lock, damaged: false });
        Ok(version)
    }
}

impl State {
    fn find(&mut self, key: &str, version: Option<&Version>) -> Result<&mut Stored, StoreError> {
        if self.broken.contains(key) {
            let detail = "InternalError".to_owned();
            return Err(StoreError::Unreachable { what: "the reading", key: key.to_owned(), detail });
        }
        let versions = self.objects.get_mut(key).map(Vec::as_mut_slice).unwrap_or_default();
        let found = match version {
            Some(version) => versions.iter_mut().find(|stored| stored.version == *version),
            None => versions.last_mut(),
        };
        found.ok_or_else(|| StoreError::NotFound { key: key.to_owned() })
    }
}

#[async_trait]
impl Objects for Memory {
    async fn facts(&self) -> Result<BucketFacts, StoreError> {
        self.reach("the facts", "the bucket").map(|_| self.facts.clone())
    }

    async fn put(&self, key: &str, body: Bytes, lock: Option<LockUntil>) -> Result<Version, StoreError> {
        self.store(key, body, lock, false)
    }

    async fn put_new(&self, key: &str, body: Bytes, lock: Option<LockUntil>) -> Result<Version, StoreError> {
        self.store(key, body, lock, true)
    }

    async fn head(&self, key: &str, version: Option<&Version>) -> Result<Head, StoreError> {
        let mut state = self.reach("the look", key)?;
        let stored = state.find(key, version)?;
        let bytes = u64::try_from(stored.body.len()).unwrap_or(u64::MAX);
        let lock = stored.lock.map(|lock| Lock { compliance: true, until: lock.time() });
        Ok(Head { version: stored.version.clone(), bytes, lock })
    }

    async fn get(&self, key: &str, version: Option<&Version>) -> Result<Bytes, StoreError> {
        let mut state = self.reach("the reading", key)?;
        let without_checksums = state.without_checksums;
        let stored = state.find(key, version)?;
        if stored.damaged && !without_checksums {
            return Err(StoreError::Damaged { key: key.to_owned(), detail: "it has another checksum than when it was stored".to_owned() });
        }
        Ok(stored.body.clone())
    }

    async fn set_lock(&self, key: &str, version: &Version, lock: LockUntil) -> Result<(), StoreError> {
        let now = self.clock.now();
        let mut state = self.reach("the locking", key)?;
        let stored = state.find(key, Some(version))?;
        let shorter = stored.lock.is_some_and(|old| old.time() > now && lock < old);
        if shorter || lock.time() <= now {
            let detail = "the version is locked for longer, or the time is past".to_owned();
            return Err(StoreError::Refused { what: "the locking", key: key.to_owned(), detail });
        }
        stored.lock = Some(lock);
        Ok(())
    }

    async fn list(&self, prefix: &str, from: Option<Cursor>) -> Result<Page, StoreError> {
        let state = self.reach("the listing", prefix)?;
        let after = |key: &String| from.as_ref().is_none_or(|from| *key > from.key);
        let mut page = Page::default();
        for (key, versions) in state.objects.iter().filter(|(key, _)| key.starts_with(prefix) && after(key)) {
            page.entries.extend(versions.iter().rev().map(|stored| Entry {
                key: key.clone(),
                version: stored.version.clone(),
                delete_marker: false,
            }));
            if page.entries.len() >= PAGE {
                page.next = Some(Cursor { key: key.clone(), version: None });
                break;
            }
        }
        Ok(page)
    }

    async fn delete(&self, key: &str, version: &Version) -> Result<(), StoreError> {
        let now = self.clock.now();
        let mut state = self.reach("the deletion", key)?;
        let Some(versions) = state.objects.get_mut(key) else { return Ok(()) };
        if versions.iter().any(|stored| stored.version == *version && stored.lock.is_some_and(|lock| lock.time() > now)) {
            let detail = "the version is locked".to_owned();
            return Err(StoreError::Refused { what: "the deletion", key: key.to_owned(), detail });
        }
        versions.retain(|stored| stored.version != *version);
        if versions.is_empty() {
            state.objects.remove(key);
        }
        Ok(())
    }
}
