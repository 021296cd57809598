//! C5, C22: a config with its secrets leaves the service only when the history says so beforehand.

use std::sync::Arc;

use prometheus::Registry;
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Code;
use tsujiban_backup::service::Parts;
use tsujiban_proto::audit::v1::{Operation, Phase};
use tsujiban_proto::backup::v1::DiffSnapshotsRequest;
use tsujiban_proto::error::ServiceError;
use tsujiban_sealing::SystemRandom;
use tsujiban_service::history::{self, HISTORY_UNAVAILABLE, History, HistoryClient};
use tsujiban_service::testing::{FakeAudit, Mood, with_token};

use crate::stage::{NO_REVEAL, STAFF, Stage, World, config};

/// A service in front of a history that is as good as a test wants it.
async fn with_history() -> (Stage, FakeAudit, TempDir, DropGuard) {
    let (world, audit, spool) = (World::new(), FakeAudit::start().await, tempfile::tempdir().unwrap());
    let epoch = world.epoch();
    let parts = world.parts(std::slice::from_ref(&epoch), world.memory.clone()).await;
    let history = history::Parts {
        service: "tsujiban-backup",
        dir: spool.path().join("spool"),
        bytes: 0,
        keyring: Arc::clone(&parts.keyring),
        ledger: Arc::new(HistoryClient::new(&audit.args()).unwrap()),
        clock: world.clock.clone(),
        random: Arc::new(SystemRandom::new()),
    };
    let (history, delivery) = History::open(history, &Registry::new()).unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(delivery.run(stop.clone()));
    let stage = world.run(vec![epoch], Parts { history: Some(history), ..parts }).await.unwrap();
    (stage, audit, spool, stop.drop_guard())
}

async fn diff(stage: &Stage, token: &str, (old, new): (&str, &str), reveal: bool) -> Result<String, tonic::Status> {
    let request = DiffSnapshotsRequest { group: "acme".into(), old_id: old.into(), new_id: new.into(), reveal };
    Ok(stage.backup().diff_snapshots(with_token(token, request)).await?.into_inner().diff)
}

#[tokio::test]
async fn secrets_leave_only_when_the_history_says_so_beforehand() {
    let (stage, audit, _spool, _stop) = with_history().await;
    stage.prepare("acme").await.unwrap();
    let old = stage.put("acme", "SN1", &config("one")).await.unwrap().snapshot.unwrap().id;
    let new = stage.put("acme", "SN1", &config("two")).await.unwrap().snapshot.unwrap().id;

    audit.is(Mood::Down);
    let got = stage.get(STAFF, "acme", &old, true).await.unwrap_err();
    let compared = diff(&stage, STAFF, (&old, &new), true).await.unwrap_err();
    for refused in [got, compared] {
        assert_eq!(ServiceError::from(&refused).reason, HISTORY_UNAVAILABLE, "{refused}");
        assert!(refused.message().contains("tsujiban-audit"), "it says what to do: {refused}");
    }
    let hidden = String::from_utf8(stage.get(STAFF, "acme", &old, false).await.unwrap()).unwrap();
    assert!(hidden.contains("<redacted>"), "what hides secrets goes on: {hidden}");
    assert!(diff(&stage, STAFF, (&old, &new), false).await.unwrap().contains("<redacted>"));

    audit.is(Mood::Good);
    assert_eq!(stage.get(STAFF, "acme", &old, true).await.unwrap(), config("one"));
    assert!(diff(&stage, STAFF, (&old, &new), true).await.unwrap().contains("hunter2-two"));
    assert_eq!(stage.get(NO_REVEAL, "acme", &old, true).await.unwrap_err().code(), Code::PermissionDenied);
    let intents: Vec<Operation> = audit
        .entries()
        .into_iter()
        .filter_map(|entry| entry.operation)
        .filter(|operation| operation.phase() == Phase::Intent && operation.function == "snapshots")
        .collect();
    let targets: Vec<_> = intents.iter().map(|intent| intent.target.as_str()).collect();
    assert_eq!(targets, [old.as_str(), &format!("{old}/{new}")]);
    assert!(intents.iter().all(|intent| intent.detail["reveals"] == "true"), "{intents:?}");
}
