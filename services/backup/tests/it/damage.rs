//! What is damaged is named, hides nothing else, and keeps nothing from working. The storage knows what is damaged by its checksums, or, as
//! one without them, does not.

use jiff::SignedDuration;
use tonic::Code;
use tsujiban_backup::marker::MARKER;
use tsujiban_objects::{Objects as _, list_all};
use tsujiban_proto::backup::v1::{RebuildCatalogueRequest, Snapshot};
use tsujiban_proto::error::ServiceError;
use tsujiban_proto::lifecycle::v1::IntegrityState;
use tsujiban_service::testing::with_token;

use crate::stage::{STAFF, Stage, config};

const DAY: SignedDuration = SignedDuration::from_hours(24);

type Change = fn(&mut Vec<u8>);

const CHANGES: [(&str, Change); 3] = [
    ("a bit flipped", |body| {
        let middle = body.len() / 2;
        body[middle] ^= 1;
    }),
    ("cut by 100 bytes", |body| body.truncate(body.len() - 100)),
    ("emptied", Vec::clear),
];

async fn assert_damaged(stage: &Stage, id: &str, object: &str, what: &str) {
    let refused = stage.get(STAFF, "acme", id, true).await.unwrap_err();
    assert_eq!(refused.code(), Code::DataLoss, "{what}: {refused}");
    assert_eq!(ServiceError::from(&refused).reason, "DAMAGED", "{what}");
    assert!(refused.message().contains(object), "{what}: {refused}");
    let verified = stage.verify("acme", id).await.unwrap();
    assert!(!verified.intact, "{what}");
}

/// Each kind of damage is told as such, and whatever else there is stays readable and verifiable.
#[tokio::test]
async fn one_damaged_object_hides_no_other() {
    for checksums in [true, false] {
        for (what, change) in CHANGES {
            let stage = Stage::prepared().await;
            stage.world.memory.keep_checksums(checksums);
            let (id, object) = stage.store("acme", "SN1", "one").await;
            let (other, _) = stage.store("acme", "SN2", "two").await;
            stage.world.memory.damage(&object, change);
            assert_damaged(&stage, &id, &object, what).await;
            assert_eq!(stage.list("acme", "").await.unwrap().iter().filter(|listed| listed.damaged).count(), 1, "{what}");
            assert!(stage.verify("acme", &other).await.unwrap().intact, "{what}");
        }
        let stage = Stage::prepared().await;
        stage.world.memory.keep_checksums(checksums);
        let (one, first) = stage.store("acme", "SN1", "one").await;
        let (two, second) = stage.store("acme", "SN1", "two").await;
        stage.world.memory.swap(&first, &second);
        assert_damaged(&stage, &one, &first, "swapped").await;
        assert_damaged(&stage, &two, &second, "swapped").await;
        stage.world.memory.lose(&first);
        assert_damaged(&stage, &one, &first, "lost").await;
    }
}

/// A rebuild finishes, and names what is damaged.
#[tokio::test]
async fn a_rebuild_goes_on_with_the_rest() {
    let stage = Stage::prepared().await;
    let mut objects = Vec::new();
    for n in 0..5 {
        objects.push(stage.store("acme", "SN1", &format!("{n}")).await.1);
    }
    stage.world.memory.damage(&objects[1], CHANGES[0].1);
    stage.world.memory.lose(&objects[3]);
    // what is stored at the very moment may not be listed yet
    stage.advance(SignedDuration::from_secs(1));
    let mut stream = stage.backup().rebuild_catalogue(with_token(STAFF, RebuildCatalogueRequest {})).await.unwrap().into_inner();
    let mut last = None;
    while let Some(progress) = stream.message().await.unwrap() {
        last = Some(progress);
    }
    let last = last.unwrap();
    assert_eq!((last.done, last.objects, last.snapshots, last.damaged), (true, 4, 3, 2));
    assert_eq!(last.damaged_names, [format!("object {}", objects[1]), format!("object {}", objects[3])]);
    assert_eq!(stage.list("acme", "SN1").await.unwrap().iter().filter(|listed| listed.damaged).count(), 2);
}

/// With the volume lost the service starts for all groups; what is damaged stays listed as such.
#[tokio::test]
async fn a_lost_database_comes_back_beside_damage() {
    for checksums in [true, false] {
        let stage = Stage::prepared().await;
        stage.world.memory.keep_checksums(checksums);
        let (old, object) = stage.store("acme", "SN1", "old").await;
        let (new, _) = stage.store("acme", "SN1", "new").await;
        let (only, lonely) = stage.store("acme", "SN2", "the only one").await;
        let (other, _) = stage.store("other", "SN9", "nine").await;
        let taken_at = stage.list("acme", "SN1").await.unwrap()[1].taken_at;
        for damaged in [&object, &lonely] {
            stage.world.memory.damage(damaged, CHANGES[0].1);
        }
        let (mut world, epochs) = stage.stop().await;
        world.lose_database();
        let store = world.memory.clone();
        let stage = world.try_start(epochs, store).await.unwrap();
        assert_eq!(stage.get(STAFF, "acme", &new, true).await.unwrap(), config("new"));
        assert_eq!(stage.get(STAFF, "other", &other, true).await.unwrap(), config("nine"));
        let listed = stage.list("acme", "SN1").await.unwrap();
        assert_eq!((listed.len(), listed[1].damaged, &listed[1].id, listed[1].taken_at), (2, true, &old, taken_at));
        assert_damaged(&stage, &old, &object, "after the loss").await;
        // nothing but that it was there is known of a device all of whose objects are damaged
        let lonely_one = stage.list("acme", "").await.unwrap().into_iter().find(|listed| listed.id == only);
        let is_listed = |listed: &Snapshot| listed.damaged && listed.device.as_ref().unwrap().serial.is_empty();
        assert_eq!(lonely_one.as_ref().map(is_listed), (!checksums).then_some(true), "checksums: {checksums}");
        let report = stage.report().await;
        let integrity = |group: &str| report.groups.iter().find(|row| row.group == group).unwrap().integrity.clone().unwrap();
        assert_eq!((integrity("acme").state(), integrity("acme").damaged_count), (IntegrityState::Damaged, 2));
        let mut named = vec![format!("object {object}"), format!("object {lonely}")];
        named.sort();
        assert_eq!(integrity("acme").damaged, named);
        assert_eq!(integrity("other").state(), IntegrityState::Unspecified, "no whole scrub was seen");
        assert!(stage.put("acme", "SN2", &config("the only one")).await.unwrap().changed);
        // kept, whatever its lock says
        stage.advance(DAY * 40);
        stage.backup.sweep().await.unwrap();
        stage.backup.expire().await.unwrap();
        assert!(list_all(&*stage.world.memory, &lonely).await.unwrap().len() == 1);
    }
}

/// An object that the storage alone fails on stops neither a rebuild nor a scrub.
#[tokio::test]
async fn an_object_that_alone_cannot_be_read_is_damaged() {
    let stage = Stage::prepared().await;
    let (id, object) = stage.store("acme", "SN1", "one").await;
    stage.store("acme", "SN2", "two").await;
    stage.world.memory.set_broken(&object, true);
    stage.scrub().await;
    let rebuilt = stage.backup.rebuild().await.unwrap();
    assert_eq!((rebuilt.snapshots, rebuilt.damaged, &rebuilt.damaged_names[0]), (1, 1, &format!("object {object}")));
    assert!(stage.list("acme", "SN1").await.unwrap()[0].damaged);
    stage.world.memory.set_broken(&object, false);
    stage.scrub().await;
    assert_eq!(stage.get(STAFF, "acme", &id, true).await.unwrap(), config("one"));
    assert_eq!(stage.catalogue.damaged_count().await.unwrap(), 0);
    // a storage that is away is no damage
    stage.world.memory.set_outage(Some("no route"));
    assert!(stage.backup.rebuild().await.is_err());
    stage.world.memory.set_outage(None);
    assert_eq!(stage.catalogue.damaged_count().await.unwrap(), 0);
}

/// A missing key is an erasure only where that is on record: else what it seals is damaged, kept and named.
#[tokio::test]
async fn a_missing_key_is_no_erasure() {
    let stage = Stage::prepared().await;
    let (id, object) = stage.store("acme", "SN1", "one").await;
    let (other, _) = stage.store("acme", "SN2", "two").await;
    let device = object.split('/').nth(2).unwrap().to_owned();
    stage.world.disk.change(&format!("DELETE FROM keys WHERE subject = '{device}'")).await;
    stage.world.memory.lose("key-table");
    stage.backup.compare_key_table().await.unwrap();
    let refused = stage.get(STAFF, "acme", &id, true).await.unwrap_err();
    assert_eq!(refused.code(), Code::DataLoss, "{refused}");
    assert!(refused.message().contains("no erasure is on record"), "{refused}");
    let stage = stage.restart().await;
    let rebuilt = stage.backup.rebuild().await.unwrap();
    assert_eq!((rebuilt.snapshots, rebuilt.damaged), (1, 1));
    assert_eq!(stage.list("acme", "").await.unwrap().len(), 2);
    let (mut world, epochs) = stage.stop().await;
    world.lose_database();
    let store = world.memory.clone();
    let stage = world.try_start(epochs, store).await.unwrap();
    assert_eq!(stage.get(STAFF, "acme", &other, true).await.unwrap(), config("two"));
    stage.advance(DAY * 40);
    stage.put("acme", "SN2", &config("two")).await.unwrap();
    stage.backup.sweep().await.unwrap();
    assert_eq!(stage.backup.expire().await.unwrap().leftovers, 0);
    assert_eq!(list_all(&*stage.world.memory, &object).await.unwrap().len(), 1, "nobody erased it");
}

/// The newest undamaged snapshot of a living device never goes, also when nobody has noticed yet that the newer one is damaged.
#[tokio::test]
async fn the_newest_undamaged_snapshot_stays() {
    for noticed in [true, false] {
        let stage = Stage::prepared().await;
        let (sound, _) = stage.store("acme", "SN1", "sound").await;
        stage.advance(DAY);
        let (damaged, object) = stage.store("acme", "SN1", "damaged").await;
        stage.world.memory.damage(&object, CHANGES[0].1);
        if noticed {
            stage.scrub().await;
        }
        stage.advance(DAY * 100);
        stage.backup.expire().await.unwrap();
        stage.backup.expire().await.unwrap();
        assert_eq!(stage.get(STAFF, "acme", &sound, true).await.unwrap(), config("sound"), "noticed: {noticed}");
        let new = stage.put("acme", "SN1", &config("damaged")).await.unwrap();
        assert!(new.changed, "stored anew, although it has not changed");
        stage.backup.expire().await.unwrap();
        let left: Vec<_> = stage.list("acme", "SN1").await.unwrap().into_iter().map(|listed| listed.id).collect();
        assert!(!left.contains(&damaged) && left.contains(&new.snapshot.unwrap().id), "{left:?}");
    }
}

/// A newest snapshot that is gone, cut or emptied is never called unchanged, before any scrub has read it; where another version of the
/// object is sound, that is the snapshot's from then on.
#[tokio::test]
async fn what_is_gone_or_cut_is_not_called_unchanged() {
    for checksums in [true, false] {
        for what in ["gone", "cut", "emptied", "hidden"] {
            let stage = Stage::prepared().await;
            stage.world.memory.keep_checksums(checksums);
            let (id, object) = stage.store("acme", "SN1", "one").await;
            let sound = stage.world.memory.get(&object, None).await.unwrap();
            match what {
                "gone" => stage.world.memory.lose(&object),
                "cut" => stage.world.memory.damage(&object, CHANGES[1].1),
                _ => stage.world.memory.damage(&object, CHANGES[2].1),
            }
            if what == "hidden" {
                stage.world.memory.put(&object, sound, None).await.unwrap();
            }
            let again = stage.put("acme", "SN1", &config("one")).await.unwrap();
            assert_eq!(again.changed, what != "hidden", "{what}");
            let listed: Vec<_> = stage.list("acme", "SN1").await.unwrap().into_iter().map(|listed| (listed.id, listed.damaged)).collect();
            assert_eq!(listed.last(), Some(&(id, what != "hidden")), "{what}");
            assert!(!stage.put("acme", "SN1", &config("one")).await.unwrap().changed, "{what}");
        }
    }
}

/// A device whose description in the database is damaged hides none of the others, and comes back from its objects.
#[tokio::test]
async fn a_damaged_description_hides_nothing() {
    let stage = Stage::prepared().await;
    let (id, object) = stage.store("acme", "SN1", "one").await;
    stage.store("acme", "SN2", "two").await;
    let device = object.split('/').nth(2).unwrap().to_owned();
    let damage = format!("UPDATE devices SET sealed = substr(sealed, 2) WHERE incarnation = '{device}'");
    stage.world.disk.change(&damage).await;
    let listed = stage.list("acme", "").await.unwrap();
    assert_eq!(listed.len(), 2);
    for row in listed {
        let serial = if row.id == id { "" } else { "SN2" };
        assert_eq!(row.device.unwrap().serial, serial);
    }
    assert_eq!(stage.get(STAFF, "acme", &id, true).await.unwrap(), config("one"));
    assert_eq!(stage.attempts(0).await.len(), 1, "the outcomes of other devices are told");
    stage.backup.rebuild().await.unwrap();
    assert_eq!(stage.list("acme", "SN1").await.unwrap()[0].device.as_ref().unwrap().serial, "SN1");
    assert_eq!(stage.catalogue.damaged_count().await.unwrap(), 0);
}

/// A marker that is damaged or missing is put again where the key table says that the bucket is this service's.
#[tokio::test]
async fn a_damaged_marker_keeps_nothing_from_starting() {
    let stage = Stage::prepared().await;
    let (id, _) = stage.store("acme", "SN1", "one").await;
    let mut stage = stage;
    for lost in [false, true] {
        if lost {
            stage.world.memory.lose(MARKER);
        } else {
            stage.world.memory.damage(MARKER, CHANGES[0].1);
        }
        stage = stage.restart().await;
        assert_eq!(stage.get(STAFF, "acme", &id, true).await.unwrap(), config("one"));
        stage.backup.compare().await.unwrap();
    }
}

/// Devices that a version erased that recorded no erasures are on record by what they left.
#[tokio::test]
async fn what_an_earlier_version_erased_stays_erased() {
    let stage = Stage::prepared().await;
    let incarnation = stage.prepare("acme").await.unwrap();
    stage.store("acme", "GONE", "gone").await;
    stage.erase(crate::stage::OPERATOR, "acme", &incarnation, "GONE").await.unwrap();
    let erasures = stage.catalogue.erasures().await.unwrap();
    stage.world.disk.change("DELETE FROM erasures").await;
    let catalogue = stage.world.disk.catalogue().await;
    assert_eq!(catalogue.erasures().await.unwrap(), erasures);
    catalogue.close().await;
}
