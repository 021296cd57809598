//! Database and key table lost together: the service starts, names what is lost, and goes on; keys that are brought back open it again.

use bytes::Bytes;
use jiff::SignedDuration;
use tonic::{Code, Status};
use tsujiban_backup::keytable::OBJECT;
use tsujiban_backup::start::{MARKER, StartError, start};
use tsujiban_objects::{Objects as _, list_all};
use tsujiban_proto::error::ServiceError;
use tsujiban_proto::lifecycle::v1::{IntegrityState, PrepareRequest};
use tsujiban_service::testing::with_token;

use crate::stage::{OPERATOR, REGION, STAFF, Stage, config};

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The operator prepares a group whose namespace names an incarnation.
async fn prepare(stage: &Stage, group: &str, incarnation: &str) -> Result<String, Status> {
    let request = PrepareRequest { group: group.into(), expected_incarnation: incarnation.into(), ..Default::default() };
    Ok(stage.lifecycle().prepare(with_token(OPERATOR, request)).await?.into_inner().incarnation)
}

async fn lose_the_volume(stage: Stage) -> Stage {
    let (mut world, epochs) = stage.stop().await;
    world.lose_database();
    let store = world.memory.clone();
    world.try_start(epochs, store).await.unwrap()
}

async fn copy(stage: &Stage) -> Bytes {
    stage.world.memory.get(OBJECT, None).await.unwrap()
}

/// What the jobs do every five minutes.
async fn followed(stage: &Stage) {
    stage.backup.compare_key_table().await.unwrap();
    stage.backup.check_wrappings().await.unwrap();
    stage.backup.follow_key_loss().await.unwrap();
}

async fn shared(stage: &Stage) -> (IntegrityState, Vec<String>) {
    let shared = stage.report().await.shared_integrity.unwrap();
    (shared.state(), shared.damaged)
}

/// Stores two devices of one group and one of another; then volume and key table are lost.
async fn without_keys(what: &str) -> (Stage, [String; 2], Vec<String>) {
    let stage = Stage::prepared().await;
    stage.world.memory.keep_checksums(what != "damaged, without checksums");
    let groups = [stage.prepare("acme").await.unwrap(), stage.prepare("other").await.unwrap()];
    let mut ids = Vec::new();
    for (serial, text) in [("SN1", "one"), ("SN1", "two"), ("SN2", "the same")] {
        ids.push(stage.store("acme", serial, text).await.0);
        stage.advance(SignedDuration::from_hours(1));
    }
    ids.push(stage.store("other", "SN9", "nine").await.0);
    match what {
        "missing" => stage.world.memory.lose(OBJECT),
        "foreign" => {
            let foreign = copy(&Stage::prepared().await).await;
            stage.world.memory.lose(OBJECT);
            stage.world.memory.put(OBJECT, foreign, None).await.unwrap();
        }
        _ => stage.world.memory.damage(OBJECT, |body| {
            let middle = body.len() / 2;
            body[middle] ^= 1;
        }),
    }
    (lose_the_volume(stage).await, groups, ids)
}

/// C23: nothing is swept or taken for erased, all is named, and devices are backed up again; also after another loss of the volume.
#[tokio::test]
async fn a_service_without_any_key_starts_and_goes_on() {
    for what in ["missing", "damaged", "damaged, without checksums", "foreign"] {
        let (stage, [acme, other], ids) = without_keys(what).await;
        assert_eq!(shared(&stage).await, (IntegrityState::Damaged, vec!["the key table".to_owned()]), "{what}");
        let refused = stage.put("acme", "SN1", &config("one")).await.unwrap_err();
        assert_eq!(ServiceError::from(&refused).reason, "GROUP_NOT_PREPARED", "{what}");
        assert_eq!(prepare(&stage, "acme", &acme).await.unwrap(), acme, "{what}");
        followed(&stage).await;
        assert_eq!(shared(&stage).await.0, IntegrityState::Damaged, "nobody has named the other group yet");

        let listed = stage.list("acme", "").await.unwrap();
        let mut told: Vec<_> = listed.iter().map(|listed| listed.id.clone()).collect();
        told.reverse();
        assert_eq!(told, ids[..3], "{what}");
        assert!(listed.iter().all(|listed| listed.damaged && listed.device.as_ref().unwrap().serial.is_empty()), "{what}");
        let refused = stage.get(STAFF, "acme", &ids[0], true).await.unwrap_err();
        assert_eq!(ServiceError::from(&refused).reason, "DAMAGED", "{refused}");
        assert!(refused.message().contains("no erasure is on record"), "{refused}");
        let report = stage.report().await.groups;
        assert_eq!((report.len(), report[0].integrity.as_ref().unwrap().damaged_count), (1, 3), "{what}");
        assert!(stage.put("acme", "SN2", &config("the same")).await.unwrap().changed, "it is stored anew");
        assert!(!stage.put("acme", "SN2", &config("the same")).await.unwrap().changed);

        prepare(&stage, "other", &other).await.unwrap();
        followed(&stage).await;
        assert_eq!(shared(&stage).await.0, IntegrityState::Unspecified, "whose all of it is is known");
        stage.advance(DAY * 36);
        stage.backup.sweep().await.unwrap();
        stage.backup.expire().await.unwrap();
        let kept: Vec<_> = stage.list("acme", "").await.unwrap().into_iter().map(|listed| listed.id).collect();
        assert!(kept.contains(&ids[1]) && kept.contains(&ids[2]), "the newest of each device stays: {kept:?}");

        let stage = lose_the_volume(stage.restart().await).await;
        assert_eq!(stage.list("acme", "SN2").await.unwrap().len(), 1);
        assert!(!stage.put("acme", "SN2", &config("the same")).await.unwrap().changed, "{what}: its new key is there");
        assert_eq!(stage.list("other", "").await.unwrap().len(), 1, "{what}");
        assert_eq!(stage.list("acme", "").await.unwrap().len(), kept.len(), "{what}");
    }
}

/// An older copy of the key table that staff bring back opens what its keys sealed, beside what was stored since.
#[tokio::test]
async fn keys_that_are_brought_back_open_what_was_lost() {
    let stage = Stage::prepared().await;
    let acme = stage.prepare("acme").await.unwrap();
    let other = stage.prepare("other").await.unwrap();
    let (one, _) = stage.store("acme", "SN1", "one").await;
    stage.advance(SignedDuration::from_secs(1));
    let (two, _) = stage.store("acme", "SN2", "two").await;
    let (gone, object) = stage.store("acme", "GONE", "gone").await;
    let (nine, _) = stage.store("other", "SN9", "nine").await;
    let old = copy(&stage).await;
    stage.world.memory.lose(OBJECT);
    let stage = lose_the_volume(stage).await;
    prepare(&stage, "acme", &acme).await.unwrap();
    followed(&stage).await;
    stage.advance(SignedDuration::from_hours(1));
    let (newer, _) = stage.store("acme", "SN1", "newer").await;
    // deleted while nobody can say which of the objects are its
    stage.erase(OPERATOR, "acme", &acme, "GONE").await.unwrap();

    stage.world.memory.put(OBJECT, old.clone(), None).await.unwrap();
    followed(&stage).await;
    assert_eq!(stage.get(STAFF, "acme", &one, true).await.unwrap(), config("one"));
    assert_eq!(stage.get(STAFF, "acme", &two, true).await.unwrap(), config("two"));
    assert_eq!(stage.get(STAFF, "acme", &newer, true).await.unwrap(), config("newer"));
    assert_eq!(stage.get(STAFF, "other", &nine, true).await.unwrap(), config("nine"), "its group came back with the table");
    assert_eq!(prepare(&stage, "other", &other).await.unwrap(), other);
    let ids = async |device: &str| stage.list("acme", device).await.unwrap().into_iter().map(|listed| listed.id).collect::<Vec<_>>();
    assert_eq!(ids("SN1").await, [newer.clone(), one.clone()]);
    assert_eq!(ids("").await, [newer.clone(), two.clone(), one.clone()]);
    assert!(stage.list("acme", "").await.unwrap().iter().all(|listed| !listed.device.as_ref().unwrap().serial.is_empty()));
    assert!(!stage.put("acme", "SN2", &config("two")).await.unwrap().changed, "it has its key again");
    assert_eq!(stage.catalogue.damaged_count().await.unwrap(), 0);

    // C24: what was erased meanwhile is erased, also when the table is brought back once more
    for _ in 0..2 {
        assert_eq!(stage.get(STAFF, "acme", &gone, true).await.unwrap_err().code(), Code::NotFound);
        let device = object.split('/').nth(2).unwrap();
        assert!(stage.catalogue.key_table().await.unwrap().iter().all(|key| key.subject.as_str() != device));
        stage.world.memory.put(OBJECT, old.clone(), None).await.unwrap();
        followed(&stage).await;
    }
    // and an erasure of the device reaches both of its incarnations
    assert_eq!(stage.erase(OPERATOR, "acme", &acme, "SN1").await.unwrap().snapshots, 2);
    let stage = lose_the_volume(stage).await;
    for id in [&one, &newer, &gone] {
        assert_eq!(stage.get(STAFF, "acme", id, true).await.unwrap_err().code(), Code::NotFound);
    }
    assert_eq!(stage.get(STAFF, "acme", &two, true).await.unwrap(), config("two"));
}

/// C24, C25: what was erased after the copy that somebody brings back stays erased, although every key table that knew it is lost; the ids of
/// erased groups stay taken for their time.
#[tokio::test]
async fn what_was_erased_after_the_copy_stays_erased() {
    for brought_back_before_the_start in [true, false] {
        let stage = Stage::prepared().await;
        let acme = stage.prepare("acme").await.unwrap();
        let other = stage.prepare("other").await.unwrap();
        let (kept, _) = stage.store("acme", "SN1", "kept").await;
        let (gone, _) = stage.store("acme", "GONE", "gone").await;
        stage.store("other", "SN9", "nine").await;
        let old = copy(&stage).await;
        stage.erase(OPERATOR, "acme", &acme, "GONE").await.unwrap();
        stage.erase(OPERATOR, "other", &other, "").await.unwrap();
        stage.world.memory.lose(OBJECT);
        if brought_back_before_the_start {
            stage.world.memory.put(OBJECT, old.clone(), None).await.unwrap();
        }
        let stage = lose_the_volume(stage).await;
        prepare(&stage, "acme", &acme).await.unwrap();
        stage.world.memory.put(OBJECT, old, None).await.unwrap();
        followed(&stage).await;
        assert_eq!(stage.get(STAFF, "acme", &kept, true).await.unwrap(), config("kept"));
        assert_eq!(stage.get(STAFF, "acme", &gone, true).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(stage.list("acme", "").await.unwrap().len(), 1, "before: {brought_back_before_the_start}");
        let reason = |refused: Status| ServiceError::from(&refused).reason;
        assert_eq!(reason(prepare(&stage, "other", &other).await.unwrap_err()), "ERASED");
        assert_eq!(reason(stage.prepare("other").await.unwrap_err()), "ID_NOT_FREE");
        assert_eq!(stage.catalogue.damaged_count().await.unwrap(), 0, "erased is not damaged");
        // and all of it goes in its time, the records as well
        stage.advance(DAY * 37);
        stage.put("acme", "SN1", &config("kept")).await.unwrap();
        stage.backup.expire().await.unwrap();
        stage.backup.expire().await.unwrap();
        stage.backup.sweep().await.unwrap();
        let left: Vec<_> = list_all(&*stage.world.memory, "").await.unwrap().into_iter().map(|entry| entry.key).collect();
        assert_eq!(left.iter().filter(|key| key.starts_with("v1/")).count(), 1, "{left:?}");
        assert!(left.iter().all(|key| !key.starts_with("erasures/")), "{left:?}");
        stage.prepare("other").await.unwrap();
    }
}

/// A record that is damaged, or that somebody without the master key put, erases nothing, and is named.
#[tokio::test]
async fn only_what_the_master_key_sealed_is_a_record() {
    let stage = Stage::prepared().await;
    let acme = stage.prepare("acme").await.unwrap();
    let (kept, object) = stage.store("acme", "SN1", "kept").await;
    stage.store("acme", "GONE", "gone").await;
    stage.erase(OPERATOR, "acme", &acme, "GONE").await.unwrap();
    let records = list_all(&*stage.world.memory, "erasures/").await.unwrap();
    assert_eq!(records.len(), 1);
    let lock = stage.world.memory.head(&records[0].key, None).await.unwrap().lock.unwrap();
    assert!(lock.compliance && lock.until >= stage.now() + DAY * 36);
    let record = stage.world.memory.get(&records[0].key, None).await.unwrap();
    let forged = format!("erasures/{}", object.split('/').nth(2).unwrap());
    stage.world.memory.put(&forged, record, None).await.unwrap();
    let stage = lose_the_volume(stage).await;
    assert_eq!(stage.get(STAFF, "acme", &kept, true).await.unwrap(), config("kept"));
    assert_eq!(shared(&stage).await.1, [format!("object {forged}")]);
    stage.world.memory.lose(&forged);
    stage.backup.sweep().await.unwrap();
    assert_eq!(shared(&stage).await.1, Vec::<String>::new());
}

/// The volume from before comes back after the service has gone on without it: what it knew is there, beside what was stored since.
#[tokio::test]
async fn a_volume_that_is_brought_back_late_knows_both() {
    let stage = Stage::prepared().await;
    let acme = stage.prepare("acme").await.unwrap();
    let (old_id, _) = stage.store("acme", "SN1", "old").await;
    let (world, epochs) = stage.stop().await;
    let volume = world.disk.copy().await;
    let store = world.memory.clone();
    let stage = world.try_start(epochs, store).await.unwrap();
    stage.world.memory.lose(OBJECT);
    let stage = lose_the_volume(stage).await;
    prepare(&stage, "acme", &acme).await.unwrap();
    followed(&stage).await;
    stage.advance(SignedDuration::from_hours(1));
    let (new_id, _) = stage.store("acme", "SN1", "new").await;
    let (mut world, epochs) = stage.stop().await;
    world.disk = volume;
    let store = world.memory.clone();
    let mut stage = world.try_start(epochs, store).await.unwrap();
    for volume_lost in [false, true] {
        if volume_lost {
            stage = lose_the_volume(stage).await;
        }
        followed(&stage).await;
        let listed: Vec<_> = stage.list("acme", "SN1").await.unwrap().into_iter().map(|listed| (listed.id, listed.damaged)).collect();
        assert_eq!(listed, [(new_id.clone(), false), (old_id.clone(), false)], "lost: {volume_lost}");
        assert_eq!(stage.get(STAFF, "acme", &old_id, true).await.unwrap(), config("old"));
        assert_eq!(stage.get(STAFF, "acme", &new_id, true).await.unwrap(), config("new"));
        assert_eq!(stage.catalogue.damaged_count().await.unwrap(), 0);
    }
}

/// Which of two incarnations of a device comes first in the bucket decides nothing.
#[tokio::test]
async fn both_incarnations_of_a_device_come_back_with_the_volume_lost() {
    for _ in 0..4 {
        let stage = Stage::prepared().await;
        let acme = stage.prepare("acme").await.unwrap();
        let (old_id, _) = stage.store("acme", "SN1", "old").await;
        let old = copy(&stage).await;
        stage.world.memory.lose(OBJECT);
        let stage = lose_the_volume(stage).await;
        prepare(&stage, "acme", &acme).await.unwrap();
        followed(&stage).await;
        stage.advance(SignedDuration::from_hours(1));
        let (new_id, _) = stage.store("acme", "SN1", "new").await;
        stage.world.memory.put(OBJECT, old, None).await.unwrap();
        followed(&stage).await;
        let stage = lose_the_volume(stage).await;
        let ids: Vec<_> = stage.list("acme", "SN1").await.unwrap().into_iter().map(|listed| listed.id).collect();
        assert_eq!(ids, [new_id, old_id]);
        assert!(stage.list("acme", "").await.unwrap().iter().all(|listed| !listed.damaged));
        stage.put("acme", "SN1", &config("newest")).await.unwrap();
        assert_eq!(stage.list("acme", "SN1").await.unwrap().len(), 3);
    }
}

/// An older version of the copy, such as one that a deletion has hidden or something damaged lies over, is used.
#[tokio::test]
async fn an_older_version_of_the_copy_is_used() {
    let stage = Stage::prepared().await;
    let (id, _) = stage.store("acme", "SN1", "one").await;
    stage.world.memory.put(OBJECT, Bytes::from_static(b"no key table"), None).await.unwrap();
    let stage = lose_the_volume(stage).await;
    assert_eq!(stage.get(STAFF, "acme", &id, true).await.unwrap(), config("one"));
    assert_eq!(shared(&stage).await.1, Vec::<String>::new());
    assert_eq!(list_all(&*stage.world.memory, OBJECT).await.unwrap().len(), 1);
}

/// What has a reason to be refused stays refused: a bucket that nothing says is this service's, and a copy that a missing epoch key opens.
#[tokio::test]
async fn another_bucket_or_missing_epoch_keys_are_refused() {
    let stage = Stage::prepared().await;
    stage.store("acme", "SN1", "one").await;
    let (mut world, _) = stage.stop().await;
    world.lose_database();
    let parts = world.parts(&[world.epoch()], world.memory.clone()).await;
    assert!(matches!(start(parts, &[REGION.to_owned()]).await, Err(StartError::Recovery(_))), "its epoch key can come back");
    world.memory.lose(OBJECT);
    world.memory.lose(MARKER);
    world.lose_database();
    let parts = world.parts(&[world.epoch()], world.memory.clone()).await;
    assert!(matches!(start(parts, &[REGION.to_owned()]).await, Err(StartError::NoMarker)));
}
