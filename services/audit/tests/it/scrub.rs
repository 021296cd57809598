//! Everything that is stored is read again, and what is damaged is said, recorded and healed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::SignedDuration;
use sqlx::AssertSqlSafe;
use tsujiban_audit::engine::Standing;
use tsujiban_audit::error::Result;
use tsujiban_audit::owner::Owner;
use tsujiban_audit::reading::{Log, Stored};
use tsujiban_audit::roots::GapScope;
use tsujiban_audit::scrub::{EntrySource, Integrity, Scrub, Step};
use tsujiban_database::on;
use tsujiban_history::LogId;
use tsujiban_history::verify::Verdict;
use tsujiban_objects::Objects as _;
use tsujiban_proto::audit::v1::{ListEntriesRequest, Operation, Result as AuditResult};
use tsujiban_proto::lifecycle::v1::lifecycle_service_client::LifecycleServiceClient;
use tsujiban_proto::lifecycle::v1::{IntegrityState, PrepareRequest, ReportRequest};
use tsujiban_service::testing::with_token;

use crate::damage::{flip, forge, grown, listed};
use crate::rebuild::started;
use crate::retention::verify;
use crate::stage::{OPERATOR, Stage, World};

crate::on_both!(
    a_sound_history_is_intact_once_it_was_read_again,
    what_is_damaged_is_found_recorded_and_healed_where_it_can_be,
    entries_come_back_from_copies_and_from_no_forged_ones,
    damaged_entries_come_back_from_the_bucket,
    a_restart_goes_on_where_it_was,
    shared_things_are_read_again,
    a_damaged_list_is_healed_by_the_next_one,
    keys_of_days_come_back_from_the_bucket,
    lists_that_a_gap_stated_are_damage_no_more,
    a_healed_body_goes_with_its_day,
);

const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Steps until nothing is due, and how many those were.
async fn scrub(scrub: &mut Scrub, stage: &Stage) -> usize {
    let mut steps = 0;
    while scrub.step(&stage.audit).await.unwrap() != Step::Idle {
        steps += 1;
        assert!(steps < 1_000, "it never ends");
    }
    steps
}

/// What the history of a group says of the scrub, oldest first: target, result and word.
async fn recorded(stage: &Stage, group: &str) -> Vec<(String, AuditResult, String)> {
    let entries = stage.list(group).await.into_iter().rev().map(|entry| entry.operation.unwrap());
    let scrubs = entries.filter(|operation: &Operation| operation.method == "Scrub");
    scrubs.map(|operation| (operation.target.clone(), operation.result(), operation.reason)).collect()
}

async fn of(stage: &Stage, log: &Log) -> Integrity {
    stage.audit.integrity().await.unwrap().remove(&log.number).unwrap_or_default()
}

async fn a_sound_history_is_intact_once_it_was_read_again(world: World) {
    let stage = world.start().await;
    let log = grown(&world, &stage, "acme", 600).await;
    stage.audit.follow_roots().await.unwrap();
    let mut client = LifecycleServiceClient::new(stage.server.channel());
    let prepare = PrepareRequest { group: "acme".into(), ..Default::default() };
    client.prepare(with_token(OPERATOR, prepare)).await.unwrap();
    let report = async |mut client: LifecycleServiceClient<_>| {
        let report = client.report(with_token(OPERATOR, ReportRequest::default())).await.unwrap().into_inner();
        let group = report.groups[0].integrity.clone().unwrap();
        (group.state(), report.shared_integrity.unwrap().state(), group.checked_at.is_some())
    };
    assert_eq!(report(client.clone()).await, (IntegrityState::Unspecified, IntegrityState::Unspecified, false));
    let mut week = Scrub::new(WEEK);
    // three bundles, and what belongs to no log
    assert_eq!(scrub(&mut week, &stage).await, 4);
    assert_eq!(report(client.clone()).await, (IntegrityState::Intact, IntegrityState::Intact, true));
    assert!(of(&stage, &log).await.damaged.is_empty());
    world.advance(SignedDuration::from_hours(83));
    assert_eq!(scrub(&mut week, &stage).await, 0, "a pass begins after half the period");
    world.advance(SignedDuration::from_hours(1));
    assert_eq!(scrub(&mut week, &stage).await, 4);
    assert!(recorded(&stage, "acme").await.is_empty() && recorded(&stage, "").await.is_empty());
}

async fn what_is_damaged_is_found_recorded_and_healed_where_it_can_be(world: World) {
    let stage = world.start().await;
    let log = grown(&world, &stage, "acme", 600).await;
    let number = log.number;
    flip(&world, &stage, number, 5, "leaf", 40).await;
    flip(&world, &stage, number, 300, "sealed", 40).await;
    forge(&world, &stage, &format!("DELETE FROM entries WHERE log = {number} AND sequence >= 590")).await;
    forge(&world, &stage, &format!("UPDATE entries SET time_us = 1 WHERE log = {number} AND sequence = 7")).await;
    forge(&world, &stage, &format!("DELETE FROM nodes WHERE log = {number} AND number = 0")).await;
    let mut week = Scrub::new(WEEK);
    scrub(&mut week, &stage).await;
    let found = of(&stage, &log).await;
    assert_eq!((found.damaged, found.damaged_count), (vec!["entry 300".to_owned(), "entries 590 to 599".to_owned()], 11));
    assert!(found.checked_at.is_some());
    let (failed, allowed, text) = (AuditResult::Failed, AuditResult::Allowed, |text: &str| text.to_owned());
    let wanted = [
        (text("entries 590 to 599"), failed, text("DAMAGED")),
        (text("entry 300"), failed, text("DAMAGED")),
        (text("entry 5"), failed, text("DAMAGED")),
        (text("entry 5"), allowed, text("HEALED")),
        (text("entry 7"), failed, text("DAMAGED")),
        (text("entry 7"), allowed, text("HEALED")),
        (text("hash 0 of level 1"), failed, text("DAMAGED")),
        (text("hash 0 of level 1"), allowed, text("HEALED")),
    ];
    let mut said = recorded(&stage, "acme").await;
    said.sort_by(|a, b| (&a.0, &a.2).cmp(&(&b.0, &b.2)));
    assert_eq!(said, wanted);
    // what was healed is not named any more, and nothing is recorded twice
    world.advance(WEEK);
    scrub(&mut week, &stage).await;
    assert_eq!(recorded(&stage, "acme").await.len(), 8);
    let request = ListEntriesRequest { group: "acme".into(), page_size: 500, ..Default::default() };
    let damaged: Vec<_> = listed(&stage, request).await.1.into_iter().map(|(sequence, _)| sequence).collect();
    assert_eq!(damaged, [300, 590, 591, 592, 593, 594, 595, 596, 597, 598, 599]);
}

/// Copies of entries as they were.
struct Copies(Mutex<BTreeMap<u64, Stored>>);

#[async_trait]
impl EntrySource for Copies {
    async fn entries(&self, _: &LogId, sequences: &[u64]) -> Result<Vec<Stored>> {
        let copies = self.0.lock().unwrap();
        Ok(sequences.iter().filter_map(|sequence| copies.get(sequence).cloned()).collect())
    }
}

async fn entries_come_back_from_copies_and_from_no_forged_ones(world: World) {
    let stage = world.start().await;
    let log = grown(&world, &stage, "acme", 300).await;
    let other = grown(&world, &stage, "other", 300).await;
    let rows = async |log: &Log| {
        let rows = stage.audit.entries(log.number, 0, 300).await.unwrap();
        rows.into_iter().map(|row| (row.sequence, row)).collect::<BTreeMap<_, _>>()
    };
    let (right, foreign) = (rows(&log).await, rows(&other).await);
    flip(&world, &stage, log.number, 9, "sealed", 40).await;
    forge(&world, &stage, &format!("DELETE FROM entries WHERE log = {} AND sequence IN (3, 4, 280)", log.number)).await;
    // those of another log open for nobody here
    let mut forged = Scrub::new(WEEK).healing_from(Arc::new(Copies(Mutex::new(foreign))));
    scrub(&mut forged, &stage).await;
    assert_eq!(of(&stage, &log).await.damaged_count, 4);
    world.advance(WEEK);
    let mut week = Scrub::new(WEEK).healing_from(Arc::new(Copies(Mutex::new(right))));
    scrub(&mut week, &stage).await;
    assert_eq!((of(&stage, &log).await.damaged_count, of(&stage, &other).await.damaged_count), (0, 0));
    let request = ListEntriesRequest { group: "acme".into(), page_size: 500, ..Default::default() };
    let (targets, damaged) = listed(&stage, request).await;
    assert!(damaged.is_empty(), "{damaged:?}");
    assert!((0..300).all(|n| targets.contains(&n.to_string())));
    assert_eq!(verify(&stage, &world, "acme").await.verdict, Verdict::Intact);
    let healed: Vec<_> =
        recorded(&stage, "acme").await.into_iter().filter(|(.., word)| word == "HEALED").map(|(place, ..)| place).collect();
    assert_eq!(healed, ["entry 280", "entries 3 to 4", "entry 9"], "the newest first");
}

async fn damaged_entries_come_back_from_the_bucket(world: World) {
    let stage = world.start().await;
    let log = grown(&world, &stage, "acme", 300).await;
    stage.audit.follow_roots().await.unwrap();
    flip(&world, &stage, log.number, 9, "sealed", 40).await;
    forge(&world, &stage, &format!("DELETE FROM entries WHERE log = {} AND sequence IN (3, 4, 280)", log.number)).await;
    let audit = Arc::clone(&stage.audit);
    scrub(&mut Scrub::new(WEEK).healing_from(audit), &stage).await;
    assert_eq!(of(&stage, &log).await.damaged_count, 0);
    assert_eq!(verify(&stage, &world, "acme").await.verdict, Verdict::Intact);
}

async fn a_restart_goes_on_where_it_was(world: World) {
    let stage = world.start().await;
    grown(&world, &stage, "acme", 1_000).await;
    let mut before = Scrub::new(WEEK);
    for _ in 0..3 {
        assert_ne!(before.step(&stage.audit).await.unwrap(), Step::Idle);
    }
    stage.stop().await;
    let stage = world.start().await;
    // of four bundles and what belongs to no log, two bundles are left
    let mut after = Scrub::new(WEEK);
    let Step::Read { left, .. } = after.step(&stage.audit).await.unwrap() else { panic!("nothing is left") };
    assert_eq!((left, scrub(&mut after, &stage).await), (2, 1));
}

async fn shared_things_are_read_again(world: World) {
    let stage = world.start().await;
    for n in 0..20 {
        stage.say(&world, "acme", &n.to_string()).await;
        stage.audit.follow_roots().await.unwrap();
        world.advance(SignedDuration::from_mins(1));
    }
    assert_eq!(world.lists().await.len(), 20);
    world.bucket.flip_a_bit("roots/000000000002").await;
    // what lies over a list is said by a metric: the list is as it was
    world.memory.put("roots/000000000003", "forged".into(), None).await.unwrap();
    forge(&world, &stage, "UPDATE day_keys SET wrapped = key_id WHERE log = 0").await;
    let hash = "UPDATE root_lists SET number = 21 WHERE number = 20";
    forge(&world, &stage, hash).await;
    scrub(&mut Scrub::new(WEEK), &stage).await;
    let shared = stage.audit.integrity().await.unwrap().remove(&0).unwrap();
    assert_eq!(shared.damaged_count, 3, "{shared:?}");
    assert!(shared.damaged[0].starts_with("key 0 under epoch key"), "{shared:?}");
    assert_eq!(shared.damaged[1..], ["root list 2", "root list 21"]);
    let said = recorded(&stage, "").await;
    assert_eq!(said.len(), 3, "{said:?}");
}

async fn a_damaged_list_is_healed_by_the_next_one(world: World) {
    let stage = world.start().await;
    for n in 0..3 {
        stage.say(&world, "acme", &n.to_string()).await;
        stage.audit.follow_roots().await.unwrap();
    }
    world.bucket.flip_a_bit(world.bucket.names("roots/").await.last().unwrap()).await;
    scrub(&mut Scrub::new(WEEK), &stage).await;
    let shared = async || stage.audit.integrity().await.unwrap().remove(&0).unwrap().damaged;
    assert_eq!(shared().await, ["root list 3"]);
    stage.audit.follow_roots().await.unwrap();
    world.advance(WEEK);
    scrub(&mut Scrub::new(WEEK), &stage).await;
    assert!(shared().await.is_empty());
    let said: Vec<_> = recorded(&stage, "").await.into_iter().map(|(target, _, reason)| (target, reason)).collect();
    assert_eq!(said.len(), 2, "found and healed: {said:?}");
    assert!(said.iter().all(|(target, _)| target == "root list 3"), "{said:?}");
}

async fn a_healed_body_goes_with_its_day(world: World) {
    world.advance_to("2024-03-10T03:00:00Z");
    let stage = world.start().await;
    let log = grown(&world, &stage, "acme", 10).await;
    flip(&world, &stage, log.number, 3, "leaf", 40).await;
    scrub(&mut Scrub::new(WEEK), &stage).await;
    let bodies = "SELECT COUNT(*) FROM healed_entries WHERE sealed IS NOT NULL";
    let count = async || -> i64 { on!(stage.database.reads(), p => sqlx::query_scalar(bodies).fetch_one(p).await).unwrap() };
    assert_eq!(count().await, 1);
    for statement in ["DELETE FROM healed_entries", "UPDATE healed_entries SET leaf = sealed"] {
        let refused = on!(stage.database.writes(), p => sqlx::query(AssertSqlSafe(statement)).execute(p).await.map(drop));
        assert!(refused.is_err(), "{statement}");
    }
    world.advance_to("2025-03-10T15:00:00Z");
    assert_eq!(stage.audit.expire().await.unwrap(), 1);
    assert_eq!(count().await, 0);
    stage.audit.follow_roots().await.unwrap();
    let report = verify(&stage, &world, "acme").await;
    assert!(matches!(report.verdict, Verdict::Expired(_)), "{report}");
    assert_eq!(stage.audit.some_log_of(&Owner::parse("acme").unwrap()).await.unwrap().size(), log.size() + 3);
}

/// The key of a day that has entries: of an older day it is found by the scrub, of the newest one at start, before there is another one.
async fn keys_of_days_come_back_from_the_bucket(world: World) {
    world.advance_to("2026-11-20T03:00:00Z");
    let stage = world.start().await;
    let gone = "DELETE FROM day_keys WHERE log = (SELECT MAX(number) FROM logs WHERE group_id = 'acme')";
    stage.say(&world, "acme", "monday").await;
    stage.audit.follow_roots().await.unwrap();
    world.advance(SignedDuration::from_hours(24));
    stage.say(&world, "acme", "tuesday").await;
    stage.audit.follow_roots().await.unwrap();
    let log = stage.audit.log_of(&Owner::Group("acme".parse().unwrap())).await.unwrap().unwrap();
    forge(&world, &stage, gone).await;
    let mut running = Scrub::new(WEEK);
    scrub(&mut running, &stage).await;
    scrub(&mut running, &stage).await;
    assert_eq!(of(&stage, &log).await.damaged, [""; 0], "both were found in the bucket, and the log was read again at once");
    forge(&world, &stage, gone).await;
    stage.stop().await;
    let stage = started(&world).await;
    stage.say(&world, "acme", "still tuesday").await;
    world.advance(WEEK);
    let mut after = Scrub::new(WEEK);
    scrub(&mut after, &stage).await;
    scrub(&mut after, &stage).await;
    assert_eq!(of(&stage, &log).await.damaged, [""; 0]);
    let said: Vec<_> = stage.targets("acme").await.into_iter().filter(|target| target.ends_with("day")).collect();
    assert_eq!(said, ["monday", "tuesday", "still tuesday"]);
}

/// Lists that are gone from the bucket are damage until staff have declared the gap, which states them; one that goes later is damage again.
async fn lists_that_a_gap_stated_are_damage_no_more(world: World) {
    let stage = world.start().await;
    for word in ["one", "two", "three"] {
        stage.say(&world, "acme", word).await;
        stage.audit.follow_roots().await.unwrap();
        world.advance(SignedDuration::from_mins(2));
    }
    let shared = async |stage: &Stage| {
        world.advance(WEEK);
        let mut now = Scrub::new(WEEK);
        scrub(&mut now, stage).await;
        stage.audit.shared_integrity(&stage.audit.integrity().await.unwrap()).await.unwrap().damaged
    };
    assert_eq!(shared(&stage).await, [""; 0]);
    world.bucket.remove_all("roots/").await;
    stage.audit.follow_roots().await.unwrap();
    assert!(matches!(stage.audit.engine.standing(), Standing::Forked(_)));
    assert!(shared(&stage).await.iter().any(|name| name == "root list 1"), "it is locked, and gone");
    stage.audit.declare_gap(&GapScope::All, "the bucket was emptied", "hanako").await.unwrap();
    assert_eq!(shared(&stage).await, [""; 0], "the gap and the list behind it state them");
    stage.say(&world, "acme", "four").await;
    stage.audit.follow_roots().await.unwrap();
    world.bucket.remove(&world.bucket.names("roots/").await.remove(0));
    assert!(!shared(&stage).await.is_empty(), "this one nobody has stated");
}
