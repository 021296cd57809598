//! The canary passes on a storage that keeps its promise and fails on those that do not.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::SignedDuration;
use tsujiban_objects::testing::Gateway;
use tsujiban_objects::{BucketFacts, Cursor, Head, LockUntil, Memory, Objects, Page, StoreError, Version, list_all};

use crate::stage::{Stage, World};

/// C23: what passed is in the report, and old canaries do not pile up.
#[tokio::test]
async fn a_storage_that_keeps_its_promise_passes() {
    let stage = Stage::empty().await;
    assert!(stage.report().await.canary.is_none());
    for _ in 0..5 {
        assert_eq!(stage.backup.run_canary().await.unwrap().detail, "");
        assert!(stage.report().await.canary.unwrap().passed);
        stage.advance(SignedDuration::from_hours(24));
    }
    assert_eq!(list_all(&*stage.world.memory, "canary/").await.unwrap().len(), 1);
    let stage = stage.restart().await;
    assert!(stage.report().await.canary.unwrap().passed, "it outlives the process");
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    ForgetsLocks,
    DeletesLocked,
    ShortensLocks,
    KeepsUnlocked,
    Down,
}

/// A storage with a fault.
struct Faulty(Arc<Memory>, Fault);

#[async_trait]
impl Objects for Faulty {
    async fn facts(&self) -> Result<BucketFacts, StoreError> {
        self.0.facts().await
    }
    async fn put(&self, key: &str, body: Bytes, lock: Option<LockUntil>) -> Result<Version, StoreError> {
        self.0.put(key, body, lock.filter(|_| self.1 != Fault::ForgetsLocks)).await
    }
    async fn put_new(&self, key: &str, body: Bytes, lock: Option<LockUntil>) -> Result<Version, StoreError> {
        self.0.put_new(key, body, lock).await
    }
    async fn head(&self, key: &str, version: Option<&Version>) -> Result<Head, StoreError> {
        match self.0.head(key, version).await {
            Ok(head) if self.1 == Fault::DeletesLocked && head.lock.is_some() => Ok(head),
            head => head,
        }
    }
    async fn get(&self, key: &str, version: Option<&Version>) -> Result<Bytes, StoreError> {
        self.0.get(key, version).await
    }
    async fn set_lock(&self, key: &str, version: &Version, lock: LockUntil) -> Result<(), StoreError> {
        match self.0.set_lock(key, version, lock).await {
            Err(StoreError::Refused { .. }) if self.1 == Fault::ShortensLocks => Ok(()),
            result => result,
        }
    }
    async fn list(&self, prefix: &str, from: Option<Cursor>) -> Result<Page, StoreError> {
        self.0.list(prefix, from).await
    }
    async fn delete(&self, key: &str, version: &Version) -> Result<(), StoreError> {
        match self.1 {
            Fault::KeepsUnlocked if key.starts_with("canary/") => {
                Err(StoreError::Refused { what: "the deletion", key: key.into(), detail: "no right".into() })
            }
            Fault::DeletesLocked => self.0.delete(key, version).await.or(Ok(())),
            Fault::Down if key.starts_with("canary/") => {
                Err(StoreError::Unreachable { what: "the deletion", key: key.into(), detail: "no route".into() })
            }
            _ => self.0.delete(key, version).await,
        }
    }
}

/// C23: a storage that would lose snapshots is noticed, and the report says what to do.
#[tokio::test]
async fn each_fault_is_noticed_and_named() {
    for (fault, says) in [
        (Fault::ForgetsLocks, "instead of locked in COMPLIANCE mode"),
        (Fault::DeletesLocked, "deleted a locked object"),
        (Fault::ShortensLocks, "shortened a lock"),
        (Fault::KeepsUnlocked, "did not delete an unlocked object"),
        (Fault::Down, "could not be tried"),
    ] {
        let world = World::new();
        let (epoch, store) = (world.epoch(), Arc::new(Faulty(world.memory.clone(), fault)));
        let stage = world.try_start(vec![epoch], store).await.unwrap();
        let canary = stage.backup.run_canary().await.unwrap();
        assert!(!canary.passed && canary.detail.contains(says), "{}", canary.detail);
        assert_eq!(stage.report().await.canary.unwrap().detail, canary.detail);
    }
}

/// C23: the whole way on a real storage: stored, locked, canary passed, listed again after the loss of the database.
#[tokio::test]
async fn a_real_storage_passes_and_serves() {
    let gateway = Gateway::start().await;
    let store: Arc<dyn Objects> = Arc::new(gateway.bucket("real", true).await);
    let world = World::new();
    // the gateway's clock is the machine's
    let now = tsujiban_core::clock::Clock::now(&tsujiban_core::clock::SystemClock);
    world.clock.advance(now.duration_since(tsujiban_core::clock::Clock::now(&*world.clock)));
    let epoch = world.epoch();
    let stage = world.try_start(vec![epoch], store.clone()).await.unwrap();
    let canary = stage.backup.run_canary().await.unwrap();
    assert!(canary.passed, "{}", canary.detail);
    stage.prepare("acme").await.unwrap();
    let stored = stage.put("acme", "SN1", &crate::stage::config("one")).await.unwrap().snapshot.unwrap();
    stage.advance(SignedDuration::from_hours(1));
    assert!(!stage.put("acme", "SN1", &crate::stage::config("one")).await.unwrap().changed);
    let object = &list_all(&*store, "v1/").await.unwrap()[0];
    assert!(store.delete(&object.key, &object.version).await.is_err());

    let (mut world, epochs) = stage.stop().await;
    world.lose_database();
    let stage = world.try_start(epochs, store).await.unwrap();
    let listed = stage.list("acme", "SN1").await.unwrap();
    assert_eq!((listed[0].id.as_str(), listed[0].sightings), (stored.id.as_str(), 2));
    assert_eq!(stage.get(crate::stage::STAFF, "acme", &stored.id, true).await.unwrap(), crate::stage::config("one"));
    assert_eq!(stage.backup.sweep().await.unwrap(), 0);
}
