//! The catalogue comes back from the bucket.

use jiff::SignedDuration;
use tsujiban_proto::backup::v1::{GetHostKeyRequest, PinHostKeyRequest, RebuildCatalogueRequest, Snapshot};
use tsujiban_service::testing::with_token;

use crate::stage::{HOST_KEY, OPERATOR, STAFF, Stage, config, device};

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// A service with some history: a device with a pinned key and three configs, one that never changes, an erased one, an
/// erased group, and one that is seen by its last name.
async fn lived_in() -> Stage {
    let stage = Stage::prepared().await;
    let pin = PinHostKeyRequest { device: Some(device("acme", "SN1")), host_key: HOST_KEY.into() };
    stage.backup().pin_host_key(with_token("acme", pin)).await.unwrap();
    stage.put("acme", "GONE", &config("gone")).await.unwrap();
    stage.put("other", "SN9", &config("nine")).await.unwrap();
    for day in 0..3 {
        stage.put("acme", "SN1", &config(&format!("day {day}"))).await.unwrap();
        stage.advance(DAY);
    }
    stage.put("acme", "SN2", &config("same")).await.unwrap();
    stage.advance(DAY);
    stage.put("acme", "SN2", &config("same")).await.unwrap();
    let (acme, other) = (stage.prepare("acme").await.unwrap(), stage.prepare("other").await.unwrap());
    stage.erase(OPERATOR, "acme", &acme, "GONE").await.unwrap();
    stage.erase(OPERATOR, "other", &other, "").await.unwrap();
    stage
}

async fn state(stage: &Stage) -> (Vec<Snapshot>, Vec<tsujiban_proto::lifecycle::v1::GroupReport>, String) {
    let keys = stage.backup().get_host_key(with_token("acme", GetHostKeyRequest { device: Some(device("acme", "SN1")) })).await.unwrap();
    (stage.list("acme", "").await.unwrap(), stage.report().await.groups, keys.into_inner().pinned)
}

/// C23: after the loss of the volume everything is there again, by itself, and what was erased is not.
#[tokio::test]
async fn a_lost_database_comes_back_from_the_bucket() {
    let stage = lived_in().await;
    let before = state(&stage).await;
    let (mut world, epochs) = stage.stop().await;
    world.lose_database();
    let store = world.memory.clone();
    let stage = world.try_start(epochs, store).await.unwrap();
    assert_eq!(state(&stage).await, before);
    for snapshot in &before.0 {
        stage.get(STAFF, "acme", &snapshot.id, true).await.unwrap();
    }
    // and it goes on as if nothing had happened
    assert!(!stage.put("acme", "SN2", &config("same")).await.unwrap().changed);
    assert!(!stage.put("acme", "SN1", &config("day 2")).await.unwrap().changed);
    assert_eq!(stage.backup.rotate_keys(&stage.epochs).await.map(drop).map_err(|e| e.to_string()), Ok(()));
}

/// C24, C25: a database restored from before an erasure does not bring the erased back.
#[tokio::test]
async fn an_old_database_learns_what_was_erased_since() {
    let stage = Stage::prepared().await;
    let acme = stage.prepare("acme").await.unwrap();
    let other = stage.prepare("other").await.unwrap();
    let gone = stage.put("acme", "GONE", &config("gone")).await.unwrap().snapshot.unwrap().id;
    stage.put("other", "SN9", &config("nine")).await.unwrap();
    let (world, epochs) = stage.stop().await;
    let old = world.disk.copy().await;
    let store = world.memory.clone();
    let stage = world.try_start(epochs, store.clone()).await.unwrap();
    stage.erase(OPERATOR, "acme", &acme, "GONE").await.unwrap();
    stage.erase(OPERATOR, "other", &other, "").await.unwrap();
    stage.put("acme", "NEW", &config("new")).await.unwrap();
    let (before, groups, _) = state(&stage).await;
    let (mut world, epochs) = stage.stop().await;
    world.disk = old;
    let stage = world.try_start(epochs, store).await.unwrap();
    assert!(stage.get(STAFF, "acme", &gone, true).await.is_err());
    let (after, groups_after, _) = state(&stage).await;
    assert_eq!((after, groups_after), (before, groups));
}

#[tokio::test]
async fn a_rebuild_of_a_sound_catalogue_changes_nothing_and_shows_progress() {
    let stage = lived_in().await;
    let (before, attempts) = (state(&stage).await, stage.attempts(0).await);
    let mut stream = stage.backup().rebuild_catalogue(with_token(STAFF, RebuildCatalogueRequest {})).await.unwrap().into_inner();
    let mut last = None;
    while let Some(progress) = stream.message().await.unwrap() {
        last = Some(progress);
    }
    let last = last.unwrap();
    assert_eq!((last.done, last.objects, last.snapshots, last.unreadable), (true, 6, 4, 2));
    assert_eq!((state(&stage).await, stage.attempts(0).await), (before, attempts));
}
