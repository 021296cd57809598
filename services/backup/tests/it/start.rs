//! What does not belong together does not start.

use std::sync::Arc;

use tsujiban_backup::start::{MARKER, StartError, start};
use tsujiban_objects::{Memory, Objects, UnsuitableBucket, list_all};
use tsujiban_sealing::{MasterKey, SystemRandom};

use crate::stage::{REGION, Stage, World, config};

/// C12: neither a database nor a bucket of another environment is touched.
#[tokio::test]
async fn another_environment_is_refused() {
    let (mut world, epochs) = Stage::prepared().await.stop().await;
    let mut parts = world.parts(&epochs, world.memory.clone()).await;
    parts.environment = "production".parse().unwrap();
    let database = start(parts, &[REGION.to_owned()]).await.err().unwrap();
    assert!(matches!(database, StartError::Environment { what: "database", .. }), "{database}");
    assert_eq!(database.to_string(), "the database belongs to environment test, and this is production; give each environment its own");

    world.lose_database();
    let mut parts = world.parts(&epochs, world.memory.clone()).await;
    parts.environment = "production".parse().unwrap();
    let bucket = start(parts, &[REGION.to_owned()]).await.err().unwrap();
    assert!(matches!(bucket, StartError::Environment { what: "bucket", .. }), "{bucket}");
}

/// C12: a second master key is never taken for the first.
#[tokio::test]
async fn another_master_key_is_refused() {
    let (mut world, _) = Stage::prepared().await.stop().await;
    world.master = MasterKey::generate(&SystemRandom::new()).unwrap();
    let epoch = world.epoch();
    let parts = world.parts(std::slice::from_ref(&epoch), world.memory.clone()).await;
    assert!(matches!(start(parts, &[REGION.to_owned()]).await, Err(StartError::MasterKey { what: "database", .. })));
    world.lose_database();
    let parts = world.parts(&[epoch], world.memory.clone()).await;
    assert!(matches!(start(parts, &[REGION.to_owned()]).await, Err(StartError::MasterKey { what: "bucket", .. })));
}

/// C21: customer data stays in Japan.
#[tokio::test]
async fn a_bucket_abroad_is_refused() {
    let world = World::new();
    let abroad = Arc::new(Memory::new(world.clock.clone(), "us-east-1"));
    let epoch = world.epoch();
    let refused = world.try_start(vec![epoch], abroad.clone()).await.err().unwrap();
    assert!(matches!(&refused, StartError::Bucket(UnsuitableBucket::Region { region, .. }) if region == "us-east-1"), "{refused}");
    assert!(list_all(&*abroad, "").await.unwrap().is_empty(), "nothing was written");
}

#[tokio::test]
async fn a_bucket_without_object_lock_is_refused() {
    let world = World::new();
    let plain = Arc::new(Memory::new(world.clock.clone(), REGION).without_object_lock());
    let epoch = world.epoch();
    assert!(matches!(world.try_start(vec![epoch], plain).await, Err(StartError::Bucket(UnsuitableBucket::NoObjectLock))));
}

#[tokio::test]
async fn a_bucket_or_database_that_lost_its_other_half_is_refused() {
    // the database was used with another bucket
    let (world, epochs) = Stage::prepared().await.stop().await;
    let fresh = Arc::new(Memory::new(world.clock.clone(), REGION));
    let parts = world.parts(&epochs, fresh).await;
    assert!(matches!(start(parts, &[REGION.to_owned()]).await, Err(StartError::NoMarker)));

    // the bucket has snapshots, and nothing says whose they are
    let stage = Stage::prepared().await;
    stage.put("acme", "SN1", &config("one")).await.unwrap();
    let (mut world, epochs) = stage.stop().await;
    world.lose_database();
    for key in ["key-table", MARKER] {
        for entry in list_all(&*world.memory, key).await.unwrap() {
            world.memory.delete(&entry.key, &entry.version).await.unwrap();
        }
    }
    let parts = world.parts(&epochs, world.memory.clone()).await;
    assert!(matches!(start(parts, &[REGION.to_owned()]).await, Err(StartError::NoMarker)));
}

#[tokio::test]
async fn a_storage_that_is_down_is_worth_waiting_for() {
    let world = World::new();
    world.memory.set_outage(Some("no route"));
    let (epoch, store) = (world.epoch(), world.memory.clone());
    assert!(world.try_start(vec![epoch], store).await.err().unwrap().is_transient());
}
