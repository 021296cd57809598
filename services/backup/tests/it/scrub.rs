//! Damage is found before anybody needs the data, and told once.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use tsujiban_backup::scrub::Scrub;
use tsujiban_backup::service::Parts;
use tsujiban_backup::start::start;
use tsujiban_objects::Objects as _;
use tsujiban_proto::audit::v1::{ActorKind, NewEntry, Phase};
use tsujiban_proto::backup::v1::Attempt;
use tsujiban_proto::lifecycle::v1::IntegrityState;
use tsujiban_proto::time::from_wire;
use tsujiban_sealing::SystemRandom;
use tsujiban_service::history::{self, History, HistoryClient};
use tsujiban_service::testing::FakeAudit;

use crate::stage::{REGION, Stage, config};

const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);

async fn attempt(stage: &Stage) -> Attempt {
    stage.attempts(0).await.pop().unwrap()
}

/// A device's only object is damaged and its config does not change: that is found, told to whoever reads outcomes, and the next
/// backup stores the config anew.
#[tokio::test]
async fn what_is_found_damaged_is_stored_anew() {
    let stage = Stage::prepared().await;
    let (damaged, object) = stage.store("acme", "SN1", "one").await;
    assert!(!stage.put("acme", "SN1", &config("one")).await.unwrap().changed);
    let before = attempt(&stage).await;
    assert!(!before.newest.as_ref().unwrap().damaged);
    let sound = stage.world.memory.get(&object, None).await.unwrap();
    stage.world.memory.damage(&object, |body| body[20] ^= 1);
    stage.scrub().await;
    let found = attempt(&stage).await;
    assert!(found.cursor > before.cursor && found.newest.unwrap().damaged, "it is news");
    assert_eq!(stage.backup.shared_damage().await.unwrap().count, 0);

    let anew = stage.put("acme", "SN1", &config("one")).await.unwrap();
    let newest = attempt(&stage).await.newest.unwrap();
    assert!(anew.changed && !newest.damaged && newest.id != damaged);
    // it is sound again
    stage.world.memory.damage(&object, |body| *body = sound.to_vec());
    stage.world.memory.keep_checksums(false);
    stage.scrub().await;
    assert!(stage.list("acme", "SN1").await.unwrap().iter().all(|listed| !listed.damaged));
}

/// Intact is said only after one whole scrub, of what was there when it began.
#[tokio::test]
async fn integrity_is_not_known_before_a_whole_scrub() {
    let stage = Stage::prepared().await;
    let (_, object) = stage.store("acme", "SN1", "one").await;
    let integrity = async || {
        let report = stage.report().await;
        let of = |group: &str| report.groups.iter().find(|row| row.group == group).unwrap().integrity.clone().unwrap();
        (of("acme").state(), of("other").state(), report.shared_integrity.unwrap().state(), of("acme").checked_at)
    };
    let unknown = IntegrityState::Unspecified;
    assert_eq!(integrity().await, (unknown, unknown, unknown, None));
    stage.scrub().await;
    let (acme, other, shared, checked_at) = integrity().await;
    let intact = IntegrityState::Intact;
    assert_eq!((acme, other, shared), (intact, intact, intact));
    assert_eq!(from_wire(&checked_at.unwrap()), Some(stage.now()));
    stage.world.memory.lose(&object);
    stage.scrub().await;
    assert_eq!(integrity().await.0, IntegrityState::Damaged);
    assert_eq!(integrity().await.1, intact);
}

/// A scrub goes from new to old, goes on after a restart where it was, and reads everything at least once a period.
#[tokio::test]
async fn a_scrub_goes_on_after_a_restart() {
    let stage = Stage::prepared().await;
    let mut objects = Vec::new();
    for n in 0..120 {
        objects.push(stage.store("acme", &format!("SN{}", n % 7), &format!("{n}")).await.1);
    }
    for object in [&objects[0], &objects[119]] {
        stage.world.memory.damage(object, |body| body[20] ^= 1);
    }
    let mut scrub = Scrub::default();
    for _ in 0..60 {
        let wait = stage.backup.scrub_step(&mut scrub, WEEK).await.unwrap();
        assert!(wait <= Duration::from_secs(1));
    }
    assert_eq!(stage.catalogue.damaged_count().await.unwrap(), 1, "the newest first");
    let stage = stage.restart().await;
    let mut scrub = Scrub::default();
    let mut steps = 0;
    while stage.backup.whole_scrub().await.unwrap().is_none() {
        stage.backup.scrub_step(&mut scrub, WEEK).await.unwrap();
        steps += 1;
    }
    assert!(steps <= 72, "{steps} steps: it went on near where it was");
    assert_eq!(stage.catalogue.damaged_count().await.unwrap(), 2);
    let idle = stage.backup.scrub_step(&mut scrub, WEEK).await.unwrap();
    assert!(idle > Duration::from_secs(1), "the next round begins later");
    stage.advance(WEEK / 2);
    let whole = stage.backup.whole_scrub().await.unwrap();
    while stage.backup.whole_scrub().await.unwrap() == whole {
        stage.backup.scrub_step(&mut scrub, WEEK).await.unwrap();
    }
}

/// A sound copy that somebody puts back over a damaged object has no lock of its own.
#[tokio::test]
async fn what_is_put_back_is_locked_as_what_it_replaces() {
    let stage = Stage::prepared().await;
    let (_, object) = stage.store("acme", "SN1", "one").await;
    let memory = stage.world.memory.clone();
    let (sound, lock) = (memory.get(&object, None).await.unwrap(), memory.head(&object, None).await.unwrap().lock.unwrap());
    memory.damage(&object, |body| body[20] ^= 1);
    memory.put(&object, sound, None).await.unwrap();
    assert!(memory.head(&object, None).await.unwrap().lock.is_none());
    let mut scrub = Scrub::default();
    while stage.backup.whole_scrub().await.unwrap().is_none() {
        stage.backup.scrub_step(&mut scrub, WEEK).await.unwrap();
    }
    assert!(memory.head(&object, None).await.unwrap().lock.unwrap().until >= lock.until);
    assert_eq!(stage.catalogue.damaged_count().await.unwrap(), 0);
}

/// One entry for each damaged thing in the history of its group, and one when it is sound again, however often it is looked at.
#[tokio::test]
async fn the_history_tells_what_was_found_and_healed_once() {
    let stage = Stage::prepared().await;
    let (_, object) = stage.store("acme", "SN1", "one").await;
    let (world, epochs) = stage.stop().await;
    let (audit, spool) = (FakeAudit::start().await, tempfile::tempdir().unwrap());
    let parts = world.parts(&epochs, world.memory.clone()).await;
    let history = history::Parts {
        service: "tsujiban-backup",
        dir: spool.path().join("spool"),
        bytes: 1024 * 1024,
        keyring: Arc::clone(&parts.keyring),
        ledger: Arc::new(HistoryClient::new(&audit.args()).unwrap()),
        clock: world.clock.clone(),
        random: Arc::new(SystemRandom::new()),
    };
    let (history, delivery) = History::open(history, &Registry::new()).unwrap();
    let stop = CancellationToken::new();
    let delivery = tokio::spawn(delivery.run(stop.clone()));
    let backup = start(Parts { history: Some(history), ..parts }, &[REGION.to_owned()]).await.unwrap();
    let sound = world.memory.get(&object, None).await.unwrap();
    world.memory.damage(&object, |body| body[20] ^= 1);
    for _ in 0..3 {
        backup.rebuild().await.unwrap();
        backup.report_damage().await.unwrap();
    }
    world.memory.keep_checksums(false);
    world.memory.damage(&object, |body| *body = sound.to_vec());
    for _ in 0..3 {
        backup.rebuild().await.unwrap();
        backup.report_damage().await.unwrap();
    }
    let entries = loop {
        // that the spool is a new one is no damage
        let is_damage = |entry: &NewEntry| entry.operation.as_ref().is_some_and(|operation| operation.reason != history::SPOOL_BEGUN);
        let entries: Vec<NewEntry> = audit.entries().into_iter().filter(is_damage).collect();
        if entries.len() >= 2 {
            break entries;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    stop.cancel();
    delivery.await.unwrap();
    assert_eq!(entries.len(), 2);
    for (entry, reason) in entries.iter().zip(["DAMAGED", "HEALED"]) {
        let operation = entry.operation.as_ref().unwrap();
        assert_eq!((entry.group.as_str(), operation.reason.as_str(), operation.phase()), ("acme", reason, Phase::Observed));
        assert_eq!((operation.target.clone(), operation.function.as_str()), (format!("object {object}"), "snapshots"));
        let actor = operation.actor.as_ref().unwrap();
        assert_eq!((actor.kind(), actor.id.as_str()), (ActorKind::Workload, "tsujiban-backup"));
    }
}
