//! A bucket of which somebody has changed things behind the service's back: on the storage's own disk, where no lock holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use tsujiban_objects::{BucketFacts, Cursor, Entry, Head, LockUntil, Memory, Objects, Page, StoreError, Version, list_all};

pub struct Bucket {
    memory: Arc<Memory>,
    removed: Mutex<BTreeSet<String>>,
    changed: Mutex<BTreeMap<String, Bytes>>,
    marked: Mutex<BTreeSet<String>>,
    /// New objects whose names begin so are not taken.
    refused: Mutex<Option<String>>,
    /// Whether parts of the archive take some time to be read; how many are being read, and how many were at the same time at most.
    is_slow: AtomicBool,
    reading: AtomicUsize,
    most: AtomicUsize,
}

impl Bucket {
    pub fn new(memory: Arc<Memory>) -> Self {
        let (removed, changed, marked, refused) = (Mutex::default(), Mutex::default(), Mutex::default(), Mutex::default());
        let (is_slow, reading, most) = (AtomicBool::default(), AtomicUsize::default(), AtomicUsize::default());
        Self { memory, removed, changed, marked, refused, is_slow, reading, most }
    }

    pub async fn names(&self, prefix: &str) -> Vec<String> {
        list_all(self, prefix).await.unwrap().into_iter().filter(|entry| !entry.delete_marker).map(|entry| entry.key).collect()
    }

    pub fn remove(&self, key: &str) {
        self.removed.lock().unwrap().insert(key.to_owned());
    }

    pub fn bring_back(&self, key: &str) {
        self.removed.lock().unwrap().remove(key);
        self.changed.lock().unwrap().remove(key);
    }

    pub async fn remove_all(&self, prefix: &str) -> Vec<String> {
        let names = self.names(prefix).await;
        for name in &names {
            self.remove(name);
        }
        names
    }

    /// Other bytes in the place of an object, under the same version.
    pub fn change(&self, key: &str, bytes: &[u8]) {
        self.changed.lock().unwrap().insert(key.to_owned(), Bytes::copy_from_slice(bytes));
    }

    pub async fn flip_a_bit(&self, key: &str) {
        let mut bytes = self.get(key, None).await.unwrap().to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        self.change(key, &bytes);
    }

    /// A delete marker over the object.
    pub fn mark_deleted(&self, key: &str) {
        self.marked.lock().unwrap().insert(key.to_owned());
    }

    /// From now on parts take some time, and it is counted how many are read at the same time.
    pub fn slow_down(&self) {
        self.is_slow.store(true, Ordering::SeqCst);
    }

    pub fn most_at_once(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    pub fn refuse(&self, prefix: Option<&str>) {
        *self.refused.lock().unwrap() = prefix.map(str::to_owned);
    }

    fn is_removed(&self, key: &str) -> Result<(), StoreError> {
        if self.removed.lock().unwrap().contains(key) { Err(StoreError::NotFound { key: key.to_owned() }) } else { Ok(()) }
    }
}

#[async_trait]
impl Objects for Bucket {
    async fn facts(&self) -> Result<BucketFacts, StoreError> {
        self.memory.facts().await
    }

    async fn put(&self, key: &str, body: Bytes, lock: Option<LockUntil>) -> Result<Version, StoreError> {
        self.memory.put(key, body, lock).await
    }

    async fn put_new(&self, key: &str, body: Bytes, lock: Option<LockUntil>) -> Result<Version, StoreError> {
        if self.refused.lock().unwrap().as_ref().is_some_and(|prefix| key.starts_with(prefix)) {
            return Err(StoreError::Unreachable { what: "the storing", key: key.to_owned(), detail: "nothing answers".to_owned() });
        }
        self.memory.put_new(key, body, lock).await
    }

    async fn head(&self, key: &str, version: Option<&Version>) -> Result<Head, StoreError> {
        self.is_removed(key)?;
        self.memory.head(key, version).await
    }

    async fn get(&self, key: &str, version: Option<&Version>) -> Result<Bytes, StoreError> {
        if self.is_slow.load(Ordering::SeqCst) && key.starts_with("archive/") {
            let reading = self.reading.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(reading, Ordering::SeqCst);
            // the first ones take longest, so that they are not the first to be there
            let last = key.as_bytes().get("archive/000000000000".len() - 1).copied().unwrap_or(b'0');
            tokio::time::sleep(std::time::Duration::from_millis(60 - 6 * u64::from(last - b'0'))).await;
            self.reading.fetch_sub(1, Ordering::SeqCst);
        }
        self.is_removed(key)?;
        if version.is_none() && self.marked.lock().unwrap().contains(key) {
            return Err(StoreError::NotFound { key: key.to_owned() });
        }
        if let Some(bytes) = self.changed.lock().unwrap().get(key) {
            return Ok(bytes.clone());
        }
        self.memory.get(key, version).await
    }

    async fn set_lock(&self, key: &str, version: &Version, lock: LockUntil) -> Result<(), StoreError> {
        self.memory.set_lock(key, version, lock).await
    }

    async fn list(&self, prefix: &str, from: Option<Cursor>) -> Result<Page, StoreError> {
        let mut page = self.memory.list(prefix, from).await?;
        page.entries.retain(|entry| !self.removed.lock().unwrap().contains(&entry.key));
        let marked: Vec<String> = self.marked.lock().unwrap().iter().filter(|key| key.starts_with(prefix)).cloned().collect();
        for key in marked {
            if page.entries.iter().any(|entry| entry.key == key) {
                page.entries.push(Entry { key, version: Version("marker".into()), delete_marker: true });
            }
        }
        page.entries.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(page)
    }

    async fn delete(&self, key: &str, version: &Version) -> Result<(), StoreError> {
        self.memory.delete(key, version).await
    }
}
