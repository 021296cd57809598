//! What the history has acknowledged is kept until a root list covers it, and is added again when the history loses it.

use std::time::Duration;

use tsujiban_proto::audit::v1::Phase;
use tsujiban_service::history::{SPOOL_DAMAGED, SPOOL_LOST};
use tsujiban_service::testing::Mood;

use crate::stage::{Stage, until};

const PREPARE: &str = "/tsujiban.lifecycle.v1.LifecycleService/Prepare";
const ATTEMPT: &str = "/tsujiban.backup.v1.BackupService/RecordAttempt";
const LIST: &str = "/tsujiban.backup.v1.BackupService/ListSnapshots";

/// Some strict and other calls, recorded.
async fn some_calls(stage: &Stage, rounds: usize) {
    for _ in 0..rounds {
        stage.call(PREPARE, "operator", "acme").await.unwrap();
        stage.call(ATTEMPT, "collector", "acme").await.unwrap();
        stage.call(LIST, "hanako", "acme").await.unwrap();
    }
    stage.recorded().await;
}

fn ids(stage: &Stage) -> Vec<Vec<u8>> {
    stage.audit().entries().into_iter().map(|entry| entry.id).collect()
}

/// The same entries in the same order, once each, intents of strict calls among them, also for a caller who has nothing else to say.
#[tokio::test]
async fn what_the_history_loses_comes_back_in_its_order() {
    let stage = Stage::new().await;
    some_calls(&stage, 2).await;
    stage.audit().cover();
    some_calls(&stage, 5).await;
    let before = ids(&stage);
    for lost in [1, 7, 20, 1000] {
        stage.audit().lose(lost);
        until(|| ids(&stage).len() == before.len()).await;
        assert_eq!(ids(&stage), before, "{lost} were lost");
    }
    assert!(stage.metric("tsujiban_history_resent_total") >= 28);
    let phases: Vec<_> = stage.taken().iter().take(2).map(|(_, operation)| operation.phase()).collect();
    assert_eq!(phases, [Phase::Intent, Phase::Outcome]);
}

/// What a root list covers is not kept any more, and neither is what an erased group did.
#[tokio::test]
async fn what_is_covered_or_of_an_erased_group_is_not_kept() {
    let stage = Stage::new().await;
    some_calls(&stage, 3).await;
    assert!(stage.history.kept() >= 12, "{}", stage.history.kept());
    stage.audit().cover();
    until(|| stage.history.kept() == 0).await;
    some_calls(&stage, 1).await;
    stage.audit().erase("acme");
    until(|| stage.history.kept() == 0).await;
    stage.audit().lose(3);
    let left = ids(&stage).len();
    stage.call(LIST, "hanako", "other").await.unwrap();
    stage.recorded().await;
    assert_eq!(ids(&stage).len(), left + 1);
    assert_eq!((stage.metric("tsujiban_history_kept_entries"), stage.metric("tsujiban_history_possibly_lost_total")), (1, 0));
}

/// A caller that starts again still has what it kept.
#[tokio::test]
async fn a_restart_keeps_what_is_kept() {
    let stage = Stage::new().await;
    some_calls(&stage, 4).await;
    let before = ids(&stage);
    stage.audit().is(Mood::Down);
    stage.audit().lose(9);
    let stage = stage.restart().await;
    assert!(stage.history.kept() >= 16, "{}", stage.history.kept());
    stage.audit().is(Mood::Good);
    until(|| ids(&stage).len() == before.len()).await;
    assert_eq!(ids(&stage), before);
}

/// A history that is back with an older database is asked before it is told anything new.
#[tokio::test]
async fn what_was_lost_comes_back_before_anything_new() {
    let stage = Stage::new().await;
    some_calls(&stage, 3).await;
    let before = ids(&stage);
    stage.audit().is(Mood::Down);
    stage.call(LIST, "hanako", "acme").await.unwrap();
    until(|| stage.metric("tsujiban_history_append_failures_total") > 0).await;
    stage.audit().lose(8);
    stage.audit().is(Mood::Good);
    until(|| ids(&stage).len() == before.len() + 1).await;
    assert_eq!(ids(&stage)[..before.len()], before);
}

/// Keeping has a bound, and never refuses a call: the oldest are dropped, and counted.
#[tokio::test]
async fn keeping_has_a_bound_and_refuses_nothing() {
    let stage = Stage::new().await;
    for _ in 0..30 {
        let calls = (0..10).map(|_| stage.call(LIST, "hanako", "acme"));
        futures::future::join_all(calls).await.into_iter().for_each(|call| call.unwrap());
    }
    let entries = stage.recorded().await.len();
    assert_eq!(entries, 300);
    let dropped = usize::try_from(stage.metric("tsujiban_history_kept_dropped_total")).unwrap();
    assert!(dropped > 0);
    assert_eq!(stage.history.kept() + dropped, entries + 1, "and that the spool began");
    // the files of what is kept take a quarter of what may wait, and a little more
    let is_kept = |entry: &std::fs::DirEntry| entry.path().extension().is_some_and(|extension| extension == "kept");
    let files = std::fs::read_dir(stage.folder()).unwrap().flatten().filter(is_kept);
    let bytes: u64 = files.map(|entry| entry.metadata().unwrap().len()).sum();
    assert!(bytes <= 96 * 1024, "{bytes}");
    let before = ids(&stage);
    stage.audit().lose(20);
    until(|| ids(&stage).len() == before.len()).await;
    assert_eq!(ids(&stage), before, "the newest are kept");
}

/// A damaged kept entry costs itself alone; it is still in the history, so that nothing is said of a loss.
#[tokio::test]
async fn a_damaged_kept_entry_costs_itself_alone() {
    let stage = Stage::new().await;
    some_calls(&stage, 3).await;
    let before = ids(&stage);
    stage.audit().is(Mood::Down);
    let folder = stage.folder();
    let kept = std::fs::read_dir(&folder).unwrap().flatten().find(|entry| entry.path().extension().is_some_and(|e| e == "kept")).unwrap();
    let mut bytes = std::fs::read(kept.path()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(kept.path(), bytes).unwrap();
    let stage = stage.restart().await;
    assert_eq!(stage.history.kept(), before.len() - 1);
    stage.audit().lose(1000);
    stage.audit().is(Mood::Good);
    until(|| ids(&stage).len() == before.len() - 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let after = ids(&stage);
    assert!(before.iter().filter(|id| after.contains(id)).eq(after.iter()), "in their order");
    assert!(stage.taken().iter().all(|(_, operation)| operation.reason != SPOOL_DAMAGED));
}

/// A spool whose folder was removed says so in the platform's own history: nobody else knows what was in it.
#[tokio::test]
async fn a_spool_that_begins_anew_is_in_the_history() {
    let stage = Stage::new().await;
    stage.audit().is(Mood::Down);
    stage.call(ATTEMPT, "collector", "acme").await.unwrap();
    let folder = stage.folder();
    let (audit, spool, epochs) = stage.end();
    tokio::time::sleep(Duration::from_millis(300)).await;
    std::fs::remove_dir_all(&folder).unwrap();
    audit.is(Mood::Good);
    for _ in 0..2 {
        let (history, _stop) = crate::stage::history(&folder, &epochs, &audit.args(), 0, &prometheus::Registry::new()).await;
        until(|| history.depth() == 0).await;
    }
    let said: Vec<_> = audit.entries().into_iter().filter(|entry| entry.operation.as_ref().unwrap().reason == SPOOL_LOST).collect();
    assert_eq!((said.len(), said[0].group.as_str()), (1, ""));
    let operation = said[0].operation.as_ref().unwrap();
    assert_eq!(operation.actor.as_ref().unwrap().id, "tsujiban-backup");
    assert_ne!(operation.detail["before"], operation.detail["spool"]);
    drop(spool);
}
