//! A database or a bucket that somebody changed behind the service's back: it stays read-only until all of it was checked, what is lost is
//! said in a signed gap, and what comes after verifies.

use jiff::SignedDuration;
use tsujiban_audit::engine::Standing;
use tsujiban_audit::owner::Owner;
use tsujiban_history::verify::Verdict;
use tsujiban_objects::Objects;
use tsujiban_proto::audit::v1::declare_gap_request::Scope as Of;
use tsujiban_proto::error::ServiceError;

use crate::rebuild::{assert_sound, checkpoint, started, verify_with};
use crate::refused::{assert_refused, assert_whole};
use crate::retention::verify;
use crate::roots::declare;
use crate::stage::{Stage, World, entry};

crate::on_both!(
    a_changed_database_stays_read_only_over_restarts,
    heads_that_are_not_those_of_their_rows_are_mended,
    rows_that_are_gone_come_back_from_the_archive,
    rows_that_are_gone_for_good_are_named_in_a_gap,
    a_database_that_is_lost_after_a_gap_comes_back_with_all_keys,
    the_newest_root_list_is_gone,
    all_root_lists_are_gone,
    something_over_the_newest_list_is_said_and_stops_nothing,
    lists_that_nobody_here_signed_are_skipped_by_a_signed_one,
    a_damaged_list_that_is_known_here_is_said_again,
    a_lost_database_without_an_archive_goes_on_behind_gaps,
    an_older_database_with_lost_lists_goes_on_behind_gaps,
    no_checkpoint_is_signed_beyond_the_newest_list,
    a_damaged_leaf_is_found_by_the_check_of_everything_and_named_in_a_gap,
    a_damaged_leaf_that_follows_from_its_body_is_healed,
);

const LAST: &str = "SELECT MAX(number) FROM logs WHERE group_id = 'acme'";

/// 300 entries of a group in two lists.
async fn some_history(world: &World) -> Stage {
    let stage = world.start().await;
    stage.say(world, "other", "theirs").await;
    for n in 0..2 {
        stage.append((0..150).map(|k| entry(world, "acme", &format!("{n} {k}"))).collect()).await.unwrap();
        stage.audit.follow_roots().await.unwrap();
        world.advance(SignedDuration::from_secs(60));
    }
    stage
}

async fn assert_read_only(stage: &Stage, world: &World, what: &str) {
    assert!(matches!(stage.audit.engine.standing(), Standing::Forked(_)), "{what}");
    let refused = stage.append(vec![entry(world, "other", "x")]).await.unwrap_err();
    assert_eq!(ServiceError::from(&refused).reason, "HISTORY_FORKED", "{what}");
}

/// Nothing is added to the log before it was healed, alone or, where it is doubted whether the database has lost its tail, like all others.
async fn assert_takes_nothing(stage: &Stage, world: &World, what: &str) {
    let refused = stage.append(vec![entry(world, "acme", "x")]).await.unwrap_err();
    assert!(["LOG_REFUSED", "HISTORY_FORKED"].contains(&ServiceError::from(&refused).reason.as_str()), "{what}: {refused}");
}

/// The trial: the service is stopped, the database changed, the service started. It said "read-only", and a moment later "whole again".
async fn a_changed_database_stays_read_only_over_restarts(mut world: World) {
    let stage = some_history(&world).await;
    let lists = world.lists().await.len();
    stage.stop().await;
    let sound = world.copy_database().await;
    // nothing that could be brought back
    world.bucket.remove_all("archive/").await;
    let forged = forged_leaf_nodes_and_head();
    for (what, statements) in [
        (
            "the log's row is gone",
            vec![format!("DELETE FROM heads WHERE log = ({LAST})"), "DELETE FROM logs WHERE group_id = 'acme'".into()],
        ),
        ("the log is shorter", shorter_log()),
        ("another history", forged),
    ] {
        world.place = world.copy_of(&sound).await;
        let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
        world.by_hand(&statements).await;
        for start in 0..2 {
            let stage = started(&world).await;
            for _ in 0..3 {
                world.advance(SignedDuration::from_mins(11));
                stage.audit.follow_roots().await.unwrap();
            }
            assert_read_only(&stage, &world, &format!("{what}, start {start}")).await;
            assert_eq!(world.lists().await.len(), lists, "{what}: nothing is signed meanwhile");
            stage.stop().await;
        }
    }
}

/// As the log was when it had 256 entries: it holds together.
fn shorter_log() -> Vec<String> {
    vec![
        format!("DELETE FROM entries WHERE log = ({LAST}) AND sequence >= 256"),
        format!("UPDATE heads SET size = 256, peaks = (SELECT hash FROM nodes WHERE log = ({LAST})) WHERE log = ({LAST})"),
    ]
}

/// Every leaf is another one, and so are the tiles and the head that follow from them.
fn forged_leaf_nodes_and_head() -> Vec<String> {
    use tsujiban_history::merkle::{Range, leaf_hash};
    let leaf = |sequence| {
        let opening = tsujiban_history::leaf::DayMac::new(&[3; 32]).opening(sequence);
        tsujiban_history::Leaf::entry(sequence, tsujiban_history::DayKeyId::from_bytes([9; 16]), opening.commit(b"forged")).encode()
    };
    let (mut edge, mut node, mut statements) = (Range::empty(0), None, Vec::new());
    for sequence in 0..300 {
        let leaf = leaf(sequence);
        edge.append_hash(leaf_hash(&leaf), |at, hash| node = (at.level == 8).then_some(hash).or(node)).unwrap();
        let bytes = hex::encode(&leaf);
        statements.push((sequence, bytes));
    }
    let bytes = |hex: &str| format!("X'{hex}'");
    let mut all: Vec<String> = statements
        .into_iter()
        .map(|(sequence, leaf)| format!("UPDATE entries SET leaf = {} WHERE log = ({LAST}) AND sequence = {sequence}", bytes(&leaf)))
        .collect();
    all.push(format!("UPDATE nodes SET hash = {} WHERE log = ({LAST})", bytes(&hex::encode(node.unwrap().as_bytes()))));
    let peaks: Vec<u8> = edge.hashes().flat_map(|hash| *hash.as_bytes()).collect();
    all.push(format!("UPDATE heads SET peaks = {} WHERE log = ({LAST})", bytes(&hex::encode(peaks))));
    all
}

async fn heads_that_are_not_those_of_their_rows_are_mended(mut world: World) {
    let stage = some_history(&world).await;
    let before = stage.targets("acme").await;
    stage.stop().await;
    let sound = world.copy_database().await;
    let no_head = format!("DELETE FROM heads WHERE log = ({LAST})");
    for (what, statements) in [
        ("one entry less", vec![format!("UPDATE heads SET size = size - 1 WHERE log = ({LAST})")]),
        ("no head", vec![no_head.clone()]),
        ("no head of any log", vec!["DELETE FROM heads".to_owned()]),
        ("another head", vec![format!("UPDATE heads SET peaks = (SELECT peaks FROM heads WHERE size = 1) WHERE log = ({LAST})")]),
        ("no head, and a hole", vec![no_head.clone(), format!("DELETE FROM entries WHERE log = ({LAST}) AND sequence IN (100, 101)")]),
        ("no head, and a wrong row", vec![no_head, format!("UPDATE entries SET leaf = id WHERE log = ({LAST}) AND sequence = 100")]),
    ] {
        world.place = world.copy_of(&sound).await;
        let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
        world.by_hand(&statements).await;
        let stage = world.start().await;
        stage.audit.compare_at_start().await.unwrap();
        assert_takes_nothing(&stage, &world, what).await;
        stage.audit.follow_roots().await.unwrap();
        assert_whole(&stage);
        assert_eq!(stage.targets("acme").await, before, "{what}");
        assert_eq!(stage.say(&world, "acme", "on").await, 300, "{what}");
        stage.stop().await;
    }
}

async fn rows_that_are_gone_come_back_from_the_archive(mut world: World) {
    let stage = some_history(&world).await;
    let newest = entry(&world, "acme", "newest");
    stage.append(vec![newest.clone()]).await.unwrap();
    stage.audit.follow_roots().await.unwrap();
    let mut before = stage.targets("acme").await;
    stage.stop().await;
    let sound = world.copy_database().await;
    for (from, to) in [(290, 301), (0, 301), (250, 301)] {
        world.place = world.copy_of(&sound).await;
        world.by_hand(&[&format!("DELETE FROM entries WHERE log = ({LAST}) AND sequence >= {from} AND sequence < {to}")]).await;
        let stage = world.start().await;
        stage.audit.compare_at_start().await.unwrap();
        assert_takes_nothing(&stage, &world, "rows are gone").await;
        stage.audit.follow_roots().await.unwrap();
        assert_whole(&stage);
        assert_eq!(stage.targets("acme").await, before);
        assert_eq!(stage.append(vec![newest.clone()]).await.unwrap()[0].sequence, 300, "its caller sends it again");
        stage.say(&world, "acme", "on").await;
        assert!(matches!(verify(&stage, &world, "acme").await.verdict, Verdict::Intact));
        // the next round's database is older than this
        before.push("on".to_owned());
        stage.stop().await;
    }
}

async fn rows_that_are_gone_for_good_are_named_in_a_gap(world: World) {
    let stage = some_history(&world).await;
    stage.stop().await;
    world.bucket.remove_all("archive/").await;
    world.by_hand(&[&format!("DELETE FROM entries WHERE log = ({LAST}) AND sequence >= 290")]).await;
    let stage = started(&world).await;
    assert_refused(&stage, &world, "rows are gone").await;
    assert_eq!(declare(&stage, Of::All(true), "ten rows are gone").await.unwrap(), 1);
    assert_whole(&stage);
    assert_eq!(stage.say(&world, "acme", "on").await, 302, "behind the gap and its reason");
    stage.audit.follow_roots().await.unwrap();
    assert_sound(&stage);
    let log = stage.audit.some_log_of(&Owner::parse("acme").unwrap()).await.unwrap();
    let leaf = stage.audit.entries(log.number, 300, 1).await.unwrap().pop().unwrap().leaf;
    let tsujiban_history::leaf::Content::Gap(gap) = tsujiban_history::Leaf::parse(&leaf).unwrap().content else { panic!("no gap") };
    assert_eq!(gap.unsigned.damaged, [tsujiban_history::leaf::Span { from: 256, to: 300 }]);
    assert_eq!(gap.unsigned.newest.size, 300);
    stage.stop().await;
    assert_sound(&started(&world).await);
}

/// Parts from before the gap hold the keys of the days, and are read before the log is there again.
async fn a_database_that_is_lost_after_a_gap_comes_back_with_all_keys(mut world: World) {
    let stage = some_history(&world).await;
    stage.stop().await;
    let older = world.copy_database().await;
    let stage = world.start().await;
    stage.say(&world, "acme", "lost").await;
    stage.audit.follow_roots().await.unwrap();
    stage.stop().await;
    world.place = world.copy_of(&older).await;
    world.bucket.remove(&world.bucket.names("archive/").await.pop().unwrap());
    let stage = started(&world).await;
    assert_eq!(declare(&stage, Of::All(true), "one entry is gone").await.unwrap(), 1);
    stage.say(&world, "acme", "on").await;
    stage.audit.follow_roots().await.unwrap();
    let (before, log) = (stage.targets("acme").await, stage.audit.some_log_of(&Owner::parse("acme").unwrap()).await.unwrap().id);
    stage.stop().await;

    world.lose_database().await;
    let stage = started(&world).await;
    assert_sound(&stage);
    stage.prepare_with_log("acme", "", &log.to_string()).await.unwrap();
    assert_eq!(stage.targets("acme").await, before);
    stage.stop().await;
}

async fn the_newest_root_list_is_gone(world: World) {
    lists_are_gone(&world, 1).await;
}

async fn all_root_lists_are_gone(world: World) {
    lists_are_gone(&world, 0).await;
}

/// All lists but the first few are gone: it is noticed at start and while the service runs, and named in the next list.
async fn lists_are_gone(world: &World, left: usize) {
    let stage = some_history(world).await;
    let kept = checkpoint(&stage, "acme").await;
    let gone = world.bucket.names("roots/").await.split_off(left);
    stage.stop().await;
    for name in &gone {
        world.bucket.remove(name);
    }
    let stage = started(world).await;
    stage.audit.follow_roots().await.unwrap();
    assert_read_only(&stage, world, "lists are gone").await;
    for name in &gone {
        world.bucket.bring_back(name);
    }
    stage.audit.follow_roots().await.unwrap();
    assert_sound(&stage);
    for name in &gone {
        world.bucket.remove(name);
    }
    stage.say(world, "acme", "on").await;
    stage.audit.follow_roots().await.unwrap();
    assert_read_only(&stage, world, "lists are gone while it runs").await;
    assert_eq!(declare(&stage, Of::All(true), "somebody emptied the bucket").await.unwrap(), 0, "no log lacks anything");
    assert_sound(&stage);
    assert!(stage.list("").await.iter().any(|entry| entry.operation.as_ref().unwrap().detail.contains_key("lists")));
    stage.say(world, "acme", "and on").await;
    let report = verify_with(&stage, world, "acme", &kept).await;
    assert!(matches!(report.verdict, Verdict::Intact), "{report}");
    stage.stop().await;
    assert_sound(&started(world).await);
}

async fn something_over_the_newest_list_is_said_and_stops_nothing(world: World) {
    let stage = some_history(&world).await;
    let newest = world.bucket.names("roots/").await.pop().unwrap();
    world.bucket.mark_deleted(&newest);
    stage.audit.follow_roots().await.unwrap();
    assert_sound(&stage);
    world.memory.put(&newest, "forged".into(), None).await.unwrap();
    stage.say(&world, "acme", "on").await;
    stage.audit.follow_roots().await.unwrap();
    assert_sound(&stage);
    stage.stop().await;
    assert_sound(&started(&world).await);
}

async fn lists_that_nobody_here_signed_are_skipped_by_a_signed_one(world: World) {
    let stage = some_history(&world).await;
    let kept = checkpoint(&stage, "acme").await;
    let newest = world.bucket.names("roots/").await.len() as u64;
    let name = tsujiban_history::RootList::object_name;
    for number in [newest + 1, newest + 3, 5000] {
        world.memory.put(&name(number), "forged".into(), None).await.unwrap();
    }
    world.bucket.flip_a_bit(&name(newest)).await;
    stage.stop().await;
    let stage = started(&world).await;
    assert_read_only(&stage, &world, "a foreign list").await;
    assert_eq!(stage.targets("acme").await.len(), 300, "it is read");
    assert_eq!(declare(&stage, Of::All(true), "somebody writes into our bucket").await.unwrap(), 0);
    for n in 0..3 {
        stage.say(&world, "acme", &format!("on {n}")).await;
        stage.audit.follow_roots().await.unwrap();
        assert_sound(&stage);
    }
    let numbers: Vec<String> = world.bucket.names("roots/").await;
    for number in [newest + 2, newest + 4, newest + 5] {
        assert!(numbers.contains(&name(number)), "{numbers:?}");
    }
    let report = verify_with(&stage, &world, "acme", &kept).await;
    assert!(matches!(report.verdict, Verdict::Intact), "{report}");
    stage.stop().await;
    assert_sound(&started(&world).await);
}

async fn a_damaged_list_that_is_known_here_is_said_again(mut world: World) {
    let stage = some_history(&world).await;
    let (incarnation, log) = stage.prepare_with_log("acme", "", "").await.unwrap();
    let kept = checkpoint(&stage, "acme").await;
    for n in 0..4 {
        stage.say(&world, "acme", &n.to_string()).await;
        stage.audit.follow_roots().await.unwrap();
    }
    let names = world.bucket.names("roots/").await;
    for name in [&names[names.len() - 3], names.last().unwrap()] {
        world.bucket.flip_a_bit(name).await;
    }
    stage.say(&world, "other", "on").await;
    stage.stop().await;
    let stage = started(&world).await;
    assert_sound(&stage);
    stage.audit.follow_roots().await.unwrap();
    assert_sound(&stage);
    let full = world.bucket.names("roots/").await;
    assert_eq!(full.len(), names.len() + 1);
    for round in 0..3 {
        world.bucket.flip_a_bit(world.bucket.names("roots/").await.last().unwrap()).await;
        stage.say(&world, "acme", &format!("and on {round}")).await;
        for _ in 0..2 {
            stage.audit.follow_roots().await.unwrap();
            assert_sound(&stage);
        }
    }
    stage.stop().await;
    world.lose_database().await;
    let stage = started(&world).await;
    stage.audit.follow_roots().await.unwrap();
    assert_sound(&stage);
    stage.prepare_with_log("acme", &incarnation, &log).await.unwrap();
    let report = verify_with(&stage, &world, "acme", &kept).await;
    assert!(matches!(report.verdict, Verdict::Intact), "{report}");
    assert!(report.gaps.is_empty(), "{report}");
}

async fn a_lost_database_without_an_archive_goes_on_behind_gaps(mut world: World) {
    let stage = some_history(&world).await;
    let (incarnation, log) = stage.prepare_with_log("acme", "", "").await.unwrap();
    let kept = checkpoint(&stage, "acme").await;
    stage.stop().await;
    world.lose_database().await;
    world.bucket.remove_all("archive/").await;
    let stage = started(&world).await;
    assert_read_only(&stage, &world, "everything is gone").await;
    assert_eq!(declare(&stage, Of::All(true), "the volume is gone").await.unwrap(), 2);
    assert_sound(&stage);
    stage.prepare_with_log("acme", &incarnation, &log).await.unwrap();
    assert_eq!(stage.say(&world, "acme", "on").await, 1, "the log goes on under its id behind its gap");
    let report = verify_with(&stage, &world, "acme", &kept).await;
    assert!(matches!(report.verdict, Verdict::Intact), "{report}");
    assert_eq!((report.gaps.len(), report.gaps[0].newest.size), (1, 300));
    stage.stop().await;
    assert_sound(&started(&world).await);
}

/// Some lists are gone, one is foreign, the newest parts are gone, and the database is older than all of it.
async fn an_older_database_with_lost_lists_goes_on_behind_gaps(mut world: World) {
    let stage = some_history(&world).await;
    stage.stop().await;
    let older = world.copy_database().await;
    let parts = world.bucket.names("archive/").await;
    let stage = world.start().await;
    for n in 0..4 {
        stage.say(&world, "acme", &format!("lost {n}")).await;
        stage.audit.follow_roots().await.unwrap();
    }
    let kept = checkpoint(&stage, "acme").await;
    stage.stop().await;
    for part in world.bucket.names("archive/").await.into_iter().filter(|part| !parts.contains(part)) {
        world.bucket.flip_a_bit(&part).await;
    }
    let lists = world.bucket.names("roots/").await;
    world.bucket.remove(&lists[lists.len() - 3]);
    world.bucket.flip_a_bit(&lists[lists.len() - 2]).await;
    world.memory.put("roots/000000000100", "forged".into(), None).await.unwrap();
    world.place = older;
    let stage = started(&world).await;
    assert_read_only(&stage, &world, "a mixture").await;
    assert_eq!(declare(&stage, Of::All(true), "a bad day").await.unwrap(), 1);
    assert_sound(&stage);
    stage.say(&world, "acme", "on").await;
    let report = verify_with(&stage, &world, "acme", &kept).await;
    assert!(matches!(report.verdict, Verdict::Intact), "{report}");
    let log = stage.audit.some_log_of(&Owner::parse("acme").unwrap()).await.unwrap();
    let leaf = stage.audit.entries(log.number, 300, 1).await.unwrap().pop().unwrap().leaf;
    let tsujiban_history::leaf::Content::Gap(gap) = tsujiban_history::Leaf::parse(&leaf).unwrap().content else { panic!("no gap") };
    assert_eq!((gap.unsigned.lists.len(), gap.unsigned.newest.size, gap.unsigned.agreed), (3, 304, 300), "{gap:?}");
    stage.stop().await;
    // the archive has the log as it is now
    world.lose_database().await;
    let stage = started(&world).await;
    assert_sound(&stage);
}

async fn no_checkpoint_is_signed_beyond_the_newest_list(world: World) {
    let stage = world.start().await;
    stage.say(&world, "acme", "a").await;
    let size = |text: String| text.lines().nth(1).unwrap().parse::<u64>().unwrap();
    assert_eq!(size(checkpoint(&stage, "acme").await), 1, "a list is put first");
    assert_eq!(world.lists().await.len(), 1);
    assert_eq!(size(checkpoint(&stage, "acme").await), 1);
    assert_eq!(world.lists().await.len(), 1, "one that says all is enough");
    stage.say(&world, "acme", "b").await;
    world.memory.set_outage(Some("nothing answers"));
    assert_eq!(size(checkpoint(&stage, "acme").await), 1, "as far as the newest list goes");
    let log = stage.audit.some_log_of(&Owner::parse("acme").unwrap()).await.unwrap();
    world.memory.set_outage(None);
    let path = format!("/{}/checkpoint", log.id);
    let shown = tsujiban_audit::tiles::answer(&stage.audit, &http::Method::GET, &path).await;
    let body = http_body_util::BodyExt::collect(shown.into_body()).await.unwrap().to_bytes();
    assert_eq!(size(String::from_utf8(body.to_vec()).unwrap()), 1, "tiles put no lists");
    assert_eq!(size(checkpoint(&stage, "acme").await), 2);
}

/// What a quick look does not find: a leaf in the middle that is another one, and whose body is gone, too.
async fn a_damaged_leaf_is_found_by_the_check_of_everything_and_named_in_a_gap(world: World) {
    let stage = some_history(&world).await;
    stage.stop().await;
    world.bucket.remove_all("archive/").await;
    let other = format!(
        "UPDATE entries SET leaf = (SELECT leaf FROM entries WHERE log = ({LAST}) AND sequence = 4), sealed = NULL
         WHERE log = ({LAST}) AND sequence = 3"
    );
    world.by_hand(&["INSERT INTO meta (name, value) VALUES ('read-only because', 'something was found before')", &other]).await;
    let stage = world.start().await;
    stage.audit.compare_at_start().await.unwrap();
    assert_read_only(&stage, &world, "what was found before was not checked").await;
    stage.audit.follow_roots().await.unwrap();
    assert_refused(&stage, &world, "all was checked").await;
    let why = stage.audit.engine.refused().all().values().next().unwrap().clone();
    assert!(why.contains("is damaged from entry 0 to 255"), "{why}");
    assert_eq!(declare(&stage, Of::All(true), "a bit has flipped").await.unwrap(), 1);
    assert_whole(&stage);
    stage.say(&world, "acme", "on").await;
    stage.audit.follow_roots().await.unwrap();
    stage.stop().await;
    assert_whole(&started(&world).await);
}

/// The same with a body that is intact, or a copy in the bucket: nobody has to do anything.
async fn a_damaged_leaf_that_follows_from_its_body_is_healed(mut world: World) {
    let stage = some_history(&world).await;
    stage.stop().await;
    let sound = world.copy_database().await;
    let leaf = format!("UPDATE entries SET leaf = (SELECT leaf FROM entries WHERE log = ({LAST}) AND sequence = 4) WHERE log = ({LAST})");
    for (what, change) in [("the body", "AND sequence = 3"), ("the archive", "AND sequence = 3")] {
        world.place = world.copy_of(&sound).await;
        let lost = format!("UPDATE entries SET sealed = NULL WHERE log = ({LAST}) AND sequence = 3");
        let mut statements = vec!["INSERT INTO meta (name, value) VALUES ('read-only because', 'something was found before')".to_owned()];
        statements.push(format!("{leaf} {change}"));
        if what == "the archive" {
            statements.push(lost);
        }
        world.by_hand(&statements.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let stage = started(&world).await;
        assert_whole(&stage);
        assert_eq!(stage.targets("acme").await.len(), 300, "{what}");
        assert_eq!(verify(&stage, &world, "acme").await.verdict, Verdict::Intact, "{what}");
        stage.stop().await;
    }
}
