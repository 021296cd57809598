//! What an older version stored is read by this one: database file, sealed objects, keys. `past/VERSION/` holds what that version left
//! behind; `capture` writes the same of this version into target/past/, from where a release takes it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tsujiban_core::clock::{Clock as _, ManualClock};
use tsujiban_objects::{LockUntil, Memory, Objects, list_all};
use tsujiban_proto::backup::v1::{PinHostKeyRequest, Reason, RecordAttemptRequest};
use tsujiban_proto::lifecycle::v1::{DetachRequest, GroupState};
use tsujiban_sealing::{MasterKey, SealedEpochKey};
use tsujiban_service::testing::with_token;

use crate::stage::{Disk, FILE, HOST_KEY, OPERATOR, REGION, STAFF, Stage, World, config, device, header, uid};

/// What lies beside the database.
#[derive(Serialize, Deserialize)]
struct Past {
    now: Timestamp,
    master: String,
    epochs: Vec<SealedEpochKey>,
    /// In the order in which they were stored.
    objects: Vec<Object>,
}

#[derive(Serialize, Deserialize)]
struct Object {
    key: String,
    version: String,
    body: String,
    locked_until: Option<Timestamp>,
}

/// A life: two devices, a change, a config seen again, a device that failed, one that was erased, a group that is retained, one that is
/// erased, and a rotation of the epoch key whose overlap has not passed.
async fn lived() -> Stage {
    let mut stage = Stage::prepared().await;
    let retained = stage.prepare("retained").await.unwrap();
    let erased = stage.prepare("erased").await.unwrap();
    stage.put("acme", "SN1", &config("one")).await.unwrap();
    stage.put("acme", "SN2", &config("two")).await.unwrap();
    stage.put("acme", "SN3", &config("three")).await.unwrap();
    stage.put("other", "SN1", &config("of another group")).await.unwrap();
    let pin = PinHostKeyRequest { device: Some(device("acme", "SN1")), host_key: HOST_KEY.into() };
    stage.backup().pin_host_key(with_token("acme", pin)).await.unwrap();
    stage.advance(SignedDuration::from_hours(24));
    stage.put("acme", "SN1", &config("one, changed")).await.unwrap();
    stage.put("acme", "SN2", &config("two")).await.unwrap();
    let failed = RecordAttemptRequest {
        device: Some(device("other", "SN1")),
        idempotency_key: header("other", "SN1").idempotency_key,
        reason: Reason::Timeout.into(),
        message: "no answer".into(),
        host_key: String::new(),
    };
    stage.backup().record_attempt(with_token("other", failed)).await.unwrap();
    let acme = stage.prepare("acme").await.unwrap();
    let request = tsujiban_proto::lifecycle::v1::EraseRequest {
        group: "acme".into(),
        incarnation: acme,
        device_serial: "SN3".into(),
        device_uid: uid("SN3", 1),
    };
    stage.erase_as(OPERATOR, request).await.unwrap();
    let detach = DetachRequest { group: "retained".into(), incarnation: retained };
    stage.lifecycle().detach(with_token(OPERATOR, detach)).await.unwrap();
    stage.erase(OPERATOR, "erased", &erased, "").await.unwrap();
    stage.advance(SignedDuration::from_hours(1));
    stage.epochs.push(stage.world.epoch());
    stage.backup.rotate_keys(&stage.epochs).await.unwrap();
    stage
}

fn file(disk: &Disk) -> PathBuf {
    let Disk::Sqlite(dir) = disk else { panic!("what is kept is a SQLite file") };
    dir.path().join(FILE)
}

async fn capture(stage: Stage, to: &Path) {
    stage.catalogue.flush_log().await.unwrap();
    let (world, epochs) = stage.stop().await;
    let mut objects = Vec::new();
    for entry in list_all(&*world.memory, "").await.unwrap() {
        let head = world.memory.head(&entry.key, Some(&entry.version)).await.unwrap();
        let body = world.memory.get(&entry.key, Some(&entry.version)).await.unwrap();
        let locked_until = head.lock.map(|lock| lock.until);
        objects.push(Object { key: entry.key, version: entry.version.0, body: STANDARD.encode(body), locked_until });
    }
    objects.sort_by(|one, other| one.version.cmp(&other.version));
    let past = Past { now: world.clock.now(), master: STANDARD.encode(world.master.expose()), epochs, objects };
    std::fs::create_dir_all(to).unwrap();
    std::fs::copy(file(&world.disk), to.join("catalogue.db")).unwrap();
    std::fs::write(to.join("past.json"), serde_json::to_string_pretty(&past).unwrap()).unwrap();
}

/// A world in which the older version has just been stopped, and its epoch keys.
async fn world(from: &Path) -> (World, Vec<SealedEpochKey>) {
    let past: Past = serde_json::from_slice(&std::fs::read(from.join("past.json")).unwrap()).unwrap();
    let clock = Arc::new(ManualClock::new(past.now));
    let memory = Arc::new(Memory::new(clock.clone(), REGION));
    let mut last = 0;
    for object in past.objects {
        let version: u64 = object.version.parse().unwrap();
        // the catalogue names versions, and the storage in memory counts them: what was deleted before is counted, too
        for _ in last + 1..version {
            let deleted = memory.put("deleted", bytes::Bytes::new(), None).await.unwrap();
            memory.delete("deleted", &deleted).await.unwrap();
        }
        let body = STANDARD.decode(object.body).unwrap();
        let stored = memory.put(&object.key, body.into(), object.locked_until.map(LockUntil::at_least)).await.unwrap();
        assert_eq!(stored.0, object.version, "{}", object.key);
        last = version;
    }
    let disk = Disk::new();
    std::fs::copy(from.join("catalogue.db"), file(&disk)).unwrap();
    let master = MasterKey::from_bytes(&STANDARD.decode(past.master).unwrap()).unwrap();
    (World { clock, memory, master, disk }, past.epochs)
}

/// Starts this version on what an older one left, and checks that nothing of it is lost.
async fn goes_on(from: &Path) {
    let (world, epochs) = world(from).await;
    let store = world.memory.clone();
    let stage = world.try_start(epochs, store).await.unwrap();

    let contents = async |group: &str, name: &str| {
        let mut found = Vec::new();
        for snapshot in stage.list(group, name).await.unwrap() {
            found.push((stage.get(STAFF, group, &snapshot.id, true).await.unwrap(), snapshot.sightings));
        }
        found
    };
    assert_eq!(contents("acme", "router-sn1").await, [(config("one, changed"), 1), (config("one"), 1)]);
    assert_eq!(contents("acme", "router-sn2").await, [(config("two"), 2)]);
    assert_eq!(contents("other", "").await, [(config("of another group"), 1)]);
    assert!(stage.list("acme", "router-sn3").await.is_err(), "what was erased stays erased");
    let of = |group: &str, report: &tsujiban_proto::lifecycle::v1::ReportResponse| {
        report.groups.iter().find(|found| found.group == group).map(tsujiban_proto::lifecycle::v1::GroupReport::state)
    };
    let report = stage.report().await;
    assert_eq!(
        ["acme", "retained", "erased"].map(|group| of(group, &report)),
        [GroupState::Living, GroupState::Retained, GroupState::Erased].map(Some)
    );
    assert_eq!(report.epochs_in_use.len(), 2, "the rotation is in its overlap");
    let attempts = stage.attempts(0).await;
    let shown = |serial: &str, group: &str| {
        attempts
            .iter()
            .find(|attempt| attempt.device.as_ref().is_some_and(|device| device.serial == serial && device.group == group))
            .unwrap()
    };
    assert_eq!((shown("SN1", "other").reason(), shown("SN1", "other").message.as_str()), (Reason::Timeout, "no answer"));
    assert_eq!(shown("SN1", "acme").pinned_host_key, HOST_KEY);
    let refused = stage.put("acme", "SN3", &config("three")).await.unwrap_err();
    assert!(refused.message().contains("erased"), "a collector that listed the Device before its erasure is still refused: {refused}");
    assert!(stage.prepare("erased").await.unwrap_err().message().contains("has not expired"));

    // and life goes on: a change, a Device's next life, the end of the overlap, the expiry of what is old
    assert!(stage.put("acme", "SN1", &config("one, changed again")).await.unwrap().changed);
    stage.advance(SignedDuration::from_hours(25));
    stage.backup.rotate_keys(&stage.epochs).await.unwrap();
    assert_eq!(stage.report().await.epochs_in_use.len(), 1);
    assert_eq!(contents("acme", "router-sn1").await.len(), 3);
}

#[tokio::test]
async fn what_0_1_0_stored_is_read() {
    goes_on(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/past/0.1.0")).await;
}

/// The control: the same of this version, which the next one will have to read.
#[tokio::test]
async fn what_this_version_stores_is_captured() {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/past").join(env!("CARGO_PKG_VERSION"));
    capture(lived().await, &target).await;
    goes_on(&target).await;
}
