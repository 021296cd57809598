//! Damage that a gap names is still what it was when the database is lost after that: the hashes above lost entries lie in the archive, too.

use tsujiban_proto::audit::v1::declare_gap_request::Scope as Of;

use crate::rebuild::{assert_sound, checkpoint, started, verify_with};
use crate::refused::assert_whole;
use crate::roots::declare;
use crate::stage::{Stage, World, entry};

crate::on_both!(
    a_database_is_lost_after_its_newest_rows_were_declared_lost,
    a_database_is_lost_after_rows_in_the_middle_were_declared_lost,
    a_database_is_lost_after_whole_tiles_were_declared_lost,
    a_database_is_lost_after_another_leaf_was_declared,
    a_database_is_lost_after_a_hash_and_an_entry_were_declared_lost,
    a_database_is_lost_after_rows_of_a_long_log_were_declared_lost,
    an_older_database_comes_back_over_declared_damage,
);

const ACME: &str = "SELECT MAX(number) FROM logs WHERE group_id = 'acme'";
/// Everything is checked at the next start.
const DOUBTED: &str = "INSERT INTO meta (name, value) VALUES ('read-only because', 'something was found before')";

/// So many bytes make an entry long enough that a part of the archive takes some 150 of them.
const LONG: usize = 50_000;
/// How many entries are recorded behind the gap before each loss: in the tile in which the damage is, and then far beyond it.
const ROUNDS: &[usize] = &[1, 3, 300];

/// Two groups, a checkpoint of one of them, and 700 more of its entries that no list covers.
async fn some_history(world: &World) -> (Stage, String) {
    let stage = world.start().await;
    stage.say(world, "other", "theirs").await;
    stage.say(world, "acme", "first").await;
    stage.audit.follow_roots().await.unwrap();
    let kept = checkpoint(&stage, "acme").await;
    say_all(&stage, world, 700, "some").await;
    (stage, kept)
}

async fn say_all(stage: &Stage, world: &World, count: usize, target: &str) {
    for some in (0..count).collect::<Vec<_>>().chunks(50) {
        stage.append(some.iter().map(|k| entry(world, "acme", &format!("{k} {target}"))).collect()).await.unwrap();
    }
}

/// What each entry is about, or that it is damaged.
async fn listed(stage: &Stage) -> Vec<String> {
    let entries = stage.list("acme").await.into_iter().rev();
    entries.map(|entry| entry.operation.map_or_else(|| "damaged".to_owned(), |operation| operation.target)).collect()
}

/// What an auditor sees of group acme.
async fn seen(stage: &Stage, world: &World, kept: Option<&str>) -> (Vec<String>, String) {
    let report = match kept {
        Some(kept) => verify_with(stage, world, "acme", kept).await.to_string(),
        None => String::new(),
    };
    (listed(stage).await, report)
}

/// Rows are damaged of which nothing has a copy, and the gap is declared; more is recorded. Then the database is lost, again and again.
async fn comes_back_after(mut world: World, stage: Stage, kept: Option<&str>, damage: &[String], rounds: &[usize]) {
    let log = stage.prepare_with_log("acme", "", "").await.unwrap().1;
    stage.stop().await;
    world.by_hand(&damage.iter().map(String::as_str).chain([DOUBTED]).collect::<Vec<_>>()).await;
    let stage = started(&world).await;
    assert_eq!(declare(&stage, Of::All(true), "rows are gone").await.unwrap(), 1);
    assert_whole(&stage);
    let mut stage = stage;
    for (n, more) in rounds.iter().enumerate() {
        say_all(&stage, &world, *more, &format!("on {n}")).await;
        stage.audit.follow_roots().await.unwrap();
        assert_whole(&stage);
        let before = seen(&stage, &world, kept).await;
        stage.stop().await;
        world.lose_database().await;
        stage = started(&world).await;
        assert_whole(&stage);
        stage.prepare_with_log("acme", "", &log).await.unwrap();
        assert_eq!(seen(&stage, &world, kept).await, before, "{more} entries behind the gap");
    }
    stage.say(&world, "acme", "at last").await;
    stage.audit.follow_roots().await.unwrap();
    assert_eq!(listed(&stage).await.last().unwrap(), "at last");
    stage.stop().await;
    assert_whole(&started(&world).await);
}

fn gone(from: u64, to: u64) -> String {
    format!("DELETE FROM entries WHERE log = ({ACME}) AND sequence >= {from} AND sequence < {to}")
}

async fn a_database_is_lost_after_its_newest_rows_were_declared_lost(world: World) {
    let (stage, kept) = some_history(&world).await;
    comes_back_after(world, stage, Some(&kept), &[gone(690, 701)], ROUNDS).await;
}

async fn a_database_is_lost_after_rows_in_the_middle_were_declared_lost(world: World) {
    let (stage, kept) = some_history(&world).await;
    comes_back_after(world, stage, Some(&kept), &[gone(100, 110)], ROUNDS).await;
}

async fn a_database_is_lost_after_whole_tiles_were_declared_lost(world: World) {
    let (stage, kept) = some_history(&world).await;
    comes_back_after(world, stage, Some(&kept), &[gone(0, 600)], ROUNDS).await;
}

async fn a_database_is_lost_after_another_leaf_was_declared(world: World) {
    let (stage, kept) = some_history(&world).await;
    let other = format!(
        "UPDATE entries SET leaf = (SELECT leaf FROM entries WHERE log = ({ACME}) AND sequence = 4), sealed = NULL
         WHERE log = ({ACME}) AND sequence = 3"
    );
    comes_back_after(world, stage, Some(&kept), &[other, gone(500, 501)], ROUNDS).await;
}

async fn a_database_is_lost_after_a_hash_and_an_entry_were_declared_lost(world: World) {
    let stage = some_history(&world).await.0;
    let hash = format!("UPDATE nodes SET hash = (SELECT peaks FROM heads WHERE size = 1) WHERE log = ({ACME}) AND number = 0");
    // such a log cannot be exported
    comes_back_after(world, stage, None, &[hash, gone(7, 8)], ROUNDS).await;
}

async fn a_database_is_lost_after_rows_of_a_long_log_were_declared_lost(world: World) {
    let (stage, kept) = some_history(&world).await;
    say_all(&stage, &world, 200, &"x".repeat(LONG)).await;
    comes_back_after(world, stage, Some(&kept), &[gone(3, 4), gone(700, 710), gone(890, 892)], &[3]).await;
}

/// The database is one from before the damage.
async fn an_older_database_comes_back_over_declared_damage(mut world: World) {
    let stage = some_history(&world).await.0;
    stage.audit.follow_roots().await.unwrap();
    stage.stop().await;
    let older = world.copy_database().await;
    let stage = world.start().await;
    say_all(&stage, &world, 200, "newer").await;
    stage.stop().await;
    world.by_hand(&[&gone(720, 790), DOUBTED]).await;
    let stage = started(&world).await;
    assert_eq!(declare(&stage, Of::All(true), "rows are gone").await.unwrap(), 1);
    say_all(&stage, &world, 3, "on").await;
    stage.audit.follow_roots().await.unwrap();
    let before = listed(&stage).await;
    stage.stop().await;
    world.place = world.copy_of(&older).await;
    let stage = started(&world).await;
    assert_sound(&stage);
    assert_whole(&stage);
    assert_eq!(listed(&stage).await, before);
    stage.stop().await;
}
