//! The history comes back from the bucket: all of it after a lost database, the newest part of it after an older one.

use jiff::SignedDuration;
use tonic::Code;
use tsujiban_audit::engine::Standing;
use tsujiban_audit::scrub::EntrySource;
use tsujiban_history::verify::{Report, Verdict, Verifier};
use tsujiban_objects::Objects;
use tsujiban_proto::audit::v1::{ExportFormat, Phase};
use tsujiban_proto::error::ServiceError;
use tsujiban_service::history::Ledger;

use crate::append::head;
use crate::retention::{bodies, export};
use crate::stage::{Stage, World, entry};

crate::on_both!(
    a_lost_database_comes_back_whole,
    an_older_database_comes_back_whole,
    a_database_from_before_the_archive_is_archived,
    one_damaged_part_costs_the_bodies_of_its_entries_and_nothing_else,
    entries_wait_until_a_log_that_came_back_has_its_group,
    expired_days_do_not_come_back,
    what_lies_under_an_ending_lock_is_put_once_more,
    keys_come_back_as_the_newest_epoch_key_wraps_them,
    an_entry_is_found_in_the_archive,
    parts_are_locked_like_lists_and_one_without_a_list_harms_nothing,
    parts_are_fetched_ahead_and_taken_in_their_order,
);

/// Starts as the service does: compared before anybody is answered, then once by the job.
pub async fn started(world: &World) -> Stage {
    let stage = world.start().await;
    stage.audit.compare_at_start().await.unwrap();
    stage.audit.follow_roots().await.unwrap();
    stage
}

pub fn assert_sound(stage: &Stage) {
    assert_eq!(stage.audit.engine.standing(), Standing::Sound);
}

/// What an auditor says who has a checkpoint from before.
pub async fn verify_with(stage: &Stage, world: &World, group: &str, checkpoint: &str) -> Report {
    let log = stage.audit.some_log_of(&tsujiban_audit::owner::Owner::parse(group).unwrap()).await.unwrap();
    let mut verifier = Verifier::new(stage.audit.verifier().clone(), stage.audit.origin(log.id), world.now()).unwrap();
    for (name, list) in world.lists().await {
        verifier.add_list(&name, &list).unwrap();
    }
    verifier.add_checkpoint("kept", checkpoint.as_bytes()).unwrap();
    verifier.verify(export(stage, group, ExportFormat::JsonLines).await.as_slice()).unwrap()
}

/// Two groups and the platform, 300 entries and more in several lists; the group's incarnation and log.
async fn some_history(world: &World, stage: &Stage) -> (String, String) {
    let (incarnation, log) = stage.prepare_with_log("acme", "", "").await.unwrap();
    stage.append((0..200).map(|n| entry(world, "acme", &format!("first {n}"))).collect()).await.unwrap();
    stage.say(world, "", "the platform's").await;
    stage.audit.follow_roots().await.unwrap();
    for n in 0..4 {
        world.advance(SignedDuration::from_secs(60));
        stage.append((0..50).map(|k| entry(world, "acme", &format!("{n} {k}"))).collect()).await.unwrap();
        stage.say(world, "other", &format!("theirs {n}")).await;
        stage.audit.follow_roots().await.unwrap();
    }
    (incarnation, log)
}

async fn a_lost_database_comes_back_whole(mut world: World) {
    let stage = world.start().await;
    let (incarnation, log) = some_history(&world, &stage).await;
    let same = entry(&world, "acme", "once");
    stage.append(vec![same.clone()]).await.unwrap();
    let (before, checkpoint) = (stage.targets("acme").await, checkpoint(&stage, "acme").await);
    let verifier = stage.audit.verifier().to_string();
    stage.stop().await;
    world.lose_database().await;

    let stage = world.start().await;
    assert_eq!(stage.audit.verifier().to_string(), verifier, "the key comes back, too");
    stage.audit.compare_at_start().await.unwrap();
    assert!(matches!(stage.audit.engine.standing(), Standing::Forked(_)));
    stage.audit.follow_roots().await.unwrap();
    assert_sound(&stage);
    assert!(stage.targets("acme").await.is_empty(), "nothing in the bucket says whose a log is");
    assert_eq!(stage.targets("").await, ["the platform's"], "the platform's own log is known");
    assert_eq!(stage.prepare_with_log("acme", &incarnation, &log).await.unwrap(), (incarnation.clone(), log.clone()));
    assert_eq!(stage.targets("acme").await, before);
    assert!(stage.append(vec![same]).await.unwrap()[0].is_duplicate, "ids are remembered");
    let end = u64::try_from(before.len()).unwrap();
    assert_eq!(stage.say(&world, "acme", "after").await, end, "the log goes on under its id, without a gap");
    stage.audit.follow_roots().await.unwrap();
    let report = verify_with(&stage, &world, "acme", &checkpoint).await;
    assert!(matches!(report.verdict, Verdict::Intact) && report.gaps.is_empty(), "{report}");
    assert_eq!(report.bodies, end + 1);
    stage.stop().await;
    assert_sound(&started(&world).await);
}

pub async fn checkpoint(stage: &Stage, group: &str) -> String {
    use tsujiban_proto::audit::v1::GetCheckpointRequest;
    let request = GetCheckpointRequest { group: group.into(), ..Default::default() };
    let request = tsujiban_service::testing::with_token(crate::stage::STAFF, request);
    stage.client().get_checkpoint(request).await.unwrap().into_inner().checkpoint
}

async fn an_older_database_comes_back_whole(mut world: World) {
    let stage = world.start().await;
    some_history(&world, &stage).await;
    stage.stop().await;
    let older = world.copy_database().await;
    let stage = world.start().await;
    stage.append((0..100).map(|n| entry(&world, "acme", &format!("newest {n}"))).collect()).await.unwrap();
    stage.say(&world, "new", "a log that the older database does not have").await;
    let kept = checkpoint(&stage, "acme").await;
    let before = stage.targets("acme").await;
    stage.audit.follow_roots().await.unwrap();
    stage.stop().await;
    world.place = older;
    let stage = started(&world).await;
    assert_sound(&stage);
    assert_eq!(stage.targets("acme").await, before);
    stage.say(&world, "acme", "after").await;
    let report = verify_with(&stage, &world, "acme", &kept).await;
    assert!(matches!(report.verdict, Verdict::Intact) && report.gaps.is_empty(), "{report}");
}

/// What was listed by a version that had no archive is archived by the next lists.
async fn a_database_from_before_the_archive_is_archived(mut world: World) {
    let stage = world.start().await;
    let (incarnation, log) = some_history(&world, &stage).await;
    let before = stage.targets("acme").await;
    stage.stop().await;
    world.bucket.remove_all("archive/").await;
    world.by_hand(&["DELETE FROM archived", "DELETE FROM archived_spans", "DELETE FROM archive_parts"]).await;
    let stage = started(&world).await;
    assert_sound(&stage);
    assert!(!world.bucket.names("archive/").await.is_empty());
    stage.stop().await;
    world.lose_database().await;
    let stage = started(&world).await;
    assert_sound(&stage);
    stage.prepare_with_log("acme", &incarnation, &log).await.unwrap();
    assert_eq!(stage.targets("acme").await, before);
}

async fn one_damaged_part_costs_the_bodies_of_its_entries_and_nothing_else(mut world: World) {
    let stage = world.start().await;
    let (incarnation, log) = some_history(&world, &stage).await;
    let whole = head(&stage, "acme", 0).await.0;
    let all = bodies(&stage).await;
    stage.stop().await;
    world.lose_database().await;
    let parts = world.bucket.names("archive/").await;
    assert_eq!(parts.len(), 5);
    world.bucket.flip_a_bit(&parts[2]).await;
    let stage = started(&world).await;
    assert_sound(&stage);
    stage.prepare_with_log("acme", &incarnation, &log).await.unwrap();
    assert_eq!(head(&stage, "acme", 0).await.0, whole, "every leaf is there");
    assert_eq!(bodies(&stage).await, all - 51, "the bodies of the damaged part are lost, and are nothing that expired");
}

async fn entries_wait_until_a_log_that_came_back_has_its_group(mut world: World) {
    let stage = world.start().await;
    let (incarnation, log) = some_history(&world, &stage).await;
    stage.stop().await;
    world.lose_database().await;
    let stage = started(&world).await;
    let waiting = stage.append(vec![entry(&world, "acme", "early")]).await.unwrap_err();
    assert_eq!((waiting.code(), ServiceError::from(&waiting).reason.as_str()), (Code::Unavailable, "UNCLAIMED"));
    stage.say(&world, "", "the platform's own log does not wait").await;
    assert_eq!(stage.prepare_with_log("brand-new", "", "").await.unwrap().1.len(), 32, "nor does a group that names no log");
    stage.say(&world, "brand-new", "at once").await;
    stage.stop().await;
    let stage = started(&world).await;
    assert_eq!(stage.append(vec![entry(&world, "acme", "early")]).await.unwrap_err().code(), Code::Unavailable, "also after a restart");
    let stolen = stage.prepare_with_log("brand-new", "", &log).await.unwrap();
    assert_ne!(stolen.1, log, "a group that has a log keeps it");
    // as the call itself is recorded, before it is carried out: who records it keeps it in the spool meanwhile
    let mut intent = entry(&world, "acme", "acme");
    if let Some(operation) = &mut intent.operation {
        (operation.method, operation.phase) = ("Prepare".to_owned(), Phase::Intent.into());
    }
    assert_eq!(Ledger::append(&*stage.audit, vec![intent]).await.unwrap_err().reason, "UNCLAIMED");
    stage.prepare_with_log("acme", &incarnation, &log).await.unwrap();
    let taken = stage.prepare_with_log("thief", "", &log).await.unwrap_err();
    assert_eq!(ServiceError::from(&taken).reason, "OTHER_LOG");
    stage.say(&world, "acme", "early").await;
    assert_eq!(stage.append(vec![entry(&world, "late", "x")]).await.unwrap_err().code(), Code::Unavailable);
    world.advance(SignedDuration::from_hours(24));
    stage.say(&world, "late", "nobody claims for ever").await;
}

async fn expired_days_do_not_come_back(mut world: World) {
    world.advance_to("2024-03-10T12:00:00Z");
    let stage = world.start().await;
    let (incarnation, log) = stage.prepare_with_log("acme", "", "").await.unwrap();
    stage.say(&world, "acme", "old").await;
    stage.audit.follow_roots().await.unwrap();
    world.advance_to("2025-03-10T12:00:00Z");
    stage.say(&world, "acme", "young").await;
    stage.audit.follow_roots().await.unwrap();
    stage.stop().await;
    world.advance_to("2025-03-11T12:00:00Z");
    world.lose_database().await;
    let stage = started(&world).await;
    assert_sound(&stage);
    stage.prepare_with_log("acme", &incarnation, &log).await.unwrap();
    assert_eq!(stage.targets("acme").await, ["young"]);
    assert_eq!(bodies(&stage).await, 1);
}

async fn what_lies_under_an_ending_lock_is_put_once_more(mut world: World) {
    let stage = world.start().await;
    let (incarnation, log) = some_history(&world, &stage).await;
    let first = world.bucket.names("archive/").await;
    world.advance(SignedDuration::from_hours(24 * 370));
    stage.audit.expire().await.unwrap();
    stage.say(&world, "acme", "a year later").await;
    stage.audit.follow_roots().await.unwrap();
    assert_eq!(world.bucket.names("archive/").await.len(), 6, "not before it is time");
    world.advance(SignedDuration::from_hours(24 * 10));
    for _ in 0..3 {
        stage.audit.follow_roots().await.unwrap();
    }
    assert_eq!(world.bucket.names("archive/").await.len(), 7, "once");
    let whole = head(&stage, "acme", 0).await.0;
    stage.stop().await;
    world.advance(SignedDuration::from_hours(24 * 25));
    for name in first {
        let version = world.memory.head(&name, None).await.unwrap().version;
        world.memory.delete(&name, &version).await.expect("its lock has ended");
    }
    world.lose_database().await;
    let stage = started(&world).await;
    assert_sound(&stage);
    stage.prepare_with_log("acme", &incarnation, &log).await.unwrap();
    assert_eq!(head(&stage, "acme", 0).await.0, whole);
    assert_eq!(stage.targets("acme").await, ["a year later"]);
}

async fn keys_come_back_as_the_newest_epoch_key_wraps_them(mut world: World) {
    let stage = world.start().await;
    let (incarnation, log) = some_history(&world, &stage).await;
    let before = stage.targets("acme").await;
    world.advance(SignedDuration::from_hours(24 * 7));
    world.add_epoch();
    stage.audit.rotate_keys(&world.epochs()).await.unwrap();
    let sets = world.bucket.names("day-keys/").await;
    assert_eq!(sets.len(), 1);
    stage.audit.rotate_keys(&world.epochs()).await.unwrap();
    assert_eq!(world.bucket.names("day-keys/").await, sets, "once for an epoch key");
    stage.stop().await;
    // the old epoch key is destroyed
    world.epochs.lock().unwrap().remove(0);
    world.lose_database().await;
    let stage = started(&world).await;
    assert_sound(&stage);
    stage.prepare_with_log("acme", &incarnation, &log).await.unwrap();
    assert_eq!(stage.targets("acme").await, before);
}

async fn an_entry_is_found_in_the_archive(world: World) {
    let stage = world.start().await;
    some_history(&world, &stage).await;
    let log = stage.audit.some_log_of(&tsujiban_audit::owner::Owner::parse("acme").unwrap()).await.unwrap();
    let wanted = [0, 199, 200, 399];
    let found = EntrySource::entries(&*stage.audit, &log.id, &[0, 199, 200, 399, 400]).await.unwrap();
    assert_eq!(found.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), wanted);
    for found in found {
        let row = stage.audit.entries(log.number, found.sequence, 1).await.unwrap().pop().unwrap();
        assert_eq!((found.leaf, found.sealed, found.appended_us), (row.leaf, row.sealed, row.appended_us));
    }
    let other = tsujiban_history::LogId::from_bytes([7; 16]);
    assert!(EntrySource::entries(&*stage.audit, &other, &wanted).await.unwrap().is_empty());
}

/// The service stops between a part and its list; somebody else puts an object beside them.
async fn parts_are_locked_like_lists_and_one_without_a_list_harms_nothing(mut world: World) {
    let stage = world.start().await;
    let (incarnation, log) = some_history(&world, &stage).await;
    stage.say(&world, "acme", "before the list").await;
    world.bucket.refuse(Some("roots/"));
    stage.audit.follow_roots().await.unwrap_err();
    world.bucket.refuse(None);
    assert_eq!((world.bucket.names("archive/").await.len(), world.lists().await.len()), (6, 5));
    stage.say(&world, "acme", "and after").await;
    stage.audit.follow_roots().await.unwrap();
    let parts = world.bucket.names("archive/").await;
    assert_eq!(parts.len(), 7);
    for part in &parts {
        let lock = world.memory.head(part, None).await.unwrap().lock.unwrap();
        assert!(lock.compliance && lock.until.duration_since(world.now()).as_hours() >= 400 * 24 - 1);
    }
    world.memory.put("archive/000000000003-0123456789abcdef", "forged".into(), None).await.unwrap();
    let before = stage.targets("acme").await;
    stage.stop().await;
    world.lose_database().await;
    let stage = started(&world).await;
    assert_sound(&stage);
    stage.prepare_with_log("acme", &incarnation, &log).await.unwrap();
    assert_eq!(stage.targets("acme").await, before);
    stage.say(&world, "acme", "on").await;
    stage.audit.follow_roots().await.unwrap();
    assert_sound(&stage);
}

async fn parts_are_fetched_ahead_and_taken_in_their_order(mut world: World) {
    let stage = world.start().await;
    let (incarnation, log) = stage.prepare_with_log("acme", "", "").await.unwrap();
    for n in 0..24 {
        stage.say(&world, "acme", &n.to_string()).await;
        stage.audit.follow_roots().await.unwrap();
    }
    let before = stage.targets("acme").await;
    stage.stop().await;
    world.lose_database().await;
    world.bucket.slow_down();
    let stage = started(&world).await;
    assert_sound(&stage);
    stage.prepare_with_log("acme", &incarnation, &log).await.unwrap();
    assert_eq!(stage.targets("acme").await, before);
    assert_eq!(world.bucket.most_at_once(), 8, "not one by one, and never more");
}
