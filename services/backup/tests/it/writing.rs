//! A database or a storage that fails: callers are told before anything is left behind, and the service goes on by itself.

use jiff::SignedDuration;
use tonic::{Code, Status};
use tsujiban_database::testing::{Fault, Faults};
use tsujiban_objects::{Objects as _, list_all};
use tsujiban_proto::backup::v1::{AcknowledgeSnapshotRequest, GetHostKeyRequest, PinHostKeyRequest, ReplaceHostKeyRequest};
use tsujiban_proto::error::ServiceError;
use tsujiban_proto::lifecycle::v1::{DetachRequest, GroupState, PrepareRequest};
use tsujiban_service::testing::with_token;
use tsujiban_service::writing::Resource;

use crate::export::{export, import};
use crate::stage::{Disk, HOST_KEY, OPERATOR, STAFF, Stage, config, device};

async fn faults(stage: &Stage) -> Faults {
    match &stage.world.disk {
        Disk::Sqlite(_) => Faults::sqlite(stage.catalogue.database().clone()),
        Disk::Postgres(tables) => Faults::postgres(&tables.get().unwrap().superuser).await,
    }
}

/// What the service's job does every few seconds.
async fn tried_again(stage: &Stage) {
    stage.backup.try_write().await.unwrap();
    stage.backup.writing.works(Resource::Database);
}

/// Every statement and every COMMIT of taking configs in, preparing, erasing, rotating, forgetting and rebuilding.
#[tokio::test]
async fn after_any_fault_the_next_call_works() {
    let stage = Stage::prepared().await;
    let faults = faults(&stage).await;
    let mut steps = 0_u32;
    for fault in Fault::ALL {
        let mut nth = 1;
        loop {
            steps += 1;
            let (group, device) = (format!("group-{steps}"), format!("SN{steps}"));
            let mut struck = false;
            let what = format!("{fault:?} {nth}");

            faults.arm(fault, nth).await;
            let _ = stage.prepare(&group).await;
            struck |= faults.disarm().await;
            tried_again(&stage).await;
            let incarnation = stage.prepare(&group).await.unwrap_or_else(|error| panic!("{what}: prepare: {error}"));

            faults.arm(fault, nth).await;
            let _ = stage.put("acme", &device, &config("one")).await;
            struck |= faults.disarm().await;
            tried_again(&stage).await;
            stage.put("acme", &device, &config("one")).await.unwrap_or_else(|error| panic!("{what}: put: {error}"));
            stage.put("acme", &device, &config("one")).await.unwrap_or_else(|error| panic!("{what}: put again: {error}"));

            faults.arm(fault, nth).await;
            let _ = stage.erase(OPERATOR, &group, &incarnation, "").await;
            struck |= faults.disarm().await;
            tried_again(&stage).await;
            stage.erase(OPERATOR, &group, &incarnation, "").await.unwrap_or_else(|error| panic!("{what}: erase: {error}"));
            if !struck {
                break;
            }
            nth += 1 + nth / 3;
        }
    }
    for nth in [1, 2, 3, 5, 9] {
        for fault in Fault::ALL {
            stage.advance(SignedDuration::from_hours(25));
            let epochs = [stage.world.epoch()];
            faults.arm(fault, nth).await;
            let _ = stage.backup.rotate_keys(&epochs).await;
            let _ = stage.backup.expire().await;
            let _ = stage.backup.rebuild().await;
            faults.disarm().await;
            tried_again(&stage).await;
            stage.backup.rotate_keys(&epochs).await.unwrap();
            stage.backup.expire().await.unwrap();
            stage.backup.rebuild().await.unwrap();
        }
    }
    assert!(stage.put("acme", "SN1", &config("two")).await.unwrap().changed);
}

/// One call of those that [`after_any_fault_the_next_call_works`] leaves out.
#[derive(Debug, Clone, Copy)]
enum Writes {
    Pin,
    Replace,
    Acknowledge,
    Detach,
    Import,
    Adopt,
    TakeOn,
    RenewKey,
}

impl Writes {
    const ALL: [Self; 8] =
        [Self::Pin, Self::Replace, Self::Acknowledge, Self::Detach, Self::Import, Self::Adopt, Self::TakeOn, Self::RenewKey];
}

/// What the calls are made on: a device of its own for each try, with a snapshot.
struct Tried {
    serial: String,
    incarnation: String,
    snapshot: String,
    exported: Vec<u8>,
}

impl Tried {
    async fn new(stage: &Stage, serial: String, writes: Writes) -> Self {
        let incarnation = stage.prepare("acme").await.unwrap();
        let long = [b"frr version 8.4.4\n".to_vec(), b"! a long line that is there\n".repeat(20), config("one")].concat();
        stage.put("acme", &serial, &long).await.unwrap();
        let (snapshot, object) = stage.store("acme", &serial, "one").await;
        let mut exported = Vec::new();
        match writes {
            Writes::Import => {
                exported = export(stage, "acme", &incarnation).await;
                stage.catalogue.forget_snapshot(&snapshot.parse().unwrap()).await.unwrap();
            }
            Writes::Adopt => stage.catalogue.forget_snapshot(&snapshot.parse().unwrap()).await.unwrap(),
            Writes::RenewKey => {
                let device = object.split('/').nth(2).unwrap();
                stage.world.disk.change(&format!("UPDATE keys SET wrapped = substr(wrapped, 2) WHERE subject = '{device}'")).await;
                stage.world.memory.lose(tsujiban_backup::keytable::OBJECT);
            }
            Writes::TakeOn => {
                let lost = format!("v1/{:0>32}/{:0>32}/{:0>32}", hex::encode(&serial), 1, 1);
                stage.world.memory.put(&lost, bytes::Bytes::from_static(b"of a group whose key is lost"), None).await.unwrap();
            }
            _ => {}
        }
        Self { serial, incarnation, snapshot, exported }
    }

    async fn call(&self, stage: &Stage, writes: Writes) -> Result<(), Status> {
        let group = || "acme".to_owned();
        let named = || Some(device("acme", &self.serial));
        match writes {
            Writes::Pin => {
                let pin = PinHostKeyRequest { device: Some(device("acme", &format!("{}P", self.serial))), host_key: HOST_KEY.into() };
                stage.backup().pin_host_key(with_token("acme", pin)).await.map(drop)
            }
            Writes::Replace => {
                let asked = GetHostKeyRequest { device: named() };
                let pinned = stage.backup().get_host_key(with_token("acme", asked)).await?.into_inner().pinned;
                let replace = ReplaceHostKeyRequest { device: named(), expected: pinned, host_key: String::new() };
                stage.backup().replace_host_key(with_token(STAFF, replace)).await.map(drop)
            }
            Writes::Acknowledge => {
                let acknowledge = AcknowledgeSnapshotRequest { group: group(), id: self.snapshot.clone() };
                stage.backup().acknowledge_snapshot(with_token(STAFF, acknowledge)).await.map(drop)
            }
            Writes::Detach => {
                let detach = DetachRequest { group: group(), incarnation: self.incarnation.clone() };
                stage.lifecycle().detach(with_token(OPERATOR, detach)).await.map(drop)
            }
            Writes::Import => import(stage, "acme", &self.incarnation, &self.exported).await.map(drop),
            Writes::Adopt => stage.backup.compare().await.map(drop).map_err(Status::from),
            Writes::TakeOn => {
                let expected_incarnation = format!("{:0>32}", hex::encode(&self.serial));
                let request =
                    PrepareRequest { group: format!("g-{}", self.serial.to_lowercase()), expected_incarnation, ..Default::default() };
                stage.lifecycle().prepare(with_token(OPERATOR, request)).await.map(drop)
            }
            Writes::RenewKey => stage.put("acme", &self.serial, &config("one")).await.map(drop),
        }
    }

    /// That what the call says it did is done.
    async fn assert_done(&self, stage: &Stage, writes: Writes, what: &str) {
        let shown = stage.list("acme", &self.serial).await.unwrap();
        let asked = async |serial: &str| {
            let asked = GetHostKeyRequest { device: Some(device("acme", serial)) };
            stage.backup().get_host_key(with_token("acme", asked)).await.unwrap().into_inner().pinned
        };
        match writes {
            Writes::Pin => assert_eq!(asked(&format!("{}P", self.serial)).await, HOST_KEY, "{what}"),
            Writes::Replace => assert_eq!(asked(&self.serial).await, "", "{what}"),
            Writes::Acknowledge => assert!(!shown[0].shrunk, "{what}"),
            Writes::Detach => {
                let group = stage.report().await.groups.into_iter().find(|group| group.group == "acme").unwrap();
                assert_eq!(group.state(), GroupState::Retained, "{what}");
                stage.prepare("acme").await.unwrap();
            }
            Writes::Import | Writes::Adopt => assert_eq!(shown[0].id, self.snapshot, "{what}"),
            Writes::TakeOn => {
                let name = format!("g-{}", self.serial.to_lowercase());
                assert!(stage.report().await.groups.iter().any(|group| group.group == name), "{what}");
            }
            Writes::RenewKey => {
                assert_eq!(shown.iter().filter(|listed| !listed.damaged).count(), 1, "{what}");
                assert_eq!(stage.get(STAFF, "acme", &shown[0].id, true).await.unwrap(), config("one"), "{what}");
            }
        }
    }
}

/// Every statement and every COMMIT of host keys, acknowledging, detaching, importing, adopting, and going on without lost keys.
#[tokio::test]
async fn after_any_fault_every_other_call_works_too() {
    for writes in Writes::ALL {
        let stage = Stage::prepared().await;
        let faults = faults(&stage).await;
        let mut steps = 0_u32;
        for fault in Fault::ALL {
            let mut nth = 1;
            loop {
                steps += 1;
                let what = format!("{writes:?}, {fault:?} {nth}");
                let tried = Tried::new(&stage, format!("SN{steps}"), writes).await;
                faults.arm(fault, nth).await;
                let _ = tried.call(&stage, writes).await;
                let struck = faults.disarm().await;
                tried_again(&stage).await;
                tried.call(&stage, writes).await.unwrap_or_else(|error| panic!("{what}: {error}"));
                tried.assert_done(&stage, writes, &what).await;
                if !struck {
                    break;
                }
                nth += 1 + nth / 3;
            }
        }
        assert!(steps > 2, "{writes:?} was struck");
    }
}

/// The storage's outage leaves the service ready: it says what became of each attempt.
#[tokio::test]
async fn a_storage_that_takes_nothing_is_reported_until_it_does() {
    let stage = Stage::prepared().await;
    stage.put("acme", "SN1", &config("one")).await.unwrap();
    assert!(stage.report().await.writing.unwrap().able);
    stage.world.memory.set_outage(Some("no route"));
    stage.put("acme", "SN1", &config("two")).await.unwrap_err();
    let told = stage.report().await.writing.unwrap();
    assert!(!told.able && told.reason.contains("no route"), "{told:?}");
    assert!(stage.backup.writing.is_ready());
    stage.backup.try_write().await.unwrap();
    assert!(!stage.report().await.writing.unwrap().able);
    stage.world.memory.set_outage(None);
    // nobody has to store anything for it
    stage.backup.try_write().await.unwrap();
    assert!(stage.report().await.writing.unwrap().able);
    assert!(list_all(&*stage.world.memory, "canary/").await.unwrap().iter().all(|entry| !entry.key.ends_with("-put")));
}

/// A database that fails makes every call before the next successful write end before it puts an object, which would be in no catalogue.
#[tokio::test]
async fn no_object_is_left_behind_while_nothing_can_be_written() {
    let stage = Stage::prepared().await;
    stage.put("acme", "SN1", &config("one")).await.unwrap();
    let objects = async || list_all(&*stage.world.memory, "v1/").await.unwrap().len();
    let faults = faults(&stage).await;
    // with SQLite the first steps are those of the connection that is prepared
    let mut nth = 1;
    let first = loop {
        faults.arm(Fault::Connection, nth).await;
        let put = stage.put("acme", &format!("SN1{nth}"), &config("two")).await;
        faults.disarm().await;
        match put {
            Ok(_) => nth += 1,
            Err(first) => break first,
        }
    };
    assert_eq!(first.code(), Code::Unavailable, "{first}");
    let before = objects().await;
    assert_eq!(before, usize::try_from(nth).unwrap(), "that of SN1, and of each that was stored");
    for n in 0..5 {
        let refused = stage.put("acme", "SN2", &config(&n.to_string())).await.unwrap_err();
        assert_eq!(ServiceError::from(&refused).reason, "CANNOT_WRITE", "{refused}");
        assert!(refused.message().contains("the database cannot be written"), "{refused}");
    }
    assert_eq!(objects().await, before);
    let told = stage.report().await.writing.unwrap();
    assert!(!told.able && !stage.backup.writing.is_ready());
    // reading goes on
    assert_eq!(stage.list("acme", "SN1").await.unwrap().len(), 1);
    tried_again(&stage).await;
    assert!(stage.put("acme", "SN2", &config("two")).await.unwrap().changed);
}
