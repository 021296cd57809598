//! What is erased is unreadable at once, by every path, whatever the locks of its objects say (C24, C25).

use jiff::SignedDuration;
use tonic::Code;
use tsujiban_objects::list_all;
use tsujiban_proto::backup::v1::{
    AcknowledgeSnapshotRequest, DiffSnapshotsRequest, GetHostKeyRequest, GetHostKeyResponse, PinHostKeyRequest, ReplaceHostKeyRequest,
    VerifySnapshotRequest,
};
use tsujiban_proto::lifecycle::v1::{DetachRequest, GroupState, PrepareRequest};
use tsujiban_proto::time::from_wire;
use tsujiban_service::testing::with_token;

use crate::stage::{HOST_KEY, OPERATOR, STAFF, Stage, config, device};

const DAY: SignedDuration = SignedDuration::from_hours(24);

async fn assert_unreadable(stage: &Stage, old: &str, new: &str, serial: &str) {
    let (mut backup, group) = (stage.backup(), || "acme".to_owned());
    let verify = VerifySnapshotRequest { group: group(), id: old.into() };
    let diff = DiffSnapshotsRequest { group: group(), old_id: old.into(), new_id: new.into(), reveal: true };
    let acknowledge = AcknowledgeSnapshotRequest { group: group(), id: old.into() };
    let replace = ReplaceHostKeyRequest { device: Some(device("acme", serial)), ..Default::default() };
    let codes = [
        stage.get(STAFF, "acme", old, true).await.unwrap_err().code(),
        stage.get(STAFF, "acme", new, false).await.unwrap_err().code(),
        stage.list("acme", serial).await.unwrap_err().code(),
        backup.verify_snapshot(with_token(STAFF, verify)).await.unwrap_err().code(),
        backup.diff_snapshots(with_token(STAFF, diff)).await.unwrap_err().code(),
        backup.acknowledge_snapshot(with_token(STAFF, acknowledge)).await.unwrap_err().code(),
        backup.replace_host_key(with_token(STAFF, replace)).await.unwrap_err().code(),
    ];
    assert_eq!(codes, [Code::NotFound; 7]);
    assert!(stage.attempts(0).await.iter().all(|attempt| attempt.device.as_ref().unwrap().serial != serial));
}

/// C24: a deleted device's configs are unreadable at once, and stay so after a restart and a rebuild; another device's are not
/// touched, and its sealed objects leave the storage when their lock has run out.
#[tokio::test]
async fn an_erased_device_is_unreadable_by_every_path() {
    let stage = Stage::prepared().await;
    let incarnation = stage.prepare("acme").await.unwrap();
    let old = stage.put("acme", "SN1", &config("one")).await.unwrap().snapshot.unwrap().id;
    let new = stage.put("acme", "SN1", &config("two")).await.unwrap().snapshot.unwrap();
    stage.put("acme", "SN2", &config("three")).await.unwrap();

    let erased = stage.erase(OPERATOR, "acme", &incarnation, "SN1").await.unwrap();
    assert_eq!((erased.snapshots, erased.last_object_until), (2, new.locked_until));
    assert_unreadable(&stage, &old, &new.id, "SN1").await;
    let keys = stage.backup().get_host_key(with_token("acme", GetHostKeyRequest { device: Some(device("acme", "SN1")) })).await.unwrap();
    assert_eq!(keys.into_inner(), GetHostKeyResponse::default());
    assert_eq!(stage.erase(OPERATOR, "acme", &incarnation, "SN1").await.unwrap().snapshots, 0, "erasing what is erased succeeds");

    let stage = stage.restart().await;
    let progress = stage.backup.rebuild().await.unwrap();
    assert_eq!((progress.objects, progress.snapshots, progress.unreadable), (3, 1, 2));
    assert_unreadable(&stage, &old, &new.id, "SN1").await;
    assert_eq!(stage.list("acme", "").await.unwrap().len(), 1);

    let again = stage.put("acme", "SN1", &config("two")).await.unwrap();
    assert!(again.changed, "a device of the same serial number is a new one");
    stage.advance(DAY * 34);
    for serial in ["SN1", "SN2"] {
        stage.put("acme", serial, &config("later")).await.unwrap();
    }
    assert_eq!(stage.backup.expire().await.unwrap().leftovers, 0);
    stage.advance(DAY);
    assert_eq!(stage.backup.expire().await.unwrap().leftovers, 2);
    assert_eq!(list_all(&*stage.world.memory, "v1/").await.unwrap().len(), 2);
}

/// C25: a deleted group is unreadable at once; its id is refused until its last data has left the storage.
#[tokio::test]
async fn an_erased_group_is_unreadable_and_its_id_is_refused() {
    let stage = Stage::prepared().await;
    let incarnation = stage.prepare("acme").await.unwrap();
    let stored = stage.put("acme", "SN1", &config("one")).await.unwrap().snapshot.unwrap();
    let erased = stage.erase(OPERATOR, "acme", &incarnation, "").await.unwrap();
    assert_eq!((erased.snapshots, erased.last_object_until), (1, stored.locked_until));
    assert_unreadable(&stage, &stored.id, &stored.id, "SN1").await;
    assert_eq!(stage.put("acme", "SN1", &config("one")).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(stage.erase(OPERATOR, "acme", &incarnation, "").await.unwrap().snapshots, 0);
    let group = stage.report().await.groups.into_iter().find(|g| g.incarnation == incarnation).unwrap();
    assert_eq!((group.state(), group.devices, group.snapshots), (GroupState::Erased, 0, 0));
    assert_eq!((group.stored_bytes, from_wire(&group.id_free_at.unwrap())), (stored.stored_bytes, Some(stage.now() + DAY * 35)));

    stage.advance(DAY * 35 - SignedDuration::from_secs(1));
    assert_eq!(stage.prepare("acme").await.unwrap_err().code(), Code::FailedPrecondition);
    stage.advance(SignedDuration::from_secs(1));
    stage.backup.expire().await.unwrap();
    assert!(list_all(&*stage.world.memory, "v1/").await.unwrap().is_empty());
    assert!(stage.report().await.groups.iter().all(|g| g.group != "acme"), "not even its name is left");
    assert_ne!(stage.prepare("acme").await.unwrap(), incarnation);
}

/// C25: with Retain nothing is lost, and the group that comes back finds its data.
#[tokio::test]
async fn a_detached_group_is_kept_and_relinks() {
    let stage = Stage::prepared().await;
    let incarnation = stage.prepare("acme").await.unwrap();
    let stored = stage.put("acme", "SN1", &config("one")).await.unwrap().snapshot.unwrap();
    assert_eq!(stage.erase(STAFF, "acme", &incarnation, "").await.unwrap_err().code(), Code::FailedPrecondition, "its Tenant lives");
    let detach = || DetachRequest { group: "acme".into(), incarnation: incarnation.clone() };
    stage.lifecycle().detach(with_token(OPERATOR, detach())).await.unwrap();
    stage.lifecycle().detach(with_token(OPERATOR, detach())).await.unwrap();
    assert_eq!(stage.get(STAFF, "acme", &stored.id, true).await.unwrap(), config("one"));
    assert_eq!(stage.put("acme", "SN1", &config("two")).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(stage.erase(STAFF, "acme", &incarnation, "SN1").await.unwrap_err().code(), Code::PermissionDenied);

    let prepare = |expected: &str| PrepareRequest { group: "acme".into(), expected_incarnation: expected.into(), ..Default::default() };
    let other = stage.lifecycle().prepare(with_token(OPERATOR, prepare(&"a".repeat(32)))).await.unwrap_err();
    assert_eq!(other.code(), Code::FailedPrecondition);
    let back = stage.lifecycle().prepare(with_token(OPERATOR, prepare(&incarnation))).await.unwrap().into_inner();
    assert_eq!((back.incarnation, back.created), (incarnation.clone(), false));
    assert!(!stage.put("acme", "SN1", &config("one")).await.unwrap().changed);

    stage.lifecycle().detach(with_token(OPERATOR, detach())).await.unwrap();
    stage.erase(STAFF, "acme", &incarnation, "").await.unwrap();
    assert_eq!(stage.get(STAFF, "acme", &stored.id, true).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(stage.lifecycle().detach(with_token(OPERATOR, detach())).await.unwrap_err().code(), Code::FailedPrecondition);
}

/// C24: an erasure is only answered as done when the key table's copy has lost the key too.
#[tokio::test]
async fn an_erasure_while_the_storage_is_down_is_unreadable_and_finished_later() {
    let stage = Stage::prepared().await;
    let incarnation = stage.prepare("acme").await.unwrap();
    let id = stage.put("acme", "SN1", &config("one")).await.unwrap().snapshot.unwrap().id;
    stage.world.memory.set_outage(Some("no route"));
    assert_eq!(stage.erase(OPERATOR, "acme", &incarnation, "SN1").await.unwrap_err().code(), Code::Unavailable);
    stage.world.memory.set_outage(None);
    assert_unreadable(&stage, &id, &id, "SN1").await;
    stage.erase(OPERATOR, "acme", &incarnation, "SN1").await.unwrap();
    let copies = list_all(&*stage.world.memory, "key-table").await.unwrap();
    assert_eq!(copies.len(), 1, "older copies are gone");
}

#[tokio::test]
async fn host_keys_are_pinned_once_and_replaced_knowingly() {
    let stage = Stage::prepared().await;
    let mut backup = stage.backup();
    let device = || Some(device("acme", "SN1"));
    let (first, second) = (HOST_KEY.to_owned(), "ssh-ed25519 QUJD".to_owned());
    let pin = |key: &String| with_token("acme", PinHostKeyRequest { device: device(), host_key: key.clone() });
    backup.pin_host_key(pin(&first)).await.unwrap();
    backup.pin_host_key(pin(&first)).await.unwrap();
    assert_eq!(backup.pin_host_key(pin(&second)).await.unwrap_err().code(), Code::Aborted);
    let replace = |expected: &String, key: &String| {
        with_token(STAFF, ReplaceHostKeyRequest { device: device(), expected: expected.clone(), host_key: key.clone() })
    };
    assert_eq!(backup.replace_host_key(replace(&second, &first)).await.unwrap_err().code(), Code::Aborted);
    backup.replace_host_key(replace(&first, &second)).await.unwrap();
    let keys = backup.get_host_key(with_token("acme", GetHostKeyRequest { device: device() })).await.unwrap().into_inner();
    assert_eq!((keys.pinned, keys.observed), (second.clone(), first));
    backup.replace_host_key(replace(&second, &String::new())).await.unwrap();
    backup.pin_host_key(pin(&second)).await.unwrap();
}
