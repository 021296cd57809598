//! When the history cannot be reached, or is slow, or the spool is full, or the process is cut off.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::Notify;
use tonic::Code;
use tsujiban_proto::audit::v1::{Operation, Phase, Result as AuditResult};
use tsujiban_proto::error::ServiceError;
use tsujiban_service::history::HISTORY_UNAVAILABLE;
use tsujiban_service::history::spool::DEFAULT_BYTES;
use tsujiban_service::testing::Mood;

use crate::stage::{Answer, Options, Stage, until};

const ERASE: &str = "/tsujiban.lifecycle.v1.LifecycleService/Erase";
const PREPARE: &str = "/tsujiban.lifecycle.v1.LifecycleService/Prepare";
const ATTEMPT: &str = "/tsujiban.backup.v1.BackupService/RecordAttempt";
const LIST: &str = "/tsujiban.backup.v1.BackupService/ListSnapshots";

/// C5: what must not happen unrecorded does not happen; what must work goes on, and is in the history afterwards, once.
#[tokio::test]
async fn without_a_history_strict_calls_are_refused_and_the_others_arrive_later() {
    let stage = Stage::new().await;
    stage.audit().is(Mood::Down);
    let status = stage.call(ERASE, "operator", "acme").await.unwrap_err();
    let error = ServiceError::from(&status);
    assert_eq!((status.code(), error.reason.as_str()), (Code::Unavailable, HISTORY_UNAVAILABLE));
    assert!(error.message.contains("tsujiban-audit"), "it says what to do: {}", error.message);
    assert_eq!(stage.seen(), Vec::<String>::new(), "nothing was done");
    for _ in 0..20 {
        stage.call(ATTEMPT, "collector", "acme").await.unwrap();
        stage.call(LIST, "hanako", "acme").await.unwrap();
    }
    assert_eq!((stage.taken().len(), stage.history.depth()), (0, 41));
    // what it takes and does not confirm comes again, and is there once
    stage.audit().is(Mood::Mute);
    until(|| !stage.taken().is_empty()).await;
    stage.audit().is(Mood::Good);
    let outcomes = stage.outcomes().await;
    let methods: Vec<_> = outcomes.iter().map(|(_, operation)| operation.method.as_str()).collect();
    assert_eq!(methods.len(), 41);
    assert_eq!(methods[..3], ["Erase", "RecordAttempt", "ListSnapshots"], "in the order in which they happened");
    let (_, erase) = &outcomes[0];
    assert_eq!((erase.result(), erase.code.as_str(), erase.reason.as_str()), (AuditResult::Failed, "UNAVAILABLE", HISTORY_UNAVAILABLE));
    let ids: BTreeSet<_> = stage.audit().entries().into_iter().map(|entry| entry.id).collect();
    assert_eq!(ids.len(), stage.audit().entries().len());
    stage.call(ERASE, "operator", "acme").await.unwrap();
    until(|| stage.history.depth() == 0 && stage.metric("tsujiban_history_spool_entries") == 0).await;
}

/// A history that came back from the bucket learns whose a log is by the call that this holds up: that one is done, and all of it arrives.
#[tokio::test]
async fn the_call_that_says_whose_a_log_is_does_not_wait_for_that_log() {
    let stage = Stage::new().await;
    stage.audit().is(Mood::Unclaimed("acme"));
    let refused = stage.call(ERASE, "operator", "acme").await.unwrap_err();
    assert_eq!(ServiceError::from(&refused).reason, HISTORY_UNAVAILABLE, "others wait");
    stage.call(PREPARE, "operator", "acme").await.unwrap();
    assert_eq!(stage.taken().len(), 0);
    stage.audit().is(Mood::Good);
    let recorded = stage.recorded().await;
    let of_prepare = recorded.iter().filter(|(_, operation)| operation.method == "Prepare");
    assert_eq!(of_prepare.map(|(_, operation)| operation.phase()).collect::<Vec<_>>(), [Phase::Intent, Phase::Outcome]);
}

/// An outcome of a strict call waits in the spool when the history goes away in between.
#[tokio::test]
async fn the_outcome_of_a_strict_call_survives_an_outage() {
    let away = Arc::new(Notify::new());
    let waits = Arc::clone(&away);
    let answer: Answer = Arc::new(move |_| {
        let away = Arc::clone(&waits);
        Box::pin(async move {
            away.notified().await;
            Ok(())
        })
    });
    let stage = Stage::with(Options { answer, ..Options::default() }).await;
    let (call, ()) = tokio::join!(stage.call(PREPARE, "operator", "acme"), async {
        until(|| stage.taken().len() == 1).await;
        stage.audit().is(Mood::Down);
        away.notify_one();
    });
    call.unwrap();
    assert_eq!((stage.taken().len(), stage.history.depth()), (1, 1), "the call is done, and its outcome waits");
    stage.audit().is(Mood::Good);
    let phases: Vec<_> = stage.recorded().await.iter().map(|(_, operation)| operation.phase()).collect();
    assert_eq!(phases, [Phase::Intent, Phase::Outcome]);
}

/// A process that is cut off between intent and outcome says so at its next start.
#[tokio::test]
async fn a_call_that_was_cut_off_is_closed_by_the_next_start() {
    let answer = |_: String| -> futures::future::BoxFuture<'static, Result<(), tonic::Status>> {
        Box::pin(async {
            tokio::time::sleep(Duration::from_mins(10)).await;
            Ok(())
        })
    };
    let stage = Stage::with(Options { answer: Arc::new(answer), ..Options::default() }).await;
    let outside = tempfile::tempdir().unwrap();
    let copy = outside.path().join("spool");
    std::fs::create_dir(&copy).unwrap();
    tokio::select! {
        _ = stage.call(ERASE, "operator", "acme") => panic!("it takes ten minutes"),
        () = until(|| stage.seen().len() == 1) => stage.audit().is(Mood::Down),
    }
    // the volume as it is when the machine stops now, before anything else can be written
    for entry in std::fs::read_dir(stage.folder()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "lock" {
            std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
    }
    let (audit, _spool, epochs) = stage.end();
    tokio::time::sleep(Duration::from_millis(300)).await;
    audit.is(Mood::Good);
    let registry = prometheus::Registry::new();
    let (history, _stop) = crate::stage::history(&copy, &epochs, &audit.args(), 0, &registry).await;
    until(|| history.depth() == 0).await;
    let entries: Vec<_> = audit.entries().into_iter().map(|entry| (entry.group, entry.operation.unwrap())).collect();
    let closed: Vec<_> = entries.iter().filter(|(_, operation)| operation.result() == AuditResult::Unknown).collect();
    assert_eq!(closed.len(), 1, "{entries:?}");
    let (group, operation) = closed[0];
    assert_eq!((group.as_str(), operation.method.as_str(), operation.phase()), ("acme", "Erase", Phase::Outcome));
    assert_eq!(operation.reason, "SERVICE_STOPPED");
    let intents: Vec<_> = entries.iter().filter(|(_, operation)| operation.phase() == Phase::Intent).collect();
    assert_eq!(intents.len(), 1);
    assert_eq!(intents[0].1.id, operation.id, "the same call");
}

/// What waits is bounded. When it is full, nothing is done that could not be recorded, and it says what to do.
#[tokio::test]
async fn a_full_spool_refuses_until_the_history_is_back() {
    let stage = Stage::new().await;
    stage.audit().is(Mood::Down);
    let mut done = 0;
    let refused = loop {
        let calls = join_all((0..10).map(|_| stage.call(LIST, "hanako", "acme"))).await;
        let (ok, failed): (Vec<_>, Vec<_>) = calls.into_iter().partition(Result::is_ok);
        done += ok.len();
        if let Some(Err(status)) = failed.into_iter().next() {
            break status;
        }
        assert!(done < 20_000);
    };
    assert_eq!((refused.code(), ServiceError::from(&refused).reason.as_str()), (Code::ResourceExhausted, "SPOOL_FULL"));
    assert!(stage.metric("tsujiban_history_spool_refused_total") > 0);
    let refused = loop {
        match stage.call(ATTEMPT, "collector", "acme").await {
            Ok(()) => done += 1,
            Err(status) => break status,
        }
        assert!(done < 20_000);
    };
    assert_eq!(refused.code(), Code::ResourceExhausted, "a write as well");
    assert_eq!(stage.seen().len(), done, "what was refused was not done");
    stage.audit().is(Mood::Good);
    until(|| stage.history.depth() == 0).await;
    let arrived = stage.taken().iter().filter(|(_, operation)| operation.result() == AuditResult::Allowed).count();
    assert_eq!(arrived, done);
    until(|| stage.metric("tsujiban_history_spool_bytes") < 128 * 1024).await;
    stage.call(LIST, "hanako", "acme").await.unwrap();
}

/// A slow history holds up strict calls only, and what waits for it waits on the disk: one batch is in memory, whatever comes.
#[tokio::test]
async fn a_slow_history_is_waited_for_on_the_disk() {
    let stage = Stage::with(Options { bytes: DEFAULT_BYTES, ..Options::default() }).await;
    stage.audit().is(Mood::Slow(Duration::from_secs(5)));
    for _ in 0..20 {
        join_all((0..50).map(|_| stage.call(LIST, "hanako", "acme"))).await.into_iter().for_each(|call| call.unwrap());
    }
    // what it has not taken lies in the files; the drain holds one batch of at most 256
    assert!(stage.history.depth() > 256, "{}", stage.history.depth());
    assert!(stage.metric("tsujiban_history_spool_bytes") > 256 * 256);
    stage.audit().is(Mood::Good);
    until(|| stage.history.depth() == 0).await;
    assert_eq!(stage.taken().len(), 1000);
}

/// An entry that the history will never take does not hold up those behind it, and is not lost.
#[tokio::test]
async fn an_entry_that_is_never_taken_is_set_aside() {
    let stage = Stage::new().await;
    stage.audit().is(Mood::Down);
    for group in ["acme", "odd", "acme"] {
        stage.call(LIST, "hanako", group).await.unwrap();
    }
    stage.audit().is(Mood::Against("odd"));
    let groups: Vec<_> = stage.recorded().await.into_iter().map(|(group, _)| group).collect();
    assert_eq!(groups, ["acme", "acme"]);
    let aside = std::fs::read_dir(stage.folder())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "rejected"));
    assert_eq!(aside.count(), 1);
}

/// The history does not feed itself: adding to it leaves nothing in it.
#[tokio::test]
async fn adding_to_the_history_is_not_in_the_history() {
    let stage = Stage::new().await;
    for _ in 0..10 {
        stage.call("/tsujiban.audit.v1.AuditService/Append", "backup", "").await.unwrap();
    }
    stage.call(LIST, "hanako", "acme").await.unwrap();
    let methods: Vec<_> = stage.recorded().await.into_iter().map(|(_, operation)| operation.method).collect();
    assert_eq!(methods, ["ListSnapshots"]);
}

/// What is observed without a call goes the same way, and is there once however often it is observed.
#[tokio::test]
async fn what_was_observed_is_recorded_once() {
    let stage = Stage::new().await;
    stage.audit().is(Mood::Down);
    let seen = |generation: u8| Operation { id: vec![generation; 16], target: generation.to_string(), ..Operation::default() };
    for generation in [1, 2, 1, 2] {
        stage.history.observe("acme", seen(generation)).await.unwrap();
    }
    stage.audit().is(Mood::Good);
    let recorded = stage.recorded().await;
    let shown: Vec<_> = recorded.iter().map(|(group, o)| (group.as_str(), o.phase(), o.target.as_str())).collect();
    assert_eq!(shown, [("acme", Phase::Observed, "1"), ("acme", Phase::Observed, "2")]);
}

/// What waited when the process ended arrives after the next start.
#[tokio::test]
async fn the_spool_outlives_the_process() {
    let stage = Stage::new().await;
    stage.audit().is(Mood::Down);
    stage.call(ATTEMPT, "collector", "acme").await.unwrap();
    let stage = stage.restart().await;
    assert_eq!(stage.taken().len(), 0);
    stage.audit().is(Mood::Good);
    let methods: Vec<_> = stage.recorded().await.into_iter().map(|(_, operation)| operation.method).collect();
    assert_eq!(methods, ["RecordAttempt"]);
}
