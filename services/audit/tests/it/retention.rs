//! A day is readable to the end of D+365 and not after (C5), and nothing else ever goes.

use sqlx::Row;
use tsujiban_core::error::chain;
use tsujiban_database::{Backend, on};
use tsujiban_history::Leaf;
use tsujiban_history::leaf::Content;
use tsujiban_history::verify::{Report, Verdict, Verifier};
use tsujiban_proto::audit::v1::{ExportEntriesRequest, ExportFormat};
use tsujiban_service::testing::with_token;

use crate::stage::{STAFF, Stage, World, entry};

crate::on_both!(
    a_day_begins_at_15_00_utc_and_ends_after_365_days,
    the_29th_of_february_lasts_to_the_28th,
    what_the_databases_clock_calls_young_stays,
    nothing_is_changed_or_removed_by_statements,
    day_keys_follow_the_epoch_keys,
    no_column_lets_a_day_go_before_its_time,
    no_column_lets_a_day_stay,
);

/// How many bodies are in the database.
pub async fn bodies(stage: &Stage) -> i64 {
    let count = "SELECT COUNT(*) FROM entries WHERE sealed IS NOT NULL";
    on!(stage.database.reads(), p => sqlx::query_scalar(count).fetch_one(p).await).unwrap()
}

/// The whole export of a group.
pub async fn export(stage: &Stage, group: &str, format: ExportFormat) -> Vec<u8> {
    let request = ExportEntriesRequest { group: group.into(), format: format.into(), ..Default::default() };
    let mut stream = stage.client().export_entries(with_token(STAFF, request)).await.unwrap().into_inner();
    let mut file = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        assert!(message.chunk.len() <= 64 * 1024);
        file.extend(message.chunk);
    }
    file
}

/// What an auditor says of a group's export, with the root lists of the bucket.
pub async fn verify(stage: &Stage, world: &World, group: &str) -> Report {
    let log = stage.audit.some_log_of(&tsujiban_audit::owner::Owner::parse(group).unwrap()).await.unwrap();
    let export = export(stage, group, ExportFormat::JsonLines).await;
    let mut verifier = Verifier::new(stage.audit.verifier().clone(), stage.audit.origin(log.id), world.now()).unwrap();
    for (name, list) in world.lists().await {
        verifier.add_list(&name, &list).unwrap();
    }
    verifier.verify(export.as_slice()).unwrap()
}

async fn a_day_begins_at_15_00_utc_and_ends_after_365_days(world: World) {
    world.advance_to("2024-03-10T14:59:59.999999Z");
    let stage = world.start().await;
    stage.say(&world, "acme", "on the 10th").await;
    world.advance_to("2024-03-10T15:00:00Z");
    stage.say(&world, "acme", "on the 11th").await;
    let keys = key_ids(&stage).await;
    assert_ne!(keys[0], keys[1], "each day has a key of its own");

    world.advance_to("2025-03-10T14:59:59.999999Z");
    assert_eq!(stage.audit.expire().await.unwrap(), 0);
    assert_eq!(stage.targets("acme").await, ["on the 10th", "on the 11th"]);
    world.advance_to("2025-03-10T15:00:00Z");
    assert_eq!(stage.targets("acme").await, ["on the 11th"], "it is not shown, also before it is destroyed");
    assert_eq!(stage.audit.expire().await.unwrap(), 1);
    assert_eq!((bodies(&stage).await, stage.audit.expire().await.unwrap()), (1, 0));
    let log = stage.audit.some_log_of(&tsujiban_audit::owner::Owner::parse("acme").unwrap()).await.unwrap();
    let leaf = Leaf::parse(&stage.audit.entries(log.number, 2, 1).await.unwrap()[0].leaf).unwrap();
    let Content::Retention(retention) = leaf.content else { panic!("no retention: {leaf:?}") };
    assert_eq!((retention.day.to_string().as_str(), retention.first, retention.last, retention.count), ("2024-03-10", 0, 0, 1));
    assert_eq!(retention.key.as_bytes().to_vec(), keys[0]);
    stage.audit.follow_roots().await.unwrap();
    let report = verify(&stage, &world, "acme").await;
    assert!(matches!(report.verdict, Verdict::Expired(_)), "{report:?}");

    world.advance_to("2025-03-11T15:00:00Z");
    assert_eq!(stage.audit.expire().await.unwrap(), 1);
    assert_eq!(bodies(&stage).await, 0);
    assert!(stage.targets("acme").await.is_empty());
    assert_eq!(stage.say(&world, "acme", "today").await, 4);
}

async fn key_ids(stage: &Stage) -> Vec<Vec<u8>> {
    let keys = "SELECT key_id FROM day_keys WHERE log <> 0 ORDER BY day";
    on!(stage.database.reads(), p => sqlx::query_scalar(keys).fetch_all(p).await).unwrap()
}

async fn the_29th_of_february_lasts_to_the_28th(world: World) {
    world.advance_to("2024-02-29T03:00:00Z");
    let stage = world.start().await;
    stage.say(&world, "acme", "leap day").await;
    world.advance_to("2025-02-28T14:59:59Z");
    assert_eq!((stage.audit.expire().await.unwrap(), stage.targets("acme").await.len()), (0, 1));
    world.advance_to("2025-02-28T15:00:00Z");
    assert_eq!((stage.audit.expire().await.unwrap(), stage.targets("acme").await.len()), (1, 0));
}

/// The service's clock is two years ahead: the database does not believe it.
async fn what_the_databases_clock_calls_young_stays(world: World) {
    world.advance_to("2099-01-01T00:00:00Z");
    let stage = world.start().await;
    stage.say(&world, "acme", "young").await;
    world.advance(jiff::SignedDuration::from_hours(24 * 800));
    assert_eq!((stage.audit.expire().await.unwrap(), bodies(&stage).await), (0, 1));
    for statement in ["UPDATE entries SET sealed = NULL", "DELETE FROM day_keys WHERE log <> 0"] {
        assert!(execute(&stage, statement).await.is_err(), "{statement}");
    }
    if let Backend::Postgres(p) = stage.database.reads() {
        let refused = sqlx::query("SELECT destroy_expired_day(log, day) FROM entries").fetch_all(p).await.unwrap_err();
        assert!(chain(&refused).contains("has not expired"), "{refused}");
    }
    assert_eq!(bodies(&stage).await, 1);
}

async fn nothing_is_changed_or_removed_by_statements(world: World) {
    let stage = world.start().await;
    stage.append((0..300).map(|n| entry(&world, "acme", &n.to_string())).collect::<Vec<_>>()[..256].to_vec()).await.unwrap();
    stage.say(&world, "acme", "last").await;
    for statement in [
        "DELETE FROM entries",
        "UPDATE entries SET leaf = sealed",
        "UPDATE entries SET sequence = sequence + 1000",
        "UPDATE entries SET day = day - 1000, sealed = NULL",
        "UPDATE entries SET sealed = leaf",
        "UPDATE entries SET id = NULL, sealed = NULL",
        "DELETE FROM nodes",
        "UPDATE nodes SET hash = hash || hash",
        "UPDATE heads SET size = size - 1",
        "DELETE FROM heads",
    ] {
        assert!(execute(&stage, statement).await.is_err(), "{statement}");
    }
    if let Backend::Postgres(_) = stage.database.writes() {
        for statement in [
            "TRUNCATE entries",
            "DROP TABLE entries",
            "ALTER TABLE entries DISABLE TRIGGER ALL",
            "DROP TRIGGER entries_stay ON entries",
            "UPDATE entries SET sealed = NULL",
            "DELETE FROM day_keys",
            "UPDATE day_keys SET wrapped = key_id",
            "UPDATE logs SET log_id = ''",
            "SELECT grant_history('public')",
            "DELETE FROM logs",
            "DELETE FROM root_lists",
        ] {
            assert!(execute(&stage, statement).await.is_err(), "{statement}");
        }
    }
    assert_eq!((bodies(&stage).await, stage.targets("acme").await.len()), (257, 257));
}

async fn execute(stage: &Stage, statement: &'static str) -> Result<(), sqlx::Error> {
    on!(stage.database.writes(), p => sqlx::query(statement).execute(p).await.map(drop))
}

async fn day_keys_follow_the_epoch_keys(world: World) {
    let stage = world.start().await;
    stage.say(&world, "acme", "before").await;
    world.advance(jiff::SignedDuration::from_hours(1));
    let old = world.epochs()[0].clone();
    let new = world.add_epoch();
    let rotated = stage.audit.rotate_keys(&world.epochs()).await.unwrap();
    assert_eq!((rotated.rewrapped, rotated.retired, rotated.unopened), (2, 0, 0), "the day's key, and the signing key's");
    stage.say(&world, "other", "between").await;
    assert_eq!(stage.audit.epochs_in_use().await.unwrap().len(), 2);
    world.advance(jiff::SignedDuration::from_hours(24));
    let rotated = stage.audit.rotate_keys(&world.epochs()).await.unwrap();
    assert_eq!((rotated.rewrapped, rotated.retired), (0, 3));
    assert_eq!(stage.audit.epochs_in_use().await.unwrap(), [new.id.to_string()]);
    stage.stop().await;
    // the old epoch key is destroyed
    world.epochs.lock().unwrap().retain(|epoch| epoch.id != old.id);
    let stage = world.start().await;
    assert_eq!((stage.targets("acme").await, stage.targets("other").await), (vec!["before".to_owned()], vec!["between".to_owned()]));
}

/// The day of a key, where its entries begin, and the day of an entry are columns: whatever they say, nothing young goes.
async fn no_column_lets_a_day_go_before_its_time(world: World) {
    world.advance_to("2024-03-10T03:00:00Z");
    let stage = world.start().await;
    for group in ["key", "entry", "both"] {
        stage.say(&world, group, "old").await;
    }
    world.advance_to("2025-03-01T03:00:00Z");
    for group in ["key", "entry", "both"] {
        for n in 0..3 {
            stage.say(&world, group, &format!("young {n}")).await;
        }
    }
    let log = "(SELECT number FROM logs WHERE group_id = 'GROUP')";
    let old = format!("(SELECT MIN(day) FROM day_keys WHERE log = {log})");
    for (group, statement) in [
        // 20 days before the right one
        ("key", format!("UPDATE day_keys SET day = {old} - 20 WHERE log = {log} AND day > {old}")),
        ("entry", format!("UPDATE entries SET day = {old} WHERE log = {log} AND sequence = 2")),
        ("both", format!("UPDATE entries SET day = {old} WHERE log = {log} AND sequence = 2")),
        ("both", format!("UPDATE day_keys SET first = 3 WHERE log = {log} AND day > {old}")),
    ] {
        crate::damage::forge(&world, &stage, &statement.replace("GROUP", group)).await;
    }
    world.advance_to("2025-03-10T15:00:00Z");
    stage.audit.expire().await.unwrap();
    for group in ["entry", "both"] {
        assert_eq!(stage.targets(group).await, ["young 0", "young 1", "young 2"], "{group}");
    }
    let sealed = "SELECT COUNT(*) FROM entries e JOIN logs l ON l.number = e.log WHERE l.group_id = 'key' AND e.sealed IS NOT NULL";
    let left: i64 = on!(stage.database.reads(), p => sqlx::query_scalar(sealed).fetch_one(p).await).unwrap();
    assert_eq!(left, 3, "the bodies of the young day, whose key says another one");
    let keys: i64 = on!(stage.database.reads(), p => sqlx::query_scalar(
        "SELECT COUNT(*) FROM day_keys k JOIN logs l ON l.number = k.log WHERE l.group_id = 'key'").fetch_one(p).await)
    .unwrap();
    assert_eq!(keys, 1);
    // the row of the key is put right, and it opens what it sealed
    let right = "UPDATE day_keys SET day = day + 20 + 356 WHERE log = (SELECT number FROM logs WHERE group_id = 'key')";
    crate::damage::forge(&world, &stage, right).await;
    assert_eq!(stage.targets("key").await, ["young 0", "young 1", "young 2"]);
}

/// What a column says of an entry or of a key's first one keeps no day: its key goes, and with it all that it sealed.
async fn no_column_lets_a_day_stay(world: World) {
    world.advance_to("2024-03-10T03:00:00Z");
    let stage = world.start().await;
    for group in ["first", "beyond", "entry"] {
        stage.append((0..300).map(|n| entry(&world, group, &n.to_string())).collect::<Vec<_>>()[..256].to_vec()).await.unwrap();
        stage.say(&world, group, "last").await;
    }
    world.advance_to("2024-03-11T03:00:00Z");
    stage.say(&world, "first", "young").await;
    let log = "(SELECT number FROM logs WHERE group_id = 'GROUP')";
    for (group, statement) in [
        ("first", format!("UPDATE day_keys SET first = 257 WHERE log = {log} AND first = 0")),
        ("beyond", format!("UPDATE day_keys SET first = 100000 WHERE log = {log}")),
        ("entry", format!("UPDATE entries SET day = day + 1000 WHERE log = {log} AND sequence = 5")),
    ] {
        crate::damage::forge(&world, &stage, &statement.replace("GROUP", group)).await;
    }
    world.advance_to("2025-03-10T15:00:00Z");
    assert_eq!(stage.audit.expire().await.unwrap(), 3);
    for group in ["beyond", "entry"] {
        assert!(stage.targets(group).await.is_empty(), "{group}");
    }
    assert_eq!(stage.targets("first").await, ["young"]);
    stage.audit.follow_roots().await.unwrap();
    for group in ["first", "beyond", "entry"] {
        let report = verify(&stage, &world, group).await;
        assert!(matches!(report.verdict, Verdict::Expired(_)), "{group}: {report}");
    }
}

/// C5, C22: a copy of the database from before a day expired opens it no more, once the epoch key that wrapped it was followed by another one
/// and the overlap has passed.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_does_not_bring_an_expired_day_back() {
    let world = World::sqlite();
    let stage = world.start().await;
    stage.say(&world, "acme", "long ago").await;
    stage.stop().await;
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(world.file(), copy.path().join("history.db")).unwrap();

    let stage = world.start().await;
    world.advance_to("2025-03-01T00:00:00Z");
    assert_eq!(stage.audit.expire().await.unwrap(), 1);
    let opens = async |world: &World| {
        let mut parts = world.parts().await;
        parts.database = tsujiban_database::Database::sqlite(&copy.path().join("history.db")).await.unwrap();
        parts.folder = Some(copy.path().to_owned());
        // the attacker's clock says that it is yesterday
        parts.clock = std::sync::Arc::new(tsujiban_core::clock::ManualClock::new("2024-02-21T00:00:00Z".parse().unwrap()));
        let audit = tsujiban_audit::service::Audit::open(parts).await?;
        let log = audit.some_log_of(&tsujiban_audit::owner::Owner::parse("acme").unwrap()).await?;
        audit.list(&log, &tsujiban_audit::reading::Filter::default(), None, 10).await.map(|page| (page.entries.len(), page.damaged))
    };
    assert_eq!(opens(&world).await.unwrap().0, 1, "as long as the epoch key is there, it does");
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let old = world.epochs()[0].clone();
    world.add_epoch();
    stage.audit.rotate_keys(&world.epochs()).await.unwrap();
    world.advance(jiff::SignedDuration::from_hours(24));
    stage.audit.rotate_keys(&world.epochs()).await.unwrap();
    assert!(!stage.audit.epochs_in_use().await.unwrap().contains(&old.id.to_string()), "so the operator destroys it");
    world.epochs.lock().unwrap().retain(|epoch| epoch.id != old.id);
    let (shown, damaged) = opens(&world).await.unwrap();
    assert_eq!((shown, damaged.into_values().collect::<Vec<_>>()), (0, vec![tsujiban_audit::reading::Wrong::NotMounted]));
    assert!(stage.targets("acme").await.is_empty());
}

/// What was destroyed is nowhere in the files.
#[tokio::test(flavor = "multi_thread")]
async fn a_destroyed_body_is_not_in_the_file_any_more() {
    let world = World::sqlite();
    let stage = world.start().await;
    stage.say(&world, "acme", "long ago").await;
    let Backend::Sqlite(p) = stage.database.reads() else { panic!("this is SQLite") };
    let row = sqlx::query("SELECT sealed, wrapped FROM entries JOIN day_keys k ON k.log = entries.log").fetch_one(p).await.unwrap();
    let (sealed, wrapped): (Vec<u8>, Vec<u8>) = (row.get(0), row.get(1));
    let holds = |needle: &[u8]| {
        ["history.db", "history.db-wal"].iter().any(|name| {
            let file = std::fs::read(world.folder().unwrap().join(name)).unwrap_or_default();
            file.windows(needle.len()).any(|window| window == needle)
        })
    };
    assert!(holds(&sealed[..64]) && holds(&wrapped));
    world.advance_to("2025-03-01T00:00:00Z");
    stage.audit.expire().await.unwrap();
    assert!(!holds(&sealed[..64]) && !holds(&wrapped));
}
