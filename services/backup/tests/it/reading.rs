//! Staff read, compare and verify; secrets show only to those who may see them.

use tonic::Code;
use tsujiban_objects::{Objects, list_all};
use tsujiban_proto::backup::v1::{DiffSnapshotsRequest, ListSnapshotsRequest, VerifySnapshotRequest, VerifySnapshotResponse};
use tsujiban_service::testing::with_token;

use crate::stage::{NO_REVEAL, STAFF, Stage, config};

async fn two_snapshots() -> (Stage, String, String) {
    let stage = Stage::prepared().await;
    let old = stage.put("acme", "SN1", &config("one")).await.unwrap().snapshot.unwrap().id;
    let new = stage.put("acme", "SN1", &config("two")).await.unwrap().snapshot.unwrap().id;
    (stage, old, new)
}

async fn diff(stage: &Stage, token: &str, old: &str, new: &str, reveal: bool) -> Result<String, tonic::Status> {
    let request = DiffSnapshotsRequest { group: "acme".into(), old_id: old.into(), new_id: new.into(), reveal };
    Ok(stage.backup().diff_snapshots(with_token(token, request)).await?.into_inner().diff)
}

async fn verify(stage: &Stage, id: &str) -> VerifySnapshotResponse {
    let request = VerifySnapshotRequest { group: "acme".into(), id: id.into() };
    stage.backup().verify_snapshot(with_token(STAFF, request)).await.unwrap().into_inner()
}

/// C22: a secret leaves the service only with a right of its own.
#[tokio::test]
async fn secrets_are_hidden_unless_revealed() {
    let (stage, old, new) = two_snapshots().await;
    for token in [STAFF, NO_REVEAL] {
        let shown = String::from_utf8(stage.get(token, "acme", &old, false).await.unwrap()).unwrap();
        assert!(shown.contains("password <redacted>") && shown.contains("hostname one") && !shown.contains("hunter2"), "{shown}");
        let shown = diff(&stage, token, &old, &new, false).await.unwrap();
        assert_eq!(shown.lines().take(2).filter(|header| header.ends_with("+09:00")).count(), 2, "{shown}");
        assert!(shown.contains("-hostname one") && shown.contains("+password <redacted>") && !shown.contains("hunter2"), "{shown}");
    }
    assert_eq!(stage.get(NO_REVEAL, "acme", &old, true).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(diff(&stage, NO_REVEAL, &old, &new, true).await.unwrap_err().code(), Code::PermissionDenied);
    assert!(diff(&stage, STAFF, &old, &new, true).await.unwrap().contains("+password hunter2-two"));
    assert_eq!(diff(&stage, STAFF, &old, &old, false).await.unwrap(), "");
}

#[tokio::test]
async fn two_devices_are_not_compared() {
    let (stage, old, _) = two_snapshots().await;
    let other = stage.put("acme", "SN2", &config("two")).await.unwrap().snapshot.unwrap().id;
    assert_eq!(diff(&stage, STAFF, &old, &other, false).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn pages_have_everything_once() {
    let stage = Stage::prepared().await;
    for n in 0..7 {
        stage.put("acme", &format!("SN{}", n % 2), &config(&format!("r{n}"))).await.unwrap();
    }
    let (mut ids, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListSnapshotsRequest { group: "acme".into(), device: String::new(), page_size: 3, page_token };
        let page = stage.backup().list_snapshots(with_token(STAFF, request)).await.unwrap().into_inner();
        ids.extend(page.snapshots.into_iter().map(|snapshot| snapshot.id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(ids, stage.list("acme", "").await.unwrap().into_iter().map(|s| s.id).collect::<Vec<_>>());
    assert_eq!(ids.len(), 7);
}

/// C23: a snapshot whose object was exchanged, or lost its place, is not called intact.
#[tokio::test]
async fn verification_tells_a_sound_snapshot_from_a_damaged_one() {
    let (stage, old, new) = two_snapshots().await;
    let sound = verify(&stage, &old).await;
    assert!(sound.intact && sound.checks.len() == 2, "{sound:?}");
    stage.advance(jiff::SignedDuration::from_hours(24 * 36));
    let objects = list_all(&*stage.world.memory, "v1/").await.unwrap();
    let [first, second] = [0, 1].map(|n| objects[n].clone());
    let (one, two) = (stage.world.memory.get(&first.key, None).await.unwrap(), stage.world.memory.get(&second.key, None).await.unwrap());

    // the older object goes away altogether
    stage.world.memory.delete(&first.key, &first.version).await.unwrap();
    let gone = verify(&stage, &old).await;
    assert!(!gone.intact && gone.checks.iter().all(|check| !check.passed), "{gone:?}");
    assert_eq!(stage.get(STAFF, "acme", &old, false).await.unwrap_err().code(), Code::DataLoss);
    assert_ne!(one, two);
    assert!(verify(&stage, &new).await.checks.iter().any(|check| check.name == "contents" && check.passed));
}

#[tokio::test]
async fn wrong_requests_are_told_what_to_do() {
    let (stage, old, _) = two_snapshots().await;
    for (group, id, code) in
        [("acme", "nonsense", Code::NotFound), ("ACME", &old[..], Code::InvalidArgument), ("nobody", &old[..], Code::NotFound)]
    {
        assert_eq!(stage.get(STAFF, group, id, false).await.unwrap_err().code(), code, "{group} {id}");
    }
    let request = ListSnapshotsRequest { group: "acme".into(), page_size: 1001, ..Default::default() };
    assert_eq!(stage.backup().list_snapshots(with_token(STAFF, request)).await.unwrap_err().code(), Code::InvalidArgument);
}
