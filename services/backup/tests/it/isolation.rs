//! Nothing leaks from one group to another (C7), and nobody calls what is not for them.

use std::collections::BTreeSet;

use tonic::{Code, Status};
use tsujiban_backup::rpc::SERVICES;
use tsujiban_proto::access::v1::{Rule, Workload};
use tsujiban_proto::backup::v1::{
    AcknowledgeSnapshotRequest, DiffSnapshotsRequest, GetHostKeyRequest, ListAttemptsRequest, ListSnapshotsRequest, PinHostKeyRequest,
    Reason, RebuildCatalogueRequest, RecordAttemptRequest, ReplaceHostKeyRequest, VerifySnapshotRequest,
};
use tsujiban_proto::lifecycle::v1::import_request::Part;
use tsujiban_proto::lifecycle::v1::{
    DetachRequest, EraseRequest, ExportRequest, ImportHeader, ImportRequest, PrepareRequest, ReportRequest,
};
use tsujiban_proto::rules::Rules;
use tsujiban_service::testing::with_token;

use crate::stage::{HOST_KEY, Stage, config, device, header, put_messages};

/// What a call needs to know of group `other`.
struct Other {
    incarnation: String,
    old: String,
    new: String,
}

/// Calls a method for group `other` with a token. A method that is not here fails the test, so that none is forgotten.
async fn call(stage: &Stage, path: &str, token: &str, other: &Other) -> Result<(), Status> {
    let group = || "other".to_owned();
    let device = || Some(device("other", "SN9"));
    let (mut backup, mut lifecycle) = (stage.backup(), stage.lifecycle());
    match path.rsplit_once('.').unwrap().1 {
        "BackupService/PutSnapshot" => stage.send(token, put_messages(header("other", "SN9"), &config("b"))).await.map(drop),
        "BackupService/RecordAttempt" => {
            let idempotency_key = header("other", "SN9").idempotency_key;
            let request = RecordAttemptRequest { device: device(), idempotency_key, reason: Reason::Auth.into(), ..Default::default() };
            backup.record_attempt(with_token(token, request)).await.map(drop)
        }
        "BackupService/ListAttempts" => backup.list_attempts(with_token(token, ListAttemptsRequest::default())).await.map(drop),
        "BackupService/GetHostKey" => backup.get_host_key(with_token(token, GetHostKeyRequest { device: device() })).await.map(drop),
        "BackupService/PinHostKey" => {
            backup.pin_host_key(with_token(token, PinHostKeyRequest { device: device(), host_key: HOST_KEY.into() })).await.map(drop)
        }
        "BackupService/ReplaceHostKey" => {
            let request = ReplaceHostKeyRequest { device: device(), expected: String::new(), host_key: HOST_KEY.into() };
            backup.replace_host_key(with_token(token, request)).await.map(drop)
        }
        "BackupService/ListSnapshots" => {
            backup.list_snapshots(with_token(token, ListSnapshotsRequest { group: group(), ..Default::default() })).await.map(drop)
        }
        "BackupService/GetSnapshot" => stage.get(token, "other", &other.old, false).await.map(drop),
        "BackupService/DiffSnapshots" => {
            let request = DiffSnapshotsRequest { group: group(), old_id: other.old.clone(), new_id: other.new.clone(), reveal: false };
            backup.diff_snapshots(with_token(token, request)).await.map(drop)
        }
        "BackupService/VerifySnapshot" => {
            backup.verify_snapshot(with_token(token, VerifySnapshotRequest { group: group(), id: other.old.clone() })).await.map(drop)
        }
        "BackupService/AcknowledgeSnapshot" => {
            let request = AcknowledgeSnapshotRequest { group: group(), id: other.old.clone() };
            backup.acknowledge_snapshot(with_token(token, request)).await.map(drop)
        }
        "BackupService/RebuildCatalogue" => backup.rebuild_catalogue(with_token(token, RebuildCatalogueRequest {})).await.map(drop),
        "LifecycleService/Prepare" => {
            let request = PrepareRequest { group: group(), expected_incarnation: String::new(), ..Default::default() };
            lifecycle.prepare(with_token(token, request)).await.map(drop)
        }
        "LifecycleService/Detach" => {
            let request = DetachRequest { group: group(), incarnation: other.incarnation.clone() };
            lifecycle.detach(with_token(token, request)).await.map(drop)
        }
        "LifecycleService/Export" => {
            let request = ExportRequest { group: group(), incarnation: other.incarnation.clone() };
            lifecycle.export(with_token(token, request)).await.map(drop)
        }
        "LifecycleService/Import" => {
            let header = ImportHeader { group: group(), incarnation: other.incarnation.clone() };
            let messages = tokio_stream::iter([ImportRequest { part: Some(Part::Header(header)) }]);
            lifecycle.import(with_token(token, messages)).await.map(drop)
        }
        "LifecycleService/Erase" => {
            let (incarnation, device_serial) = (other.incarnation.clone(), "SN9".into());
            let request = EraseRequest { group: group(), incarnation, device_serial, device_uid: String::new() };
            lifecycle.erase(with_token(token, request)).await.map(drop)
        }
        "LifecycleService/Report" => lifecycle.report(with_token(token, ReportRequest { group: group() })).await.map(drop),
        _ => panic!("method {path} is new; add a call of it here"),
    }
}

/// The methods of this service.
fn own(rules: &Rules) -> impl Iterator<Item = (&str, &Rule)> {
    rules.iter().filter(|(path, _)| SERVICES.iter().any(|service| path.starts_with(&format!("/{service}/"))))
}

async fn stage_with_other() -> (Stage, Other) {
    let stage = Stage::prepared().await;
    let old = stage.put("other", "SN9", &config("a")).await.unwrap().snapshot.unwrap().id;
    let new = stage.put("other", "SN9", &config("b")).await.unwrap().snapshot.unwrap().id;
    let incarnation = stage.prepare("other").await.unwrap();
    (stage, Other { incarnation, old, new })
}

/// C7: every method, called with the token of group A's collector for group B, is denied and changes nothing.
#[tokio::test]
async fn no_method_lets_a_collector_into_another_group() {
    let (stage, other) = stage_with_other().await;
    let before = (stage.list("other", "").await.unwrap(), stage.attempts(0).await, stage.report().await);
    let rules = Rules::load().unwrap();
    assert!(own(&rules).count() >= 18);
    for (path, _) in own(&rules) {
        assert_eq!(call(&stage, path, "acme", &other).await.unwrap_err().code(), Code::PermissionDenied, "{path}");
    }
    assert_eq!((stage.list("other", "").await.unwrap(), stage.attempts(0).await, stage.report().await), before);
}

/// The control: the same calls pass for those whom the contract names, and for nobody else.
#[tokio::test]
async fn each_method_is_open_to_those_whom_its_contract_names() {
    let rules = Rules::load().unwrap();
    for (path, rule) in own(&rules) {
        let (stage, other) = stage_with_other().await;
        let workloads: BTreeSet<_> = rule.workloads().collect();
        for (token, open) in [("other", workloads.contains(&Workload::Collector)), ("operator", workloads.contains(&Workload::Operator))] {
            let denied = call(&stage, path, token, &other).await.is_err_and(|status| status.code() == Code::PermissionDenied);
            assert_eq!(!denied, open, "{path} by {token}");
        }
        assert_eq!(call(&stage, path, "nobody", &other).await.unwrap_err().code(), Code::Unauthenticated, "{path}");
    }
}

/// C7: an id of another group's snapshot is as unknown as one that never was.
#[tokio::test]
async fn staff_cannot_reach_a_snapshot_through_the_wrong_group() {
    let (stage, other) = stage_with_other().await;
    let there = stage.get(crate::stage::STAFF, "acme", &other.old, true).await.unwrap_err();
    let never = stage.get(crate::stage::STAFF, "acme", &"0".repeat(32), true).await.unwrap_err();
    assert_eq!((there.code(), never.code()), (Code::NotFound, Code::NotFound));
    assert_eq!(there.message().replace(&other.old, "*"), never.message().replace(&"0".repeat(32), "*"));
}

/// C7: the same serial number in two groups is two devices.
#[tokio::test]
async fn the_same_serial_number_in_two_groups_is_two_devices() {
    let stage = Stage::prepared().await;
    stage.put("acme", "SN1", &config("same")).await.unwrap();
    assert!(stage.put("other", "SN1", &config("same")).await.unwrap().changed);
    let incarnation = stage.prepare("acme").await.unwrap();
    stage.erase("operator", "acme", &incarnation, "SN1").await.unwrap();
    assert_eq!(stage.list("other", "SN1").await.unwrap().len(), 1);
}
