//! Whoever listed a Device before it was erased stores nothing of it afterwards; a new Device with its serial number is another one.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::SignedDuration;
use tokio::sync::Notify;
use tonic::{Code, Status};
use tsujiban_backup::catalogue::{CatalogueError, DeviceRow};
use tsujiban_backup::life::DeviceUidHash;
use tsujiban_core::id::{IncarnationId, KeyId};
use tsujiban_objects::{AfterPut, Hooked, LockUntil, StoreError, Version, list_all};
use tsujiban_proto::backup::v1::put_snapshot_request::Part;
use tsujiban_proto::backup::v1::{
    DeviceRef, PinHostKeyRequest, PutSnapshotHeader, PutSnapshotRequest, PutSnapshotResponse, Reason, RecordAttemptRequest,
};
use tsujiban_proto::error::{DEVICE_ERASED, Kind, ServiceError};
use tsujiban_proto::lifecycle::v1::{EraseRequest, EraseResponse};
use tsujiban_service::testing::with_token;

use crate::stage::{HOST_KEY, OPERATOR, STAFF, Stage, World, config, device, header, put_messages, uid};

const DAY: SignedDuration = SignedDuration::from_hours(24);

fn in_life(life: u8) -> DeviceRef {
    DeviceRef { uid: uid("SN1", life), ..device("acme", "SN1") }
}

/// Erases device SN1 of group acme as the Device with this uid.
async fn erase(stage: &Stage, incarnation: &str, device_uid: String) -> Result<EraseResponse, Status> {
    let request = EraseRequest { group: "acme".into(), incarnation: incarnation.into(), device_serial: "SN1".into(), device_uid };
    stage.erase_as(OPERATOR, request).await
}

async fn put(stage: &Stage, device: DeviceRef, config: &[u8]) -> Result<PutSnapshotResponse, Status> {
    let header = PutSnapshotHeader { device: Some(device), ..header("acme", "SN1") };
    stage.send("acme", put_messages(header, config)).await
}

async fn record(stage: &Stage, device: DeviceRef) -> Result<(), Status> {
    let request = RecordAttemptRequest {
        device: Some(device),
        idempotency_key: header("acme", "SN1").idempotency_key,
        reason: Reason::Timeout.into(),
        message: "no answer".into(),
        host_key: String::new(),
    };
    stage.backup().record_attempt(with_token("acme", request)).await.map(drop)
}

async fn pin(stage: &Stage, device: DeviceRef) -> Result<(), Status> {
    let request = PinHostKeyRequest { device: Some(device), host_key: HOST_KEY.into() };
    stage.backup().pin_host_key(with_token("acme", request)).await.map(drop)
}

#[track_caller]
fn assert_erased<T: std::fmt::Debug>(answer: Result<T, Status>) {
    let error = ServiceError::from(&answer.unwrap_err());
    assert_eq!((error.kind, error.reason.as_str()), (Kind::Precondition, DEVICE_ERASED), "{error}");
    assert!(error.message.ends_with("leave it out, and list the Devices again"), "{error}");
}

async fn assert_all_refused(stage: &Stage) {
    assert_erased(put(stage, in_life(1), &config("late")).await);
    assert_erased(record(stage, in_life(1)).await);
    assert_erased(pin(stage, in_life(1)).await);
}

/// How many devices and objects there are of group acme.
async fn held(stage: &Stage) -> (u64, usize) {
    let group = stage.report().await.groups.into_iter().find(|group| group.group == "acme").unwrap();
    (group.devices, list_all(&*stage.world.memory, "v1/").await.unwrap().len())
}

/// C24: a collector that listed a Device before it was erased cannot make it anew by any method, also after a restart; the same
/// serial number under a new Device works, and is not touched by an erasure of the old one that is repeated.
#[tokio::test]
async fn what_was_listed_before_it_was_erased_is_refused() {
    let stage = Stage::prepared().await;
    let incarnation = stage.prepare("acme").await.unwrap();
    put(&stage, in_life(1), &config("one")).await.unwrap();
    assert_eq!(erase(&stage, &incarnation, uid("SN1", 1)).await.unwrap().snapshots, 1);
    assert_all_refused(&stage).await;
    assert_eq!((held(&stage).await, stage.attempts(0).await.len()), ((0, 1), 0));
    let stage = stage.restart().await;
    assert_all_refused(&stage).await;

    pin(&stage, in_life(2)).await.unwrap();
    record(&stage, in_life(2)).await.unwrap();
    let new = put(&stage, in_life(2), &config("two")).await.unwrap().snapshot.unwrap();
    assert_all_refused(&stage).await;
    assert_eq!(erase(&stage, &incarnation, uid("SN1", 1)).await.unwrap(), EraseResponse::default());
    assert_eq!(stage.get(STAFF, "acme", &new.id, true).await.unwrap(), config("two"));
    assert_eq!(erase(&stage, &incarnation, uid("SN1", 2)).await.unwrap().snapshots, 1);
    assert_eq!(stage.get(STAFF, "acme", &new.id, true).await.unwrap_err().code(), Code::NotFound);
}

/// C24: an erasure counts also when nothing was stored yet, and can be repeated; it is forgotten after 35 days.
#[tokio::test]
async fn an_erasure_of_nothing_counts_for_thirty_five_days() {
    let stage = Stage::prepared().await;
    let incarnation = stage.prepare("acme").await.unwrap();
    for _ in 0..2 {
        assert_eq!(erase(&stage, &incarnation, uid("SN1", 1)).await.unwrap(), EraseResponse::default());
        assert_all_refused(&stage).await;
    }
    assert_eq!(held(&stage).await, (0, 0));
    stage.advance(DAY * 35 - SignedDuration::from_secs(1));
    stage.backup.expire().await.unwrap();
    assert_all_refused(&stage).await;
    stage.advance(SignedDuration::from_secs(1));
    stage.backup.expire().await.unwrap();
    put(&stage, in_life(1), &config("one")).await.unwrap();
}

/// C24: the refusal comes at the header, before a config is sent.
#[tokio::test]
async fn a_config_of_an_erased_device_is_not_even_sent() {
    let stage = Stage::prepared().await;
    let incarnation = stage.prepare("acme").await.unwrap();
    erase(&stage, &incarnation, uid("SN1", 1)).await.unwrap();
    let (sender, messages) = tokio::sync::mpsc::channel(1);
    sender.send(PutSnapshotRequest { part: Some(Part::Header(header("acme", "SN1"))) }).await.unwrap();
    let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
    assert_erased(stage.backup().put_snapshot(with_token("acme", messages)).await);
}

/// C24: every write for a Device asks in its own transaction whether the Device was erased.
#[tokio::test]
async fn no_row_is_written_for_an_erased_device() {
    let stage = Stage::prepared().await;
    let incarnation = stage.prepare("acme").await.unwrap();
    erase(&stage, &incarnation, uid("SN1", 1)).await.unwrap();
    let row = DeviceRow {
        incarnation: IncarnationId::from_bytes([1; 16]),
        group: incarnation.parse().unwrap(),
        key_id: KeyId::from_bytes([2; 16]),
        serial_mac: vec![3],
        name_mac: vec![4],
        sealed: vec![5],
    };
    let life = |number| DeviceUidHash::of(&uid("SN1", number).parse().unwrap());
    let ended = |written: Result<bool, CatalogueError>| matches!(written, Err(CatalogueError::LifeEnded));
    assert!(ended(stage.catalogue.add_device(&row, &[], Some(&life(1))).await));
    assert!(stage.catalogue.add_device(&row, &[], Some(&life(2))).await.unwrap());
    assert!(ended(stage.catalogue.update_device(&row, &row.sealed, Some(&life(1))).await));
    assert!(stage.catalogue.update_device(&row, &row.sealed, Some(&life(2))).await.unwrap());
}

#[tokio::test]
async fn a_device_without_a_usable_uid_is_refused_with_what_to_do() {
    let stage = Stage::prepared().await;
    for bad in ["", "not a uid"] {
        let device = || DeviceRef { uid: bad.into(), ..device("acme", "SN1") };
        let answers = [put(&stage, device(), &config("one")).await.map(drop), record(&stage, device()).await, pin(&stage, device()).await];
        for refused in answers.map(Result::unwrap_err) {
            assert_eq!(refused.code(), Code::InvalidArgument);
            assert!(refused.message().contains("send the metadata.uid of the Device"), "{refused}");
        }
    }
    let incarnation = stage.prepare("acme").await.unwrap();
    let whole = EraseRequest { group: "acme".into(), incarnation, device_serial: String::new(), device_uid: uid("SN1", 1) };
    assert_eq!(stage.erase_as(OPERATOR, whole).await.unwrap_err().code(), Code::InvalidArgument);
    put(&stage, in_life(1), &config("one")).await.unwrap();
}

/// C25: nothing is stored for a group that is not prepared, or was erased.
#[tokio::test]
async fn only_a_prepared_group_takes_anything() {
    let stage = Stage::empty().await;
    for erased in [false, true] {
        if erased {
            let incarnation = stage.prepare("acme").await.unwrap();
            stage.erase(OPERATOR, "acme", &incarnation, "").await.unwrap();
        }
        let answers =
            [put(&stage, in_life(1), &config("one")).await.map(drop), record(&stage, in_life(1)).await, pin(&stage, in_life(1)).await];
        for refused in answers.map(|answer| ServiceError::from(&answer.unwrap_err())) {
            assert_eq!((refused.kind, refused.reason.as_str()), (Kind::Precondition, "GROUP_NOT_PREPARED"), "{refused}");
        }
    }
    assert!(list_all(&*stage.world.memory, "v1/").await.unwrap().is_empty());
}

/// Has the storage take an object and answer only when it is told to.
#[derive(Default)]
struct Slow {
    taken: Notify,
    answer: Notify,
}

#[async_trait]
impl AfterPut for Slow {
    async fn after_put(&self, key: &str, _: Option<LockUntil>, put: Result<Version, StoreError>) -> Result<Version, StoreError> {
        if put.is_ok() && key.starts_with("v1/") {
            self.taken.notify_one();
            self.answer.notified().await;
        }
        put
    }
}

/// C24: a config that is being stored while its device, or its whole group, is erased becomes no snapshot, by a rebuild neither;
/// its object goes when its lock has run out.
#[tokio::test]
async fn an_erasure_between_header_and_commit_wins() {
    for whole_group in [false, true] {
        let world = World::new();
        let store = Arc::new(Hooked::new(world.memory.clone(), Slow::default()));
        let epoch = world.epoch();
        let stage = world.try_start(vec![epoch], store.clone()).await.unwrap();
        let incarnation = stage.prepare("acme").await.unwrap();
        let erasure = async {
            store.hook.taken.notified().await;
            // so that the other call waits for its turn by now; if not, it is refused all the same
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            if whole_group {
                stage.erase(OPERATOR, "acme", &incarnation, "").await.unwrap();
            } else {
                erase(&stage, &incarnation, uid("SN1", 1)).await.unwrap();
            }
            store.hook.answer.notify_one();
        };
        let config = config("one");
        let (one, other, ()) = tokio::join!(put(&stage, in_life(1), &config), put(&stage, in_life(1), &config), erasure);
        for stored in [one, other] {
            if whole_group {
                assert!(matches!(stored.unwrap_err().code(), Code::NotFound | Code::FailedPrecondition));
            } else {
                assert_erased(stored);
            }
        }
        assert_eq!(held(&stage).await, (0, 1));
        assert!(stage.report().await.groups[0].stored_bytes > 0, "what is left over is known");
        let rebuilt = stage.backup.rebuild().await.unwrap();
        assert_eq!((rebuilt.objects, rebuilt.snapshots, rebuilt.unreadable), (1, 0, 1));
        assert_eq!((stage.attempts(0).await.len(), stage.backup.expire().await.unwrap().leftovers), (0, 0));
        stage.advance(DAY * 35);
        assert_eq!(stage.backup.expire().await.unwrap().leftovers, 1);
        assert!(list_all(&*stage.world.memory, "v1/").await.unwrap().is_empty());
    }
}
