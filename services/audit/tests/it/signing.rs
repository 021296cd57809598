//! The signing key outlives the database, and no other one takes its place.

use jiff::SignedDuration;
use tsujiban_core::error::chain;
use tsujiban_objects::Objects;

use crate::stage::World;

crate::on_both!(
    the_key_comes_back_from_the_bucket,
    lists_without_a_key_that_opens_are_a_refusal,
    the_key_is_put_once_more_before_its_lock_ends,
    a_key_that_the_epoch_keys_do_not_open_comes_from_the_bucket,
);

async fn the_key_comes_back_from_the_bucket(mut world: World) {
    let stage = world.start().await;
    let verifier = stage.audit.verifier().to_string();
    let lock = world.memory.head("signing-key/000000000001", None).await.unwrap().lock.unwrap();
    assert!(lock.compliance && lock.until.duration_since(world.now()).as_hours() >= 400 * 24);
    stage.stop().await;
    world.lose_database().await;
    let stage = world.start().await;
    assert_eq!(stage.audit.verifier().to_string(), verifier, "before there is a list, too");
    assert_eq!(world.bucket.names("signing-key/").await.len(), 1);
}

async fn lists_without_a_key_that_opens_are_a_refusal(mut world: World) {
    let stage = world.start().await;
    stage.say(&world, "acme", "a").await;
    stage.audit.follow_roots().await.unwrap();
    stage.stop().await;
    world.lose_database().await;
    world.bucket.remove("signing-key/000000000001");
    let Err(refused) = world.try_start().await else { panic!("a new key was made") };
    let text = chain(&refused);
    assert!(text.contains("volume") && text.contains("signing-key/") && text.contains(world.master.id().as_str()), "{text}");
    world.bucket.bring_back("signing-key/000000000001");
    world.bucket.flip_a_bit("signing-key/000000000001").await;
    assert!(world.try_start().await.is_err(), "a damaged copy is none");
    world.bucket.bring_back("signing-key/000000000001");
    world.start().await;
}

async fn the_key_is_put_once_more_before_its_lock_ends(world: World) {
    let stage = world.start().await;
    let verifier = stage.audit.verifier().to_string();
    stage.stop().await;
    for (days, copies) in [(300, 1), (45, 2), (1, 2), (339, 3)] {
        world.advance(SignedDuration::from_hours(24 * days));
        let stage = world.start().await;
        assert_eq!(world.bucket.names("signing-key/").await.len(), copies, "after {days} more days");
        assert_eq!(stage.audit.verifier().to_string(), verifier);
        stage.stop().await;
    }
}

async fn a_key_that_the_epoch_keys_do_not_open_comes_from_the_bucket(world: World) {
    let stage = world.start().await;
    let verifier = stage.audit.verifier().to_string();
    stage.stop().await;
    world.epochs.lock().unwrap().clear();
    world.add_epoch();
    let stage = world.start().await;
    assert_eq!(stage.audit.verifier().to_string(), verifier);
}

/// Two replicas start at the same time on empty tables: there is one key.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_first_starts_one_makes_the_key() {
    let world = World::postgres().await;
    let (a, b) = tokio::join!(world.start(), world.start());
    assert_eq!(a.audit.verifier(), b.audit.verifier());
    drop((a, b));
    assert_eq!(world.start().await.audit.verifier().to_string(), world.start().await.audit.verifier().to_string());
}
