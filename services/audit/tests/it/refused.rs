//! A log of which what is stored does not hold together is refused alone: the others take entries and are listed, and the service is ready.

use jiff::SignedDuration;
use tonic::Code;
use tsujiban_audit::engine::Standing;
use tsujiban_audit::owner::Owner;
use tsujiban_database::on;
use tsujiban_history::roots::{RootList, Scope};
use tsujiban_history::verify::Verdict;
use tsujiban_proto::audit::v1::declare_gap_request::Scope as Of;
use tsujiban_proto::audit::v1::{Coverage, CoveredRequest, LogEntries, NewEntry};
use tsujiban_proto::error::ServiceError;
use tsujiban_proto::lifecycle::v1::ReportRequest;
use tsujiban_service::testing::with_token;

use crate::rebuild::{checkpoint, started, verify_with};
use crate::retention::verify;
use crate::roots::declare;
use crate::stage::{OPERATOR, Stage, World, entry};

crate::on_both!(
    a_log_whose_newest_rows_are_gone_is_refused_alone,
    a_log_whose_hash_and_entry_are_gone_is_refused_alone,
    what_is_healed_goes_on_by_itself,
    a_gap_of_one_group_mends_its_log_alone,
    a_full_list_names_a_refused_log_as_far_as_it_was_listed,
    a_refused_log_that_was_made_to_hold_together_stays_refused,
    days_of_a_refused_log_stay_and_those_of_others_go,
);

const ACME: &str = "SELECT MAX(number) FROM logs WHERE group_id = 'acme'";

/// The service is ready, and takes nothing of group acme alone.
pub async fn assert_refused(stage: &Stage, world: &World, what: &str) {
    assert_eq!(stage.audit.engine.standing(), Standing::Sound, "{what}");
    let refused = stage.append(vec![entry(world, "acme", "x")]).await.unwrap_err();
    assert_eq!(
        (refused.code(), ServiceError::from(&refused).reason.as_str()),
        (Code::FailedPrecondition, "LOG_REFUSED"),
        "{what}: {refused}"
    );
    assert!(refused.message().contains("group acme") && refused.message().contains("declare-gap"), "{what}: {refused}");
    stage.append(vec![entry(world, "neighbour", "not hindered")]).await.unwrap();
}

pub fn assert_whole(stage: &Stage) {
    assert_eq!(stage.audit.engine.standing(), Standing::Sound);
    assert!(stage.audit.engine.refused().is_empty(), "{:?}", stage.audit.engine.refused());
}

/// 600 entries of a group, and a neighbour's, all of them listed. No part of the archive is left.
async fn some_history(world: &World) -> Stage {
    let stage = world.start().await;
    stage.prepare("acme", "").await.unwrap();
    stage.prepare("other", "").await.unwrap();
    stage.say(world, "other", "theirs").await;
    for n in 0..4 {
        stage.append((0..150).map(|k| entry(world, "acme", &format!("{n} {k}"))).collect()).await.unwrap();
        stage.audit.follow_roots().await.unwrap();
    }
    world.bucket.remove_all("archive/").await;
    stage
}

/// The newest rows are gone; a hash is another one, and an entry below it is gone, from which it would follow.
fn wrong_rows() -> [(&'static str, Vec<String>); 2] {
    let rows = vec![format!("DELETE FROM entries WHERE log = ({ACME}) AND sequence >= 590")];
    let hash = format!("UPDATE nodes SET hash = (SELECT peaks FROM heads WHERE size = 1) WHERE log = ({ACME})");
    let both = vec![hash, format!("DELETE FROM entries WHERE log = ({ACME}) AND sequence = 7")];
    [("rows are gone", rows), ("a hash and an entry", both)]
}

async fn with_wrong_rows(world: &World, more: &[&str]) {
    let [(_, rows), _] = wrong_rows();
    world.by_hand(&rows.iter().map(String::as_str).chain(more.iter().copied()).collect::<Vec<_>>()).await;
}

async fn a_log_whose_newest_rows_are_gone_is_refused_alone(world: World) {
    let [(what, statements), _] = wrong_rows();
    is_refused_alone(&world, what, &statements).await;
}

async fn a_log_whose_hash_and_entry_are_gone_is_refused_alone(world: World) {
    let [_, (what, statements)] = wrong_rows();
    is_refused_alone(&world, what, &statements).await;
}

async fn is_refused_alone(world: &World, what: &str, statements: &[String]) {
    some_history(world).await.stop().await;
    world.by_hand(&statements.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for _ in 0..2 {
        let stage = started(world).await;
        assert_refused(&stage, world, what).await;
        // one of theirs in the same call is not taken either, and those beside it are
        let mixed = vec![entry(world, "other", "with"), entry(world, "acme", "without")];
        let (mixed, alone) = futures::join!(stage.append(mixed), stage.append(vec![entry(world, "other", "alone")]));
        assert_eq!((ServiceError::from(&mixed.unwrap_err()).reason.as_str(), alone.is_ok()), ("LOG_REFUSED", true), "{what}");
        assert!(stage.targets("acme").await.len() >= 589, "{what}: it is read");
        let kept: Vec<NewEntry> = vec![entry(world, "acme", "kept"), entry(world, "other", "unknown")];
        let logs = kept.iter().map(|entry| LogEntries { group: entry.group.clone(), ids: vec![entry.id.clone()] }).collect();
        let covered = stage.client().covered(with_token(OPERATOR, CoveredRequest { logs })).await.unwrap().into_inner();
        assert_eq!(covered.logs[0].entries().collect::<Vec<_>>(), [Coverage::Pending], "{what}: who has it keeps it");
        assert_eq!(covered.logs[1].entries().collect::<Vec<_>>(), [Coverage::Unknown], "{what}");
        let report = stage.lifecycle().report(with_token(OPERATOR, ReportRequest::default())).await.unwrap().into_inner();
        assert!(report.writing.unwrap().able, "{what}");
        for group in report.groups {
            let writing = group.writing;
            assert_eq!(writing.is_some(), group.group == "acme", "{what}: {writing:?}");
            assert!(writing.is_none_or(|writing| !writing.able && writing.reason.contains("all others go on")), "{what}");
        }
        let before = world.lists().await.len();
        stage.audit.follow_roots().await.unwrap();
        assert!(world.lists().await.len() > before, "{what}: the others are listed");
        stage.stop().await;
    }
}

async fn what_is_healed_goes_on_by_itself(world: World) {
    let stage = some_history(&world).await;
    stage.stop().await;
    world.by_hand(&[&format!("UPDATE nodes SET hash = (SELECT peaks FROM heads WHERE size = 1) WHERE log = ({ACME})")]).await;
    let stage = world.start().await;
    stage.audit.compare_at_start().await.unwrap();
    assert_refused(&stage, &world, "a hash").await;
    stage.audit.follow_roots().await.unwrap();
    assert_whole(&stage);
    stage.say(&world, "acme", "on").await;
    assert_eq!(verify(&stage, &world, "acme").await.verdict, Verdict::Intact);
}

async fn a_gap_of_one_group_mends_its_log_alone(world: World) {
    let stage = some_history(&world).await;
    stage.append((0..20).map(|n| entry(&world, "other", &n.to_string())).collect()).await.unwrap();
    stage.audit.follow_roots().await.unwrap();
    world.bucket.remove_all("archive/").await;
    let kept = checkpoint(&stage, "acme").await;
    stage.stop().await;
    let other = "DELETE FROM entries WHERE log = (SELECT MAX(number) FROM logs WHERE group_id = 'other') AND sequence >= 17";
    with_wrong_rows(&world, &[other]).await;
    let stage = started(&world).await;
    assert_refused(&stage, &world, "rows are gone").await;
    let refused = declare(&stage, Of::Group("neighbour".into()), "not here").await.unwrap_err();
    assert_eq!(ServiceError::from(&refused).reason, "NO_GAP");
    assert_eq!(declare(&stage, Of::Group("acme".into()), "a row is gone").await.unwrap(), 1);
    assert_eq!(stage.audit.engine.refused().all().len(), 1, "the other one waits for its own");
    stage.say(&world, "acme", "on").await;
    stage.audit.follow_roots().await.unwrap();
    let report = verify_with(&stage, &world, "acme", &kept).await;
    assert!(matches!(report.verdict, Verdict::Damaged(_)) && report.gaps.len() == 1, "{report}");
    assert_eq!(declare(&stage, Of::All(true), "and theirs").await.unwrap(), 1);
    assert_whole(&stage);
    stage.say(&world, "other", "on").await;
    stage.audit.follow_roots().await.unwrap();
    stage.stop().await;
    assert_whole(&started(&world).await);
}

async fn a_full_list_names_a_refused_log_as_far_as_it_was_listed(world: World) {
    let stage = some_history(&world).await;
    let log = stage.audit.some_log_of(&Owner::parse("acme").unwrap()).await.unwrap();
    stage.stop().await;
    with_wrong_rows(&world, &[]).await;
    let stage = started(&world).await;
    world.advance(SignedDuration::from_hours(24));
    stage.audit.follow_roots().await.unwrap();
    let list = world.lists().await.pop().unwrap().1;
    let list = RootList::open(&list, stage.audit.verifier(), &"audit.tsujiban.dev/test".parse().unwrap()).unwrap();
    assert_eq!((list.scope, list.roots.get(&log.id)), (Scope::Full, Some(&log.head())), "else nothing would say how far it had come");
    assert_refused(&stage, &world, "a day later").await;
    assert_eq!(declare(&stage, Of::Group("acme".into()), "rows are gone").await.unwrap(), 1);
    assert_whole(&stage);
}

/// Somebody cuts a log that is refused so that it holds together: it is not taken for sound, and nobody else suffers from it.
async fn a_refused_log_that_was_made_to_hold_together_stays_refused(world: World) {
    let stage = some_history(&world).await;
    stage.stop().await;
    with_wrong_rows(&world, &[]).await;
    started(&world).await.stop().await;
    world
        .by_hand(&[
            &format!("DELETE FROM entries WHERE log = ({ACME}) AND sequence >= 256"),
            &format!(
                "UPDATE heads SET size = 256, peaks = (SELECT hash FROM nodes WHERE log = ({ACME}) AND number = 0) WHERE log = ({ACME})"
            ),
        ])
        .await;
    let stage = started(&world).await;
    assert_refused(&stage, &world, "it is shorter than the lists say").await;
}

async fn days_of_a_refused_log_stay_and_those_of_others_go(world: World) {
    let stage = some_history(&world).await;
    stage.stop().await;
    with_wrong_rows(&world, &[]).await;
    let stage = started(&world).await;
    world.advance_to("2025-03-10T12:00:00Z");
    stage.audit.expire().await.unwrap();
    let left = "SELECT l.group_id FROM day_keys k JOIN logs l ON l.number = k.log";
    let left: Vec<String> = on!(stage.database.reads(), p => sqlx::query_scalar(left).fetch_all(p).await).unwrap();
    assert_eq!(left, ["acme"], "nothing is stated in it");
    assert_eq!(declare(&stage, Of::Group("acme".into()), "rows are gone").await.unwrap(), 1);
    assert_eq!(stage.audit.expire().await.unwrap(), 1);
}
