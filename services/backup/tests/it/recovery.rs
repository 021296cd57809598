//! The cluster is brought back to an hour-old copy of its etcd, and with it the Secret of the epoch keys; database and bucket are not.

use jiff::SignedDuration;
use serde_json::{Value, json};
use tonic::Code;
use tsujiban_backup::envelope::{clear_part, split};
use tsujiban_backup::keytable::OBJECT;
use tsujiban_objects::Objects as _;
use tsujiban_proto::backup::v1::{DeviceRef, GetHostKeyRequest, PinHostKeyRequest};
use tsujiban_proto::error::{DEVICE_ERASED, ServiceError};
use tsujiban_proto::lifecycle::v1::{EraseRequest, PrepareRequest};
use tsujiban_sealing::{Context, SealedEpochKey, SystemRandom};
use tsujiban_service::testing::with_token;

use crate::stage::{HOST_KEY, OPERATOR, STAFF, Stage, config, device, uid};

const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);
const CLASS: &str = "key table";
const OTHER_HOST_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG90aGVyb3RoZXJvdGhlcm90aGVyb3RoZXJvdGhlcm90";

/// What becomes of the service when the cluster is brought back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Process {
    GoesOn,
    StartsAgain,
    /// And its volume is lost, too.
    StartsWithoutDatabase,
}

/// Group, snapshot and contents.
type Written = Vec<(&'static str, String, Vec<u8>)>;

async fn write(stage: &Stage, written: &mut Written, group: &'static str, serial: &str, text: &str) {
    let contents = config(text);
    let id = stage.put(group, serial, &contents).await.unwrap().snapshot.unwrap().id;
    written.push((group, id, contents));
}

async fn assert_readable(stage: &Stage, written: &Written) {
    for (group, id, contents) in written {
        assert_eq!(stage.get(STAFF, group, id, true).await.unwrap(), *contents, "{group} {id}");
    }
}

/// The operator makes an epoch key, and the service follows.
async fn rotate(stage: &mut Stage) -> String {
    let epoch = stage.world.epoch();
    let id = epoch.id.to_string();
    stage.epochs.push(epoch);
    stage.backup.rotate_keys(&stage.epochs).await.unwrap();
    id
}

async fn unopened(stage: &Stage) -> u64 {
    stage.backup.rotate_keys(&stage.epochs).await.unwrap().unopened
}

/// The cluster's Secret is again what it was.
async fn roll_back(mut stage: Stage, secret: &[SealedEpochKey], process: Process) -> Stage {
    stage.epochs = secret.to_vec();
    if process == Process::GoesOn {
        stage.backup.rotate_keys(&stage.epochs).await.unwrap();
        return stage;
    }
    let (mut world, epochs) = stage.stop().await;
    if process == Process::StartsWithoutDatabase {
        world.lose_database();
    }
    let store = world.memory.clone();
    let stage = world.try_start(epochs, store).await.unwrap();
    stage.backup.rotate_keys(&stage.epochs).await.unwrap();
    stage
}

/// C22, C23: what was stored before and after a rotation stays readable when the rotation is undone, new data is taken in, the next
/// rotation goes on, and a day later nothing of the lost epoch is left.
#[tokio::test]
async fn a_rotation_that_is_undone_loses_nothing() {
    for process in [Process::GoesOn, Process::StartsAgain, Process::StartsWithoutDatabase] {
        let mut stage = Stage::empty().await;
        stage.prepare("acme").await.unwrap();
        let mut written = Written::new();
        write(&stage, &mut written, "acme", "SN1", "before").await;
        let copied = stage.epochs.clone();

        // the hour after the copy: a rotation, and everything that can be new
        stage.advance(DAY * 7);
        let lost = rotate(&mut stage).await;
        stage.advance(HOUR / 2);
        stage.prepare("other").await.unwrap();
        write(&stage, &mut written, "acme", "SN1", "after").await;
        write(&stage, &mut written, "acme", "NEW", "new device").await;
        write(&stage, &mut written, "other", "SN9", "new group").await;
        stage.advance(HOUR / 2);

        let mut stage = roll_back(stage, &copied, process).await;
        assert_readable(&stage, &written).await;
        assert_eq!(unopened(&stage).await, 0, "{process:?}");
        assert!(!stage.put("acme", "NEW", &config("new device")).await.unwrap().changed, "{process:?}: it is known again");
        write(&stage, &mut written, "other", "SN9", "after the restoration").await;
        write(&stage, &mut written, "acme", "NEWER", "newer device").await;

        // the operator knows nothing of the lost epoch: its key is a week old, so it makes another one
        let next = rotate(&mut stage).await;
        assert_ne!(next, lost);
        write(&stage, &mut written, "acme", "NEWEST", "newest device").await;
        assert_readable(&stage, &written).await;
        let in_use = stage.report().await.epochs_in_use;
        assert!(in_use.contains(&copied[0].id.to_string()), "{process:?}: the operator must not destroy it yet");

        stage.advance(DAY);
        stage.backup.rotate_keys(&stage.epochs).await.unwrap();
        assert_eq!(stage.report().await.epochs_in_use, [next], "{process:?}");
        stage.epochs.remove(0);
        let stage = stage.restart().await;
        stage.backup.rotate_keys(&stage.epochs).await.unwrap();
        assert_readable(&stage, &written).await;
    }
}

/// C22: the end of an overlap that is undone leaves no key behind, neither in the database nor in the bucket's copy.
#[tokio::test]
async fn an_old_epoch_that_comes_back_is_not_used_again() {
    let mut stage = Stage::prepared().await;
    let mut written = Written::new();
    stage.advance(DAY * 7);
    let newest = rotate(&mut stage).await;
    write(&stage, &mut written, "acme", "SN1", "one").await;
    let copied = stage.epochs.clone();
    stage.advance(DAY);
    stage.backup.rotate_keys(&stage.epochs).await.unwrap();
    stage.epochs.remove(0); // the operator destroys it
    stage.backup.rotate_keys(&stage.epochs).await.unwrap();

    let stage = roll_back(stage, &copied, Process::StartsAgain).await;
    write(&stage, &mut written, "acme", "SN2", "two").await;
    assert_eq!(stage.report().await.epochs_in_use, [newest], "the operator may destroy it again");
    assert_readable(&stage, &written).await;
}

/// C22: while a rotation is young, an epoch key that is destroyed or missing by mistake is not needed either; a running service wraps
/// with what is there whatever only the missing key opens.
#[tokio::test]
async fn a_running_service_lets_no_key_go_that_is_needed() {
    let mut stage = Stage::prepared().await;
    let copied = stage.epochs.clone();
    stage.advance(DAY * 7);
    rotate(&mut stage).await;
    stage.advance(DAY);
    stage.backup.rotate_keys(&stage.epochs).await.unwrap();
    let mut written = Written::new();
    write(&stage, &mut written, "acme", "SN1", "only under the second epoch").await;

    // a copy older than a day
    let stage = roll_back(stage, &copied, Process::GoesOn).await;
    assert_eq!(unopened(&stage).await, 0);
    let stage = stage.restart().await;
    assert_readable(&stage, &written).await;
}

/// C22: a copy that is too old is told and destroys nothing: with the missing key everything is there again.
#[tokio::test]
async fn a_key_that_nothing_opens_stays_until_its_epoch_comes_back() {
    let mut stage = Stage::prepared().await;
    let copied = stage.epochs.clone();
    stage.advance(DAY * 7);
    rotate(&mut stage).await;
    stage.advance(DAY);
    stage.backup.rotate_keys(&stage.epochs).await.unwrap();
    let mut written = Written::new();
    write(&stage, &mut written, "acme", "SN1", "only under the second epoch").await;
    let second = stage.epochs[1].clone();

    let mut stage = roll_back(stage, &copied, Process::StartsAgain).await;
    assert_eq!(unopened(&stage).await, 3, "two groups and a device");
    let refused = stage.get(STAFF, "acme", &written[0].1, true).await.unwrap_err();
    assert!(refused.message().contains("bring it back to Secret tsujiban-epoch-keys"), "{refused}");
    assert!(stage.put("acme", "SN2", &config("two")).await.is_err());
    rotate(&mut stage).await;
    stage.advance(DAY * 2);
    stage.backup.rotate_keys(&stage.epochs).await.unwrap();
    stage.epochs.push(second);
    stage.backup.rotate_keys(&stage.epochs).await.unwrap();
    assert_eq!(unopened(&stage).await, 0);
    assert_readable(&stage, &written).await;
    assert!(stage.put("acme", "SN2", &config("two")).await.unwrap().changed);
}

async fn pin(stage: &Stage, life: u8, key: &str) -> Result<(), ServiceError> {
    let device = DeviceRef { uid: uid("SN1", life), ..device("acme", "SN1") };
    let pinned = stage.backup().pin_host_key(with_token("acme", PinHostKeyRequest { device: Some(device), host_key: key.into() })).await;
    pinned.map(drop).map_err(|status| ServiceError::from(&status))
}

async fn pinned(stage: &Stage) -> String {
    let request = GetHostKeyRequest { device: Some(device("acme", "SN1")) };
    stage.backup().get_host_key(with_token("acme", request)).await.unwrap().into_inner().pinned
}

/// C22, C24: a Device that was lost with the hour and is declared again is the same device: its snapshots are there and its pinned host
/// key holds. One that was erased in that hour and came back pins nothing and stores nothing.
#[tokio::test]
async fn no_host_key_is_trusted_anew() {
    let stage = Stage::prepared().await;
    let acme = stage.prepare("acme").await.unwrap();
    let mut written = Written::new();
    pin(&stage, 1, HOST_KEY).await.unwrap();
    write(&stage, &mut written, "acme", "SN1", "one").await;

    let declared_again = 2;
    assert_eq!(pinned(&stage).await, HOST_KEY);
    assert_eq!(pin(&stage, declared_again, OTHER_HOST_KEY).await.unwrap_err().reason, "HOST_KEY_PINNED");
    assert_eq!(pinned(&stage).await, HOST_KEY);
    assert_readable(&stage, &written).await;

    let erase =
        EraseRequest { group: "acme".into(), incarnation: acme, device_serial: "SN1".into(), device_uid: uid("SN1", declared_again) };
    stage.erase_as(OPERATOR, erase).await.unwrap();
    for key in [HOST_KEY, OTHER_HOST_KEY] {
        assert_eq!(pin(&stage, declared_again, key).await.unwrap_err().reason, DEVICE_ERASED);
    }
    assert_eq!(pinned(&stage).await, "");
    assert_eq!(stage.get(STAFF, "acme", &written[0].1, true).await.unwrap_err().code(), Code::NotFound);
}

/// C24: that a Device was erased is known after the loss of the database, too, and whoever keeps the Devices is told.
#[tokio::test]
async fn an_erased_device_stays_erased_when_the_database_is_lost_too() {
    let stage = Stage::prepared().await;
    let acme = stage.prepare("acme").await.unwrap();
    pin(&stage, 1, HOST_KEY).await.unwrap();
    for (serial, device_uid) in [("SN1", uid("SN1", 1)), ("NOTHING", uid("NOTHING", 1))] {
        let request = EraseRequest { group: "acme".into(), incarnation: acme.clone(), device_serial: serial.into(), device_uid };
        stage.erase_as(OPERATOR, request).await.unwrap();
    }
    let epochs = stage.epochs.clone();
    let told = stage.report().await.erased_devices;
    assert_eq!(told.len(), 2);
    let stage = roll_back(stage, &epochs, Process::StartsWithoutDatabase).await;
    assert_eq!(stage.report().await.erased_devices, told);
    for refused in [
        pin(&stage, 1, HOST_KEY).await.unwrap_err().reason,
        stage.put("acme", "NOTHING", &config("x")).await.unwrap_err().message().to_owned(),
    ] {
        assert!(refused == DEVICE_ERASED || refused.contains("deleted and its data erased"), "{refused}");
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, uid("SN1", 1).parse::<uuid::Uuid>().unwrap().as_bytes());
    assert!(told.iter().any(|told| told == digest.as_ref()), "by a digest that others can make, too");
}

/// C22: a host key that is given in the Device is pinned with the first config. Should the Device lose it, no other key is taken for
/// that of a first contact.
#[tokio::test]
async fn a_given_host_key_outlives_the_device_that_gave_it() {
    let stage = Stage::prepared().await;
    assert_eq!(pinned(&stage).await, "");
    stage.put("acme", "SN1", &config("fetched from a device whose key was given")).await.unwrap();
    assert_eq!(pinned(&stage).await, HOST_KEY);
    assert_eq!(pin(&stage, 1, OTHER_HOST_KEY).await.unwrap_err().reason, "HOST_KEY_PINNED");
}

/// C25: a group that was erased in that hour, and that the restored namespace still names, is refused with what to do, and so is one
/// of the same name.
#[tokio::test]
async fn an_erased_group_that_comes_back_is_told_so() {
    let stage = Stage::prepared().await;
    let acme = stage.prepare("acme").await.unwrap();
    stage.erase(OPERATOR, "acme", &acme, "").await.unwrap();
    let request = PrepareRequest { group: "acme".into(), expected_incarnation: acme.clone(), ..Default::default() };
    let refused = stage.lifecycle().prepare(with_token(OPERATOR, request)).await.unwrap_err();
    let refused = ServiceError::from(&refused);
    assert_eq!(refused.reason, "ERASED", "{refused}");
    assert!(refused.message.contains("delete the Tenant"), "{refused}");
    assert_eq!(ServiceError::from(&stage.prepare("acme").await.unwrap_err()).reason, "ID_NOT_FREE");
    assert_eq!(stage.report().await.groups.iter().filter(|group| group.group == "acme").count(), 1, "no other life began");
}

/// The key table's copy in the bucket as version 0.1.0 wrote it: sealed by the one epoch key, without what came later.
fn of_the_first_version(stage: &Stage, object: &[u8]) -> Vec<u8> {
    let epoch = stage.epochs[0].open(&stage.world.master).unwrap();
    let (header, parts) = split::<Value>(object).unwrap();
    // while one epoch key wraps, that version opens it as it is: what it does not know it leaves out
    assert!(header["key"].is_null() && header["epoch"] == epoch.id().as_str(), "{header}");
    let plain = epoch.open(Context { class: CLASS, record: parts.clear }, parts.sealed).unwrap();
    let mut copy: Value = serde_json::from_slice(&plain).unwrap();
    copy.as_object_mut().unwrap().remove("erased").unwrap();
    for key in copy["keys"].as_array_mut().unwrap() {
        key.as_object_mut().unwrap().remove("superseded_at").unwrap();
    }
    let clear = clear_part(&json!({"environment": header["environment"], "master": header["master"], "epoch": header["epoch"]})).unwrap();
    let sealed = epoch.seal(Context { class: CLASS, record: &clear }, copy.to_string().as_bytes(), &SystemRandom::new()).unwrap();
    [clear, sealed].concat()
}

/// C23: a copy that version 0.1.0 left in the bucket is read.
#[tokio::test]
async fn a_copy_of_the_first_version_is_read() {
    let stage = Stage::prepared().await;
    let mut written = Written::new();
    write(&stage, &mut written, "acme", "SN1", "one").await;
    let memory = stage.world.memory.clone();
    let old = of_the_first_version(&stage, &memory.get(OBJECT, None).await.unwrap());
    memory.put(OBJECT, old.into(), None).await.unwrap();
    let epochs = stage.epochs.clone();
    let stage = roll_back(stage, &epochs, Process::StartsWithoutDatabase).await;
    assert_readable(&stage, &written).await;
}
