//! The key table and its copy in the bucket: neither is taken for the newest state on its own word.

use jiff::SignedDuration;
use tonic::Code;
use tsujiban_backup::keytable::OBJECT;
use tsujiban_objects::{Objects as _, list_all};
use tsujiban_proto::backup::v1::Reason;

use crate::stage::{OPERATOR, STAFF, Stage, config};

async fn lose_the_volume(stage: Stage) -> Stage {
    let (mut world, epochs) = stage.stop().await;
    world.lose_database();
    let store = world.memory.clone();
    world.try_start(epochs, store).await.unwrap()
}

fn subject(object: &str) -> String {
    object.split('/').nth(2).unwrap().to_owned()
}

/// Changes the last byte of the wrappings of a device's key.
async fn damage_key(stage: &Stage, object: &str, epoch: &str) {
    let of_epoch = format!("subject = '{}' AND epoch LIKE '{epoch}%'", subject(object));
    stage.world.disk.change(&format!("UPDATE keys SET wrapped = substr(wrapped, 1, length(wrapped) - 1) WHERE {of_epoch}")).await;
}

/// A copy that is missing, damaged, older or foreign is made anew, at start and while the service runs; after the loss of
/// the volume all is there, and what was erased is not.
#[tokio::test]
async fn a_copy_that_is_not_what_it_should_be_is_made_anew() {
    for restarts in [true, false] {
        for (what, checksums) in [("missing", true), ("damaged", true), ("damaged", false), ("older", true), ("foreign", true)] {
            let mut stage = Stage::prepared().await;
            let acme = stage.prepare("acme").await.unwrap();
            stage.world.memory.keep_checksums(checksums);
            let (gone, _) = stage.store("acme", "GONE", "gone").await;
            let old = stage.world.memory.get(OBJECT, None).await.unwrap();
            let foreign = Stage::prepared().await.world.memory.get(OBJECT, None).await.unwrap();
            stage.erase(OPERATOR, "acme", &acme, "GONE").await.unwrap();
            let (kept, _) = stage.store("acme", "SN1", "kept").await;
            match what {
                "missing" => stage.world.memory.lose(OBJECT),
                "damaged" => stage.world.memory.damage(OBJECT, |body| {
                    let middle = body.len() / 2;
                    body[middle] ^= 1;
                }),
                "older" => drop(stage.world.memory.put(OBJECT, old, None).await.unwrap()),
                _ => drop(stage.world.memory.put(OBJECT, foreign, None).await.unwrap()),
            }
            if restarts {
                stage = stage.restart().await;
            } else {
                let compared = stage.backup.compare_key_table().await.unwrap();
                assert_eq!(compared.replaced, Some(what), "checksums {checksums}");
                assert_eq!(stage.backup.compare_key_table().await.unwrap().replaced, None);
            }
            assert_eq!(list_all(&*stage.world.memory, OBJECT).await.unwrap().len(), 1, "{what}: what was put there is gone");
            let stage = lose_the_volume(stage).await;
            assert_eq!(stage.get(STAFF, "acme", &kept, true).await.unwrap(), config("kept"), "{what}");
            assert_eq!(stage.get(STAFF, "acme", &gone, true).await.unwrap_err().code(), Code::NotFound, "{what}");
            assert_eq!(stage.list("acme", "").await.unwrap().len(), 1, "{what}");
            assert_eq!(stage.catalogue.damaged_count().await.unwrap(), 0, "{what}: erased is not damaged");
        }
    }
}

/// One damaged wrapping; the copy in the bucket has the good one, and it is taken.
#[tokio::test]
async fn a_damaged_wrapping_comes_back_from_the_copy() {
    let stage = Stage::prepared().await;
    let (id, object) = stage.store("acme", "SN1", "one").await;
    damage_key(&stage, &object, "").await;
    let refused = stage.get(STAFF, "acme", &id, true).await.unwrap_err();
    assert_eq!(refused.code(), Code::DataLoss, "{refused}");
    assert_eq!(stage.backup.check_wrappings().await.unwrap().damaged, 1, "it is noticed");
    assert_eq!(stage.catalogue.damaged_count().await.unwrap(), 2, "the key, and what it sealed");
    assert!(stage.list("acme", "SN1").await.unwrap()[0].damaged);
    stage.backup.compare_key_table().await.unwrap();
    let found = stage.backup.check_wrappings().await.unwrap();
    assert_eq!((found.damaged, found.unopened, stage.catalogue.damaged_count().await.unwrap()), (0, 0, 0));
    assert_eq!(stage.get(STAFF, "acme", &id, true).await.unwrap(), config("one"));
}

/// One damaged wrapping of two comes back from the other one, without the copy.
#[tokio::test]
async fn a_damaged_wrapping_comes_back_from_the_other_one() {
    let mut stage = Stage::prepared().await;
    let (id, object) = stage.store("acme", "SN1", "one").await;
    stage.advance(SignedDuration::from_hours(1));
    let newest = stage.world.epoch();
    stage.epochs.push(newest.clone());
    stage.backup.rotate_keys(&stage.epochs).await.unwrap();
    damage_key(&stage, &object, newest.id.as_str()).await;
    let found = stage.backup.check_wrappings().await.unwrap();
    assert_eq!((found.healed, found.damaged), (1, 0));
    stage.epochs.remove(0);
    stage.backup.rotate_keys(&stage.epochs).await.unwrap();
    assert_eq!(stage.get(STAFF, "acme", &id, true).await.unwrap(), config("one"));
}

/// A damaged wrapping never replaces the good one in the copy, whatever else makes the copy be renewed.
#[tokio::test]
async fn what_does_not_open_is_not_copied_over_what_does() {
    let mut stage = Stage::prepared().await;
    let acme = stage.prepare("acme").await.unwrap();
    let (id, object) = stage.store("acme", "SN1", "one").await;
    stage.store("acme", "GONE", "gone").await;
    stage.advance(SignedDuration::from_hours(1));
    stage.epochs.push(stage.world.epoch());
    stage.backup.rotate_keys(&stage.epochs).await.unwrap();
    damage_key(&stage, &object, "").await;
    stage.erase(OPERATOR, "acme", &acme, "GONE").await.unwrap();
    let stage = lose_the_volume(stage).await;
    assert_eq!(stage.get(STAFF, "acme", &id, true).await.unwrap(), config("one"));
    assert_eq!(stage.list("acme", "").await.unwrap().len(), 1);
}

/// Both are damaged: what the key sealed is refused by name, and the device goes on with another key, also after the loss of the volume.
#[tokio::test]
async fn a_device_whose_key_is_damaged_everywhere_gets_another_one() {
    let mut stage = Stage::prepared().await;
    let acme = stage.prepare("acme").await.unwrap();
    let (old, object) = stage.store("acme", "SN1", "one").await;
    let (other, _) = stage.store("acme", "SN2", "two").await;
    damage_key(&stage, &object, "").await;
    stage.world.memory.lose(OBJECT);
    stage = stage.restart().await;
    stage.advance(SignedDuration::from_hours(1));
    let new = stage.put("acme", "SN1", &config("one")).await.unwrap();
    let new = (new.changed, new.snapshot.unwrap().id);
    assert!(new.0, "it is stored anew, although it has not changed");
    for volume_lost in [false, true] {
        if volume_lost {
            stage = lose_the_volume(stage).await;
        }
        assert_eq!(stage.get(STAFF, "acme", &other, true).await.unwrap(), config("two"), "lost: {volume_lost}");
        assert_eq!(stage.get(STAFF, "acme", &new.1, true).await.unwrap(), config("one"), "lost: {volume_lost}");
        assert!(!stage.put("acme", "SN1", &config("one")).await.unwrap().changed, "lost: {volume_lost}");
        let listed: Vec<_> = stage.list("acme", "SN1").await.unwrap().into_iter().map(|listed| (listed.id, listed.damaged)).collect();
        assert_eq!(listed, [(new.1.clone(), false), (old.clone(), true)], "lost: {volume_lost}");
        assert_eq!(stage.get(STAFF, "acme", &old, true).await.unwrap_err().code(), Code::DataLoss);
        let rebuilt = stage.backup.rebuild().await.unwrap();
        assert_eq!((rebuilt.snapshots, rebuilt.damaged), (2, 1), "lost: {volume_lost}");
        let wrappings = stage.backup.check_wrappings().await.unwrap();
        assert_eq!((wrappings.damaged, wrappings.unopened), (0, 0), "a key that was replaced calls nobody");
        assert_eq!(stage.attempts(0).await.last().unwrap().reason(), Reason::Unspecified);
    }
    let report = stage.report().await;
    let damaged = report.groups.iter().find(|group| group.group == "acme").unwrap().integrity.clone().unwrap().damaged;
    assert!(damaged.iter().all(|name| name.contains(&subject(&object))) && damaged.len() == 2, "the key and the object: {damaged:?}");

    // C24: it keeps no epoch key in use
    stage.advance(SignedDuration::from_hours(1));
    stage.epochs.push(stage.world.epoch());
    assert_eq!(stage.backup.rotate_keys(&stage.epochs).await.unwrap().unopened, 0);
    stage.advance(SignedDuration::from_hours(25));
    stage.backup.rotate_keys(&stage.epochs).await.unwrap();
    assert_eq!(stage.backup.epochs_in_use().await.unwrap().len(), 1);
    // what it sealed goes in its time, and then the damage is over
    stage.advance(SignedDuration::from_hours(24 * 35));
    stage.put("acme", "SN1", &config("one")).await.unwrap();
    stage.backup.compare().await.unwrap();
    stage.backup.expire().await.unwrap();
    assert_eq!(stage.list("acme", "SN1").await.unwrap().len(), 1);
    stage.world.disk.change("UPDATE damage SET recorded = TRUE").await;
    stage.backup.check_wrappings().await.unwrap();
    assert_eq!(stage.catalogue.damaged_count().await.unwrap(), 0);
    assert_eq!(stage.erase(OPERATOR, "acme", &acme, "SN1").await.unwrap().snapshots, 1);
    let keys = stage.catalogue.key_table().await.unwrap();
    assert!(keys.iter().all(|key| key.subject.as_str() != subject(&object)), "each of its keys is destroyed");
}

/// The damaged key comes back with an older copy: what it sealed opens again, and the device keeps its newer key.
#[tokio::test]
async fn a_key_that_comes_back_opens_what_it_sealed() {
    let stage = Stage::prepared().await;
    let (old, object) = stage.store("acme", "SN1", "one").await;
    let good = stage.world.memory.get(OBJECT, None).await.unwrap();
    damage_key(&stage, &object, "").await;
    stage.world.memory.lose(OBJECT);
    stage.advance(SignedDuration::from_hours(1));
    let (new, _) = stage.store("acme", "SN1", "two").await;
    assert!(stage.list("acme", "SN1").await.unwrap()[1].damaged);
    stage.world.memory.put(OBJECT, good, None).await.unwrap();
    stage.backup.compare_key_table().await.unwrap();
    stage.backup.check_wrappings().await.unwrap();
    assert_eq!(stage.get(STAFF, "acme", &old, true).await.unwrap(), config("one"));
    assert_eq!(stage.get(STAFF, "acme", &new, true).await.unwrap(), config("two"));
    assert!(stage.list("acme", "SN1").await.unwrap().iter().all(|listed| !listed.damaged));
    assert!(!stage.put("acme", "SN1", &config("two")).await.unwrap().changed);
    let stage = lose_the_volume(stage).await;
    assert_eq!(stage.get(STAFF, "acme", &old, true).await.unwrap(), config("one"));
    assert!(!stage.put("acme", "SN1", &config("two")).await.unwrap().changed, "its newest key seals");
}
