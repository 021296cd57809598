//! The storage fails, or the service dies between the storage and its catalogue: nothing is reported stored that is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use jiff::SignedDuration;
use tonic::Code;
use tsujiban_objects::{AfterPut, Hooked, LockUntil, Objects as _, StoreError, Version, list_all};
use tsujiban_proto::backup::v1::Reason;

use crate::stage::{STAFF, Stage, World, config};

#[tokio::test]
async fn nothing_is_listed_while_the_storage_is_down_and_it_catches_up() {
    let stage = Stage::prepared().await;
    stage.world.memory.set_outage(Some("no route"));
    let refused = stage.put("acme", "SN1", &config("one")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("no route"), "{}", refused.message());
    assert!(stage.list("acme", "").await.unwrap().is_empty());
    let attempts = stage.attempts(0).await;
    assert_eq!((attempts[0].reason(), attempts[0].newest.as_ref()), (Reason::Store, None));
    stage.world.memory.set_outage(None);
    assert!(stage.put("acme", "SN1", &config("one")).await.unwrap().changed);

    // a sighting is no sighting either before the storage has prolonged the lock
    let seen_at = stage.list("acme", "").await.unwrap()[0].seen_at;
    stage.advance(SignedDuration::from_hours(24));
    stage.world.memory.set_outage(Some("no route"));
    assert_eq!(stage.put("acme", "SN1", &config("one")).await.unwrap_err().code(), Code::Unavailable);
    let listed = stage.list("acme", "").await.unwrap();
    assert_eq!((listed[0].seen_at, listed[0].sightings), (seen_at, 1));
    assert_eq!(stage.attempts(0).await[0].reason(), Reason::Store);
}

/// Has the storage take an object and loses the answer, as when the service is killed at that moment.
struct LosesAnswers(AtomicBool);

#[async_trait]
impl AfterPut for LosesAnswers {
    async fn after_put(&self, key: &str, lock: Option<LockUntil>, put: Result<Version, StoreError>) -> Result<Version, StoreError> {
        if put.is_ok() && self.0.load(Ordering::SeqCst) && lock.is_some() {
            return Err(StoreError::Unreachable { what: "the storing", key: key.into(), detail: "the answer was lost".into() });
        }
        put
    }
}

async fn stage_with_an_orphan() -> Stage {
    let world = World::new();
    let store = Arc::new(Hooked::new(world.memory.clone(), LosesAnswers(AtomicBool::new(true))));
    let epoch = world.epoch();
    let stage = world.try_start(vec![epoch], store.clone()).await.unwrap();
    stage.prepare("acme").await.unwrap();
    assert_eq!(stage.put("acme", "SN1", &config("one")).await.unwrap_err().code(), Code::Unavailable);
    assert!(stage.list("acme", "").await.unwrap().is_empty());
    assert_eq!(list_all(&*stage.world.memory, "v1/").await.unwrap().len(), 1);
    store.hook.0.store(false, Ordering::SeqCst);
    stage
}

#[tokio::test]
async fn a_rebuild_adopts_what_was_stored_before_a_crash() {
    let stage = stage_with_an_orphan().await;
    assert_eq!(stage.backup.rebuild().await.unwrap().snapshots, 1);
    let listed = stage.list("acme", "SN1").await.unwrap();
    assert_eq!(stage.get(STAFF, "acme", &listed[0].id, true).await.unwrap(), config("one"));
    assert!(!stage.put("acme", "SN1", &config("one")).await.unwrap().changed);
}

/// The next try finds what the one before put, and puts nothing beside it.
#[tokio::test]
async fn the_next_collection_takes_up_what_the_one_before_left() {
    let stage = stage_with_an_orphan().await;
    for changed in [true, false] {
        assert_eq!(stage.put("acme", "SN1", &config("one")).await.unwrap().changed, changed);
        assert_eq!(list_all(&*stage.world.memory, "v1/").await.unwrap().len(), 1);
    }
    let listed = stage.list("acme", "SN1").await.unwrap();
    assert_eq!(stage.get(STAFF, "acme", &listed[0].id, true).await.unwrap(), config("one"));
}

/// A config that changed meanwhile is stored beside it.
#[tokio::test]
async fn what_the_one_before_left_is_kept_when_the_config_has_changed() {
    let stage = stage_with_an_orphan().await;
    assert!(stage.put("acme", "SN1", &config("two")).await.unwrap().changed);
    let listed = stage.list("acme", "SN1").await.unwrap();
    assert_eq!((listed.len(), list_all(&*stage.world.memory, "v1/").await.unwrap().len()), (2, 2));
    assert_eq!(stage.get(STAFF, "acme", &listed[1].id, true).await.unwrap(), config("one"));
}

/// A database that takes nothing, such as on a full disk, costs no object a try; when it takes something again, all goes on.
#[tokio::test]
async fn nothing_is_put_that_could_not_be_recorded() {
    let stage = Stage::prepared().await;
    stage.store("acme", "SN1", "one").await;
    stage.world.disk.change("ALTER TABLE uploads RENAME TO uploads_elsewhere").await;
    for _ in 0..3 {
        assert!(stage.put("acme", "SN1", &config("two")).await.is_err());
    }
    assert_eq!(list_all(&*stage.world.memory, "v1/").await.unwrap().len(), 1);
    stage.world.disk.change("ALTER TABLE uploads_elsewhere RENAME TO uploads").await;
    assert!(stage.put("acme", "SN1", &config("two")).await.unwrap().changed);
    assert_eq!(list_all(&*stage.world.memory, "v1/").await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_snapshot_that_vanished_from_the_storage_is_stored_anew() {
    let stage = Stage::prepared().await;
    stage.put("acme", "SN1", &config("one")).await.unwrap();
    stage.advance(SignedDuration::from_hours(24 * 36));
    let object = &list_all(&*stage.world.memory, "v1/").await.unwrap()[0];
    stage.world.memory.delete(&object.key, &object.version).await.unwrap();
    assert!(stage.put("acme", "SN1", &config("one")).await.unwrap().changed);
    stage.backup.rebuild().await.unwrap();
    assert_eq!(stage.list("acme", "").await.unwrap().len(), 1, "what vanished is taken out of the catalogue");
}
