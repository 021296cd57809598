//! What every storage has to do, tried on the one in memory and on a real S3 gateway.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;
use tsujiban_core::clock::{Clock, ManualClock, SystemClock};
use tsujiban_objects::testing::{Gateway, REGION};
use tsujiban_objects::{Lock, LockUntil, Memory, Objects, StoreError, list_all};

/// A storage and its clock.
struct Subject {
    store: Arc<dyn Objects>,
    clock: Arc<dyn Clock>,
    manual: Option<Arc<ManualClock>>,
}

impl Subject {
    fn memory() -> Self {
        let clock = Arc::new(ManualClock::new("2026-11-23T00:00:00Z".parse().unwrap()));
        Self { store: Arc::new(Memory::new(clock.clone(), REGION)), clock: clock.clone(), manual: Some(clock) }
    }

    async fn s3(gateway: &Gateway, bucket: &str) -> Self {
        Self { store: Arc::new(gateway.bucket(bucket, true).await), clock: Arc::new(SystemClock), manual: None }
    }

    fn in_(&self, seconds: i64) -> LockUntil {
        LockUntil::at_least(self.clock.now() + SignedDuration::from_secs(seconds))
    }

    /// The gateway's clock is the machine's and cannot be moved, so there the time is waited for.
    async fn pass(&self, lock: LockUntil) {
        match &self.manual {
            Some(clock) => clock.advance(lock.time().duration_since(clock.now())),
            None => {
                while self.clock.now() <= lock.time() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn contract(subject: &Subject) {
    objects_come_back(subject).await;
    versions_stay_apart(subject).await;
    what_is_new_is_stored_once(subject).await;
    a_locked_version_stays(subject).await;
    listings_are_whole_and_ordered(subject).await;
    what_is_missing_is_missing(subject).await;
}

async fn objects_come_back(subject: &Subject) {
    let store = &subject.store;
    let body = Bytes::from(vec![7; 300_000]);
    let version = store.put("v1/whole", body.clone(), None).await.unwrap();
    assert_eq!(store.get("v1/whole", Some(&version)).await.unwrap(), body);
    let head = store.head("v1/whole", None).await.unwrap();
    assert_eq!((head.version, head.bytes, head.lock), (version, 300_000, None));
    let facts = store.facts().await.unwrap();
    assert_eq!((facts.region.as_str(), facts.object_lock), (REGION, true));
}

async fn versions_stay_apart(subject: &Subject) {
    let store = &subject.store;
    let old = store.put("twice", Bytes::from_static(b"old"), None).await.unwrap();
    let new = store.put("twice", Bytes::from_static(b"new"), None).await.unwrap();
    assert_ne!(old, new);
    assert_eq!(store.get("twice", None).await.unwrap(), "new");
    assert_eq!(store.get("twice", Some(&old)).await.unwrap(), "old");
    store.delete("twice", &new).await.unwrap();
    assert_eq!(store.get("twice", None).await.unwrap(), "old");
    store.delete("twice", &old).await.unwrap();
    assert!(list_all(&**store, "twice").await.unwrap().is_empty());
}

async fn what_is_new_is_stored_once(subject: &Subject) {
    let store = &subject.store;
    let mut tasks = JoinSet::new();
    for n in 0..20 {
        let (store, lock) = (store.clone(), subject.in_(2));
        tasks.spawn(async move { store.put_new("new/1", Bytes::from(format!("{n}")), Some(lock)).await.map(|version| (n, version)) });
    }
    let (mut stored, mut refused) = (Vec::new(), 0);
    for result in tasks.join_all().await {
        match result {
            Ok(new) => stored.push(new),
            Err(StoreError::AlreadyExists { key }) if key == "new/1" => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((stored.len(), refused), (1, 19));
    let (n, version) = stored.remove(0);
    assert_eq!(store.get("new/1", None).await.unwrap(), format!("{n}"));
    let head = store.head("new/1", None).await.unwrap();
    assert!(head.version == version && head.lock.is_some_and(|lock| lock.compliance));
    assert_eq!(list_all(&**store, "new/").await.unwrap().len(), 1, "nothing lies below it");

    // once it has gone, the name is free again
    let gone = store.put_new("new/2", Bytes::from_static(b"x"), None).await.unwrap();
    assert!(matches!(store.put_new("new/2", Bytes::from_static(b"y"), None).await, Err(StoreError::AlreadyExists { .. })));
    store.delete("new/2", &gone).await.unwrap();
    store.put_new("new/2", Bytes::from_static(b"z"), None).await.unwrap();
}

/// C23: a lock can be prolonged, and nothing else, until it has run out; then the version can go.
async fn a_locked_version_stays(subject: &Subject) {
    let (store, first, longer) = (&subject.store, subject.in_(3), subject.in_(5));
    let version = store.put("locked", Bytes::from_static(b"kept"), Some(first)).await.unwrap();
    let locked_until = |until: Timestamp| Some(Lock { compliance: true, until });
    assert_eq!(store.head("locked", Some(&version)).await.unwrap().lock, locked_until(first.time()));
    let refused = |result: Result<(), StoreError>| matches!(result, Err(StoreError::Refused { .. }));
    assert!(refused(store.delete("locked", &version).await));
    store.set_lock("locked", &version, longer).await.unwrap();
    assert!(refused(store.set_lock("locked", &version, first).await));
    assert_eq!(store.head("locked", Some(&version)).await.unwrap().lock, locked_until(longer.time()));
    // a newer version neither frees nor hides it
    let newer = store.put("locked", Bytes::from_static(b"newer"), None).await.unwrap();
    assert!(refused(store.delete("locked", &version).await));
    store.delete("locked", &newer).await.unwrap();
    assert_eq!(store.get("locked", Some(&version)).await.unwrap(), "kept");
    assert!(matches!(
        store.put("past", Bytes::new(), Some(LockUntil::at_least(Timestamp::UNIX_EPOCH))).await,
        Err(StoreError::Refused { .. })
    ));

    subject.pass(longer).await;
    store.delete("locked", &version).await.unwrap();
    assert!(matches!(store.head("locked", Some(&version)).await, Err(StoreError::NotFound { .. })));
    assert!(list_all(&**store, "locked").await.unwrap().is_empty());
}

async fn listings_are_whole_and_ordered(subject: &Subject) {
    let store = &subject.store;
    let mut put = Vec::new();
    for n in 0..1005 {
        let key = format!("many/{:02}/{n:04}", n % 7);
        put.push((key.clone(), store.put(&key, Bytes::from_static(b"x"), None).await.unwrap()));
    }
    put.sort();
    let listed = list_all(&**store, "many/").await.unwrap();
    assert!(listed.iter().all(|entry| !entry.delete_marker));
    assert_eq!(listed.into_iter().map(|entry| (entry.key, entry.version)).collect::<Vec<_>>(), put);
}

async fn what_is_missing_is_missing(subject: &Subject) {
    let store = &subject.store;
    assert!(matches!(store.get("nothing", None).await, Err(StoreError::NotFound { .. })));
    assert!(matches!(store.head("nothing", None).await, Err(StoreError::NotFound { .. })));
    let version = store.put("deleted", Bytes::from_static(b"x"), None).await.unwrap();
    store.delete("deleted", &version).await.unwrap();
    store.delete("deleted", &version).await.unwrap();
    assert!(matches!(store.get("deleted", Some(&version)).await, Err(StoreError::NotFound { .. })));
    assert!(matches!(store.set_lock("deleted", &version, subject.in_(60)).await, Err(StoreError::NotFound { .. })));
    assert!(store.list("nothing", None).await.unwrap().entries.is_empty());
}

#[tokio::test]
async fn the_storage_in_memory_keeps_the_contract() {
    contract(&Subject::memory()).await;
}

#[tokio::test]
async fn a_real_storage_keeps_the_contract() {
    let gateway = Gateway::start().await;
    contract(&Subject::s3(&gateway, "contract").await).await;
}

#[tokio::test]
async fn a_storage_that_is_not_there_is_unreachable() {
    let gateway = Gateway::start().await;
    let store = gateway.bucket("gone", true).await;
    drop(gateway);
    assert!(matches!(store.get("x", None).await, Err(StoreError::Unreachable { .. })));
}
