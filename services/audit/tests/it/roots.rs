//! Root lists, and what they are for: an older or another history is noticed, and does not grow.

use tonic::Code;
use tsujiban_audit::engine::Standing;
use tsujiban_history::roots::{Chain, RootList, Scope};
use tsujiban_history::verify::Verdict;
use tsujiban_objects::Objects;
use tsujiban_proto::audit::v1::DeclareGapRequest;
use tsujiban_proto::audit::v1::declare_gap_request::Scope as Of;
use tsujiban_proto::error::ServiceError;
use tsujiban_service::testing::with_token;

use crate::append::head;
use crate::retention::verify;
use crate::stage::{STAFF, Stage, World, entry};

crate::on_both!(
    changed_roots_are_listed_once_and_all_of_them_once_a_day,
    a_list_that_another_writer_put_is_taken_up,
    a_list_that_nobody_here_signed_stops_the_history,
    a_gap_is_not_declared_without_a_loss,
);

async fn lists(stage: &Stage, world: &World) -> Vec<RootList> {
    let lists = world.lists().await;
    lists
        .iter()
        .map(|(_, list)| RootList::open(list, stage.audit.verifier(), &"audit.tsujiban.dev/test".parse().unwrap()).unwrap())
        .collect()
}

async fn changed_roots_are_listed_once_and_all_of_them_once_a_day(world: World) {
    let stage = world.start().await;
    stage.audit.follow_roots().await.unwrap();
    assert!(lists(&stage, &world).await.is_empty(), "there is nothing to list");
    stage.say(&world, "acme", "a").await;
    stage.say(&world, "other", "b").await;
    for _ in 0..3 {
        stage.audit.follow_roots().await.unwrap();
    }
    stage.say(&world, "acme", "c").await;
    world.advance(jiff::SignedDuration::from_secs(60));
    stage.audit.follow_roots().await.unwrap();
    world.advance(jiff::SignedDuration::from_hours(24));
    stage.audit.follow_roots().await.unwrap();
    let lists = lists(&stage, &world).await;
    let shown: Vec<_> = lists.iter().map(|list| (list.number, list.scope, list.roots.len())).collect();
    assert_eq!(shown, [(1, Scope::Full, 2), (2, Scope::Changed, 1), (3, Scope::Full, 2)]);
    let mut chain = Chain::new();
    for list in &lists {
        chain.follow(list).unwrap();
    }
    let head = head(&stage, "acme", 0).await.0;
    assert!(lists[1].roots.values().any(|listed| *listed == head));

    let lock = world.memory.head("roots/000000000001", None).await.unwrap().lock.unwrap();
    assert!(lock.compliance);
    assert_eq!(lock.until.duration_since(lists[0].time.timestamp()).as_hours(), 400 * 24);
}

async fn a_list_that_another_writer_put_is_taken_up(world: World) {
    let stage = world.start().await;
    stage.say(&world, "acme", "a").await;
    stage.audit.follow_roots().await.unwrap();
    // the process stops between the list and its note of it
    let forget = "UPDATE meta SET value = value";
    tsujiban_database::on!(stage.database.writes(), p => sqlx::query(forget).execute(p).await.map(drop)).unwrap();
    stage.say(&world, "acme", "b").await;
    stage.audit.follow_roots().await.unwrap();
    stage.stop().await;
    let stage = world.start().await;
    stage.audit.compare_at_start().await.unwrap();
    assert_eq!(stage.audit.engine.standing(), Standing::Sound);
    assert_eq!(lists(&stage, &world).await.len(), 2);
}

async fn a_list_that_nobody_here_signed_stops_the_history(world: World) {
    let stage = world.start().await;
    stage.say(&world, "acme", "a").await;
    stage.audit.follow_roots().await.unwrap();
    world.memory.put("roots/000000000002", "forged".into(), None).await.unwrap();
    stage.audit.follow_roots().await.unwrap();
    assert!(matches!(stage.audit.engine.standing(), Standing::Forked(_)));
    assert_eq!(stage.append(vec![entry(&world, "acme", "b")]).await.unwrap_err().code(), Code::FailedPrecondition);
}

pub async fn declare(stage: &Stage, scope: Of, reason: &str) -> Result<u64, tonic::Status> {
    let request = DeclareGapRequest { scope: Some(scope), reason: reason.into() };
    Ok(stage.client().declare_gap(with_token(STAFF, request)).await?.into_inner().logs)
}

async fn a_gap_is_not_declared_without_a_loss(world: World) {
    let stage = world.start().await;
    stage.say(&world, "acme", "a").await;
    let refused = declare(&stage, Of::All(true), "just because").await.unwrap_err();
    assert_eq!((refused.code(), ServiceError::from(&refused).reason.as_str()), (Code::FailedPrecondition, "NO_GAP"));
    assert_eq!(declare(&stage, Of::All(true), " ").await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(stage.targets("acme").await, ["a"]);
}

/// A database file from an hour ago comes back: read-only, says so, and goes on behind a gap that the verifier names.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_from_an_hour_ago_is_read_only_until_the_gap_is_declared() {
    let world = World::sqlite();
    let stage = world.start().await;
    stage.say(&world, "acme", "kept").await;
    stage.say(&world, "other", "untouched").await;
    stage.audit.follow_roots().await.unwrap();
    stage.stop().await;
    let copy = std::fs::read(world.file()).unwrap();
    let stage = world.start().await;
    world.advance(jiff::SignedDuration::from_hours(1));
    for n in 0..3 {
        stage.say(&world, "acme", &format!("lost {n}")).await;
        stage.audit.follow_roots().await.unwrap();
    }
    stage.stop().await;
    for file in ["history.db-wal", "history.db-shm", "history.mark"] {
        let _ = std::fs::remove_file(world.folder().unwrap().join(file));
    }
    std::fs::write(world.file(), copy).unwrap();
    // else all of it came back
    world.bucket.remove_all("archive/").await;

    let stage = world.start().await;
    stage.audit.compare_at_start().await.unwrap();
    let refused = stage.append(vec![entry(&world, "other", "x")]).await.unwrap_err();
    assert_eq!((refused.code(), ServiceError::from(&refused).reason.as_str()), (Code::FailedPrecondition, "HISTORY_FORKED"));
    assert!(refused.message().contains("4 entries there and 1 here") && refused.message().contains("declare-gap"), "{}", refused.message());
    assert_eq!(stage.targets("acme").await, ["kept"], "reading goes on");
    stage.audit.follow_roots().await.unwrap();
    assert_eq!(world.lists().await.len(), 4, "nothing is listed meanwhile");

    assert_eq!(declare(&stage, Of::All(true), "the disk died").await.unwrap(), 1);
    stage.say(&world, "acme", "after").await;
    stage.audit.follow_roots().await.unwrap();
    assert_eq!(stage.targets("acme").await, ["kept", "acme", "after"], "the reason stands behind the gap");
    let report = verify(&stage, &world, "acme").await;
    assert!(matches!(report.verdict, Verdict::Intact), "{report:?}");
    assert_eq!((report.gaps.len(), report.gaps[0].sequence, report.gaps[0].newest.size, report.gaps[0].by.as_str()), (1, 1, 4, STAFF));
    let report = verify(&stage, &world, "other").await;
    assert!(report.gaps.is_empty() && matches!(report.verdict, Verdict::Intact), "{report:?}");
    stage.stop().await;
    let stage = world.start().await;
    stage.audit.compare_at_start().await.unwrap();
    assert_eq!(stage.audit.engine.standing(), Standing::Sound);
    stage.say(&world, "acme", "and on").await;
}

/// Two processes on two copies of one file: the second to list its roots is the one that stops.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_copies_the_second_one_stops() {
    let world = World::sqlite();
    let stage = world.start().await;
    stage.say(&world, "acme", "common").await;
    stage.audit.follow_roots().await.unwrap();
    stage.stop().await;
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(world.file(), copy.path().join("history.db")).unwrap();
    let first = world.start().await;
    let mut parts = world.parts().await;
    parts.database = tsujiban_database::Database::sqlite(&copy.path().join("history.db")).await.unwrap();
    parts.folder = Some(copy.path().to_owned());
    let second = tsujiban_audit::service::Audit::open(parts).await.unwrap();
    first.say(&world, "acme", "mine").await;
    let other = tsujiban_audit::rpc::addition(entry(&world, "acme", "theirs")).unwrap();
    second.engine.append(vec![other]).await.unwrap();
    first.audit.follow_roots().await.unwrap();
    second.follow_roots().await.unwrap();
    let Standing::Forked(why) = second.engine.standing() else { panic!("it goes on") };
    assert!(why.contains("other entries"), "{why}");
    first.audit.follow_roots().await.unwrap();
    assert_eq!(first.audit.engine.standing(), Standing::Sound);
}

/// Declaring a gap is a strict call: its intent comes before it, and there is no place for one before the gap. It stands right behind.
#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_is_recorded_in_the_history_itself() {
    let world = World::sqlite();
    let stage = world.start().await;
    stage.say(&world, "acme", "a").await;
    stage.audit.follow_roots().await.unwrap();
    stage.stop().await;
    let copy = std::fs::read(world.file()).unwrap();
    let stage = world.start().await;
    stage.say(&world, "acme", "lost").await;
    stage.audit.follow_roots().await.unwrap();
    stage.stop().await;
    for file in ["history.db-wal", "history.db-shm", "history.mark"] {
        let _ = std::fs::remove_file(world.folder().unwrap().join(file));
    }
    std::fs::write(world.file(), copy).unwrap();
    // else all of it came back
    world.bucket.remove_all("archive/").await;

    let stage = world.start().await;
    stage.audit.compare_at_start().await.unwrap();
    let (spool, registry) = (tempfile::tempdir().unwrap(), prometheus::Registry::new());
    let parts = tsujiban_service::history::Parts {
        service: "tsujiban-audit",
        dir: spool.path().join("spool"),
        bytes: 1 << 20,
        keyring: std::sync::Arc::new(tsujiban_sealing::Keyring::new(world.master.clone(), &world.epochs()).unwrap()),
        ledger: stage.audit.clone(),
        clock: world.clock.clone(),
        random: std::sync::Arc::new(tsujiban_sealing::SystemRandom::new()),
    };
    let (history, delivery) = tsujiban_service::history::History::open(parts, &registry).unwrap();
    stage.audit.record_in(history.clone());
    let stop = tokio_util::sync::CancellationToken::new();
    let delivering = tokio::spawn(delivery.run(stop.clone()));
    let mut guard = tsujiban_service::access::Guard::new(std::sync::Arc::new(crate::stage::callers()), registry);
    guard.history = Some(history.clone());
    let guarded = tsujiban_service::testing::serve_guarded(tsujiban_audit::rpc::routes(&stage.audit), guard).await;
    let mut client = tsujiban_proto::audit::v1::audit_service_client::AuditServiceClient::new(guarded.channel());
    let request = DeclareGapRequest { scope: Some(Of::Group("acme".into())), reason: "the disk died".into() };
    assert_eq!(client.declare_gap(with_token(STAFF, request)).await.unwrap().into_inner().logs, 1);
    while history.depth() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    stop.cancel();
    delivering.await.unwrap();
    let all = tsujiban_proto::audit::v1::ListEntriesRequest { group: "acme".into(), include_intents: true, ..Default::default() };
    let mut shown: Vec<_> = stage.list_by(all).await.into_iter().map(|entry| entry.operation.unwrap()).collect();
    shown.reverse();
    let phases: Vec<_> = shown.iter().map(|operation| (operation.method.as_str(), operation.phase().as_str_name())).collect();
    assert_eq!(
        phases,
        [
            ("GetSnapshot", "PHASE_OUTCOME"),
            ("DeclareGap", "PHASE_OBSERVED"),
            ("DeclareGap", "PHASE_INTENT"),
            ("DeclareGap", "PHASE_OUTCOME")
        ]
    );
    assert_eq!(shown[1].detail["reason"], "the disk died");
    assert_eq!(stage.audit.epochs_in_use().await.unwrap().len(), 1, "the spool's epoch is among them");
}
