//! Catalogue and bucket are compared both ways before anything may go.

use jiff::SignedDuration;
use tonic::Code;
use tsujiban_objects::{Objects as _, list_all};
use tsujiban_proto::backup::v1::RebuildCatalogueRequest;
use tsujiban_service::testing::with_token;

use crate::stage::{STAFF, Stage, config};

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// A service whose database is one from before its newest snapshots, with no change of a key since.
async fn with_an_older_database() -> (Stage, String, String) {
    let stage = Stage::prepared().await;
    let (first, _) = stage.store("acme", "SN1", "first").await;
    let (world, epochs) = stage.stop().await;
    let old = world.disk.copy().await;
    let store = world.memory.clone();
    let stage = world.try_start(epochs, store.clone()).await.unwrap();
    stage.advance(DAY);
    let (newest, _) = stage.store("acme", "SN1", "newest").await;
    let (mut world, epochs) = stage.stop().await;
    world.disk = old;
    (world.try_start(epochs, store).await.unwrap(), first, newest)
}

/// An older catalogue, or one whose newest changes are lost, learns what was stored since.
#[tokio::test]
async fn an_older_catalogue_learns_what_was_stored_since() {
    let (stage, first, newest) = with_an_older_database().await;
    let compared = stage.backup.compare().await.unwrap();
    assert_eq!((compared.adopted, compared.damaged), (1, 0));
    let listed: Vec<_> = stage.list("acme", "SN1").await.unwrap().into_iter().map(|listed| listed.id).collect();
    assert_eq!(listed, [newest.clone(), first]);
    assert_eq!(stage.get(STAFF, "acme", &newest, true).await.unwrap(), config("newest"));
    assert!(!stage.put("acme", "SN1", &config("newest")).await.unwrap().changed);
    assert_eq!(stage.backup.compare().await.unwrap().adopted, 0);
}

/// Nothing is swept, and nothing expires, that the catalogue does not know: it is taken in first.
#[tokio::test]
async fn what_the_catalogue_does_not_know_is_taken_in_before_anything_goes() {
    for sweeps in [true, false] {
        let (stage, _, newest) = with_an_older_database().await;
        stage.advance(DAY * 40);
        if sweeps {
            stage.backup.sweep().await.unwrap();
        }
        stage.backup.expire().await.unwrap();
        assert_eq!(stage.get(STAFF, "acme", &newest, true).await.unwrap(), config("newest"), "sweeps: {sweeps}");
        let left = stage.list("acme", "SN1").await.unwrap();
        assert_eq!((left.len(), &left[0].id), (1, &newest), "the older one is past its time");
    }
}

/// An emptied bucket, or another one in its place, is refused, and nothing is forgotten.
#[tokio::test]
async fn an_emptied_bucket_is_refused() {
    let stage = Stage::prepared().await;
    stage.store("acme", "SN1", "one").await;
    stage.backup.compare().await.unwrap();
    stage.world.memory.lose_everything();
    let refused = async || {
        let mut stream = stage.backup().rebuild_catalogue(with_token(STAFF, RebuildCatalogueRequest {})).await.unwrap().into_inner();
        stream.message().await.unwrap_err()
    };
    assert_eq!(refused().await.code(), Code::FailedPrecondition);
    assert!(refused().await.message().contains("tsujiban.json is missing"), "{}", refused().await);
    stage.advance(DAY * 40);
    assert!(stage.backup.expire().await.is_err() && stage.backup.sweep().await.is_err() && stage.backup.compare().await.is_err());
    assert_eq!(stage.list("acme", "").await.unwrap().len(), 1);
    let foreign = Stage::prepared().await.world.memory.get("tsujiban.json", None).await.unwrap();
    stage.world.memory.put("tsujiban.json", foreign, None).await.unwrap();
    assert!(refused().await.message().contains("it belongs to environment test and master key"), "{}", refused().await);
    assert_eq!(stage.list("acme", "").await.unwrap().len(), 1);
}

/// Only the objects are gone: each snapshot is named as damaged and stays listed.
#[tokio::test]
async fn snapshots_whose_objects_are_gone_stay_listed() {
    let stage = Stage::prepared().await;
    for n in 0..3 {
        let (_, object) = stage.store("acme", "SN1", &format!("{n}")).await;
        stage.world.memory.lose(&object);
    }
    // what is stored at the very moment may not be listed yet
    stage.advance(SignedDuration::from_secs(1));
    assert_eq!(stage.backup.rebuild().await.unwrap().damaged, 3);
    let listed = stage.list("acme", "SN1").await.unwrap();
    assert!(listed.len() == 3 && listed.iter().all(|listed| listed.damaged));
    assert!(stage.put("acme", "SN1", &config("2")).await.unwrap().changed);
    assert_eq!(list_all(&*stage.world.memory, "v1/").await.unwrap().len(), 1);
}
