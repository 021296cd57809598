//! Forty days and more by a clock that is moved: always 35 days of snapshots, never none, and what is past its time is gone.

use jiff::{SignedDuration, Timestamp};
use tsujiban_backup::object::{ids_of_key, lock_of_sighting, object_key};
use tsujiban_core::commitments::SNAPSHOTS;
use tsujiban_core::id::{IncarnationId, SnapshotId};
use tsujiban_core::retention::retain_until;
use tsujiban_objects::{Objects, list_all};
use tsujiban_proto::time::from_wire;

use crate::stage::{STAFF, Stage, config};

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The config of a device that changes every so many days, on a day; `None`: never.
fn on_day(serial: &str, changes: Option<u64>, day: u64) -> Vec<u8> {
    config(&format!("{serial}-{}", changes.map_or(0, |every| day / every)))
}

/// C23: of a config that changes daily, every few days, or never, the snapshots of the past 35 days are there on each of 80
/// days, and what was last seen 35 days ago is gone from the storage itself.
#[tokio::test]
async fn always_thirty_five_days_and_never_none() {
    let stage = Stage::prepared().await;
    let devices = [("DAILY", Some(1)), ("WEEKLY", Some(7)), ("NEVER", None)];
    let kept_days = SNAPSHOTS.as_secs() / 86_400;
    for day in 0..80 {
        for (serial, changes) in devices {
            stage.put("acme", serial, &on_day(serial, changes, day)).await.unwrap();
            let listed = stage.list("acme", serial).await.unwrap();
            for past in day.saturating_sub(kept_days - 1)..=day {
                let wanted = on_day(serial, changes, past);
                let then = stage.now() - DAY * i32::try_from(day - past).unwrap();
                let found =
                    listed.iter().find(|s| from_wire(&s.taken_at.unwrap()) <= Some(then) && from_wire(&s.seen_at.unwrap()) >= Some(then));
                let found = found.unwrap_or_else(|| panic!("day {day}: no snapshot of {serial} as it was on day {past}"));
                if past == day || past + kept_days == day + 1 {
                    assert_eq!(stage.get(STAFF, "acme", &found.id, true).await.unwrap(), wanted, "{serial}, day {day}");
                }
            }
            let oldest = listed.iter().filter_map(|s| from_wire(&s.seen_at.unwrap())).min().unwrap();
            assert!(oldest > stage.now() - DAY * 36, "day {day}: {serial} keeps what was last seen {oldest}");
        }
        for entry in list_all(&*stage.world.memory, "v1/").await.unwrap() {
            let id = ids_of_key(&entry.key).unwrap().snapshot.to_string();
            let lock = stage.world.memory.head(&entry.key, Some(&entry.version)).await.unwrap().lock.unwrap();
            let listed = stage.list("acme", "").await.unwrap().into_iter().find(|s| s.id == id).unwrap();
            assert_eq!(Some(lock.until), from_wire(&listed.seen_at.unwrap()).map(retain_until), "day {day}");
        }
        stage.advance(DAY);
        stage.backup.expire().await.unwrap();
        let catalogued: usize = stage.report().await.groups.iter().map(|g| usize::try_from(g.snapshots).unwrap()).sum();
        assert_eq!(list_all(&*stage.world.memory, "v1/").await.unwrap().len(), catalogued, "day {day}: the storage has what is listed");
    }
    assert_eq!(stage.list("acme", "NEVER").await.unwrap()[0].sightings, 80);
    assert_eq!(stage.list("acme", "DAILY").await.unwrap().len() as u64, kept_days - 1);
}

/// C23: the last config of a device that went silent stays, also after its lock has run out.
#[tokio::test]
async fn a_silent_device_keeps_its_last_config() {
    let stage = Stage::prepared().await;
    stage.put("acme", "SN1", &config("old")).await.unwrap();
    stage.put("acme", "SN1", &config("last")).await.unwrap();
    stage.advance(DAY * 100);
    let done = stage.backup.expire().await.unwrap();
    assert_eq!((done.snapshots, stage.list("acme", "").await.unwrap().len()), (1, 1));
    let last = &stage.list("acme", "").await.unwrap()[0];
    assert_eq!(stage.get(STAFF, "acme", &last.id, true).await.unwrap(), config("last"));
    // and it can be seen again after its lock has run out
    assert!(!stage.put("acme", "SN1", &config("last")).await.unwrap().changed);
    assert_eq!(stage.backup.expire().await.unwrap().snapshots, 0);
}

/// C23: the storage has the last word on how long an object is locked.
#[tokio::test]
async fn a_lock_that_the_catalogue_did_not_know_of_is_respected() {
    let stage = Stage::prepared().await;
    stage.put("acme", "SN1", &config("one")).await.unwrap();
    stage.put("acme", "SN1", &config("two")).await.unwrap();
    let first = &list_all(&*stage.world.memory, "v1/").await.unwrap()[0];
    let longer = lock_of_sighting(stage.now() + DAY);
    stage.world.memory.set_lock(&first.key, &first.version, longer).await.unwrap();
    stage.advance(DAY * 35);
    assert_eq!(stage.backup.expire().await.unwrap().snapshots, 0);
    let oldest = stage.list("acme", "").await.unwrap().pop().unwrap();
    assert_eq!(from_wire(&oldest.locked_until.unwrap()), Some(longer.time()));
    stage.advance(DAY);
    assert_eq!(stage.backup.expire().await.unwrap().snapshots, 1);
}

/// C23: what a crash left in the bucket is not forgotten there for ever: it becomes the snapshot that it is, and goes in its time. What
/// cannot be opened is kept and named, and what never had a lock is not this service's.
#[tokio::test]
async fn what_nothing_refers_to_is_taken_in_or_kept() {
    let stage = Stage::prepared().await;
    let (_, first) = stage.store("acme", "SN1", "one").await;
    let (crashed, second) = stage.store("acme", "SN1", "two").await;
    stage.catalogue.forget_snapshot(&crashed.parse().unwrap()).await.unwrap();
    let ids = ids_of_key(&first).unwrap();
    let garbage = object_key(&ids.group, &ids.device, &SnapshotId::from_bytes([9; 16]));
    let stranger = object_key(&IncarnationId::from_bytes([8; 16]), &ids.device, &ids.snapshot);
    stage.world.memory.put(&garbage, "x".into(), Some(lock_of_sighting(stage.now()))).await.unwrap();
    stage.world.memory.put(&stranger, "x".into(), None).await.unwrap();
    assert_eq!(stage.backup.sweep().await.unwrap(), 0);
    assert_eq!(stage.get(STAFF, "acme", &crashed, true).await.unwrap(), config("two"));
    stage.advance(DAY * 35);
    stage.put("acme", "SN1", &config("three")).await.unwrap();
    assert_eq!(stage.backup.sweep().await.unwrap(), 0);
    assert_eq!(stage.backup.expire().await.unwrap().snapshots, 2);
    let left: Vec<_> = list_all(&*stage.world.memory, "v1/").await.unwrap().into_iter().map(|e| e.key).collect();
    assert!(!left.contains(&first) && !left.contains(&second), "{left:?}");
    assert!(left.contains(&garbage) && left.contains(&stranger), "{left:?}");
}

#[tokio::test]
async fn a_clock_set_back_does_not_disorder_snapshots() {
    let stage = Stage::prepared().await;
    stage.put("acme", "SN1", &config("one")).await.unwrap();
    stage.advance(SignedDuration::from_hours(-2));
    let second = stage.put("acme", "SN1", &config("two")).await.unwrap().snapshot.unwrap();
    assert_eq!(stage.list("acme", "SN1").await.unwrap()[0].id, second.id);
    assert!(!stage.put("acme", "SN1", &config("two")).await.unwrap().changed);
    assert!(from_wire(&second.taken_at.unwrap()).unwrap() < Timestamp::MAX);
}
