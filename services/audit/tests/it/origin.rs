//! The domain in the names of logs is fixed by the first start, and outlives the database.

use tsujiban_core::error::chain;
use tsujiban_history::Verdict;

use crate::rebuild::{assert_sound, checkpoint, started, verify_with};
use crate::stage::World;

crate::on_both!(
    the_first_start_fixes_the_domain,
    a_database_from_before_there_was_a_choice_has_the_default,
    the_domain_outlives_the_database,
    a_damaged_domain_is_healed_from_the_lists,
);

const OURS: &str = "audit.example.co.jp";
const OTHER: &str = "history.example.co.jp";

/// Starts under a domain and answers why that is refused.
async fn refused_under(world: &mut World, domain: &str) -> String {
    world.origin_domain = domain.parse().unwrap();
    match world.try_start().await {
        Ok(_) => panic!("it starts under {domain}"),
        Err(error) => chain(&error),
    }
}

fn says(refused: &str, own: &str, fixed: &str) {
    let fixed = format!("it was fixed as {fixed} by the first start; set it back");
    assert!(refused.contains(&format!("the origin domain {own} ")) && refused.contains(&fixed), "{refused}");
}

async fn the_first_start_fixes_the_domain(mut world: World) {
    world.origin_domain = OURS.parse().unwrap();
    let stage = world.start().await;
    let verifier = stage.audit.verifier().to_string();
    assert!(verifier.starts_with("audit.example.co.jp/test+"), "{verifier}");
    stage.stop().await;
    for other in [OTHER, "audit.tsujiban.dev"] {
        says(&refused_under(&mut world, other).await, other, OURS);
    }
    world.origin_domain = OURS.parse().unwrap();
    assert_eq!(world.start().await.audit.verifier().to_string(), verifier);
}

async fn a_database_from_before_there_was_a_choice_has_the_default(mut world: World) {
    let stage = world.start().await;
    stage.say(&world, "acme", "a").await;
    stage.stop().await;
    world.by_hand(&["DELETE FROM meta WHERE name = 'origin domain'"]).await;
    says(&refused_under(&mut world, OURS).await, OURS, "audit.tsujiban.dev");
    world.origin_domain = "audit.tsujiban.dev".parse().unwrap();
    let stage = world.start().await;
    assert_eq!(stage.targets("acme").await, ["a"]);
    stage.stop().await;
    says(&refused_under(&mut world, OURS).await, OURS, "audit.tsujiban.dev");
}

async fn the_domain_outlives_the_database(mut world: World) {
    world.origin_domain = OURS.parse().unwrap();
    let stage = started(&world).await;
    let (incarnation, log) = stage.prepare_with_log("acme", "", "").await.unwrap();
    stage.say(&world, "acme", "a").await;
    stage.audit.follow_roots().await.unwrap();
    let checkpoint = checkpoint(&stage, "acme").await;
    assert!(checkpoint.starts_with("audit.example.co.jp/test/"), "{checkpoint}");
    stage.stop().await;
    world.lose_database().await;
    // a refusal fixes nothing: the last start is as good as if the others had not been
    for other in [OTHER, "audit.tsujiban.dev"] {
        says(&refused_under(&mut world, other).await, other, OURS);
    }
    world.origin_domain = OURS.parse().unwrap();
    let stage = started(&world).await;
    assert_sound(&stage);
    stage.prepare_with_log("acme", &incarnation, &log).await.unwrap();
    let report = verify_with(&stage, &world, "acme", &checkpoint).await;
    assert_eq!(report.verdict, Verdict::Intact, "{report}");
}

async fn a_damaged_domain_is_healed_from_the_lists(mut world: World) {
    world.origin_domain = OURS.parse().unwrap();
    let stage = started(&world).await;
    stage.say(&world, "acme", "a").await;
    stage.audit.follow_roots().await.unwrap();
    stage.stop().await;
    for damaged in ["?", "audit.example.co.jq"] {
        world.by_hand(&[&format!("UPDATE meta SET value = '{damaged}' WHERE name = 'origin domain'")]).await;
        says(&refused_under(&mut world, OTHER).await, OTHER, OURS);
        world.origin_domain = OURS.parse().unwrap();
        let stage = started(&world).await;
        assert_sound(&stage);
        stage.stop().await;
    }
    world.bucket.remove("roots/000000000001");
    says(&refused_under(&mut world, OTHER).await, OTHER, OURS);
}
