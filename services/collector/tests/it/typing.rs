//! What is typed into a device's shell, and when.

use std::time::Duration;

use tsujiban_core::outcome::Reason;

use crate::script::{Script, config};
use crate::world::{World, changed, failed};

const ALL: &str = "terminal length 0\nno terminal paginate\nshow version\nshow running-config\n";

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_typed_at_once_after_the_prompt() {
    for last in [None, Some("Protocol")] {
        let mut world = World::new();
        let router = World::router("tokyo-1");
        world.add(&router).await;
        if let Some(last) = last {
            world.last_attempt(last);
        }
        assert!(changed(&world.run().await, "tokyo-1"));
        assert_eq!(*router.typings.lock().unwrap(), [(ALL.to_owned(), true)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_device_that_is_known_to_show_one_the_prompt_is_not_waited_for() {
    let mut world = World::new();
    let script = Script::Late(config("tokyo-1"), Duration::from_secs(1));
    let router = crate::router::Router { script, ..World::router("tokyo-1") };
    world.add(&router).await;
    world.host_key(1);
    world.last_attempt("Unchanged");
    assert!(changed(&world.run().await, "tokyo-1"));
    assert_eq!(*router.typings.lock().unwrap(), [(ALL.to_owned(), false)]);
    assert_eq!(world.backup.held().stored["tokyo-1"].1, format!("!\n{}", config("tokyo-1")).into_bytes());
}

/// Its last attempt ended well, but another device may have its name now.
#[tokio::test(flavor = "multi_thread")]
async fn at_a_first_contact_the_prompt_is_waited_for() {
    let mut world = World::new();
    let router = World::router("tokyo-1");
    world.add(&router).await;
    world.last_attempt("Changed");
    assert!(changed(&world.run().await, "tokyo-1"));
    assert_eq!(*router.typings.lock().unwrap(), [(ALL.to_owned(), true)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_typed_into_a_question() {
    let mut world = World::new();
    let router = crate::router::Router { script: Script::NoPrompt("Enter the code of your token: "), ..World::router("tokyo-1") };
    world.add(&router).await;
    assert_eq!(failed(&world.run().await, "tokyo-1").0, Reason::Protocol);
    assert!(router.typings.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_text_looks_like_prompts_each_command_waits_for_its_own() {
    for last in ["Protocol", "Changed"] {
        let mut world = World::new();
        let router = crate::router::Router { script: Script::Banner(config("tokyo-1")), ..World::router("tokyo-1") };
        world.add(&router).await;
        world.host_key(1);
        world.last_attempt(last);
        assert!(changed(&world.run().await, "tokyo-1"));
        assert_eq!(world.backup.held().stored["tokyo-1"].1, format!("!\n{}", config("tokyo-1")).into_bytes());
        let typings: Vec<String> = router.typings.lock().unwrap().iter().map(|(typed, _)| typed.clone()).collect();
        let expected: Vec<&str> = std::iter::once(ALL).chain(ALL.split_inclusive('\n')).collect();
        assert_eq!(typings, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_typed_too_early_and_lost_is_typed_again() {
    let mut world = World::new();
    world.add_script("tokyo-1", Script::Forgetful(config("tokyo-1"), Duration::from_secs(1))).await;
    world.host_key(1);
    world.last_attempt("Changed");
    assert!(changed(&world.run().await, "tokyo-1"));
    assert_eq!(world.backup.held().stored["tokyo-1"].1, format!("!\n{}", config("tokyo-1")).into_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_device_that_shows_no_prompt_any_more_is_told_from_others() {
    for (shows, reason, says) in
        [("", Reason::Timeout, "no prompt from the device"), ("Enter the code: ", Reason::Protocol, "is no prompt")]
    {
        let mut world = World::new();
        world.add_script("tokyo-1", Script::NoPrompt(shows)).await;
        world.host_key(1);
        world.last_attempt("Changed");
        let finished = world.run().await;
        let (found, message) = failed(&finished, "tokyo-1");
        assert!(found == reason && message.contains(says), "{message}");
    }
}
