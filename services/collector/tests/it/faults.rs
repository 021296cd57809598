//! Devices that answer wrongly: each gives its reason, nothing of it is stored, and the good one beside is not affected.

use std::time::Duration;

use tsujiban_collector::outcome::{Finished, Outcome};
use tsujiban_core::outcome::Reason;

use crate::router::{Login, Router};
use crate::script::{Script, config};
use crate::world::{PASSWORD, World, changed, failed};

/// Runs the script beside a good router and answers how it ended.
async fn beside_a_good_one(script: Script) -> (Reason, String) {
    let mut world = World::new();
    world.add(&World::router("good")).await;
    world.add_script("bad", script).await;
    let finished = world.run().await;
    assert!(changed(&finished, "good") && finished["good"].took < Duration::from_secs(3), "{finished:?}");
    let held = world.backup.held();
    assert!(!held.stored.contains_key("bad"));
    let attempt = &held.attempts[0];
    let (reason, message) = failed(&finished, "bad");
    assert_eq!((attempt.reason().known(), attempt.message.as_str()), (Some(reason), message));
    assert!(attempt.host_key.starts_with("ssh-ed25519 "), "the key that the device showed is recorded");
    assert!(!message.contains("Zebra-0815") && !message.contains(PASSWORD));
    (reason, message.to_owned())
}

macro_rules! script {
    ($($name:ident: $script:expr => $reason:ident, $says:literal;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let (reason, message) = beside_a_good_one($script).await;
            assert!(reason == Reason::$reason && message.contains($says), "{reason}: {message}");
        }
    )*};
}

script! {
    a_pager: Script::Pager(" --More-- ") => Protocol, "page by page";
    a_pager_of_a_dumb_terminal: Script::Pager("WARNING: terminal is not fully functional\r\n-  (press RETURN)") => Protocol, "page by page";
    lines_without_end: Script::Endless => Protocol, "no end";
    a_cut_stream: Script::Cut => Truncated, "cut in the middle";
    a_stalled_stream: Script::Stall => Timeout, "said nothing for 3 s";
    binary_junk: Script::Junk => Protocol, "control characters";
    a_config_without_its_end: Script::Whole(config("bad").replace("\nend\n", "\n")) => Truncated, "no end";
    a_config_without_its_beginning: Script::Whole(config("bad").replace("frr version", "version")) => Truncated, "no beginning";
    a_renamed_device: Script::Renamed => Protocol, "prompt changed";
    an_unknown_command: Script::Unknown => Protocol, "refuses \"show running-config\"";
    no_prompt_at_all: Script::NoPrompt("") => Timeout, "no prompt from the device within 3 s";
    something_else_than_a_prompt: Script::NoPrompt("Enter the code of your token: ") => Protocol, "is no prompt";
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password() {
    let mut world = World::new();
    world.add(&World::router("good")).await;
    world.add(&Router { login: Login::Password("right".to_owned()), ..World::router("bad") }).await;
    world.password(PASSWORD);
    world.host_key(1);
    let finished = world.run().await;
    assert!(changed(&finished, "good"));
    let (reason, message) = failed(&finished, "bad");
    assert!(reason == Reason::Auth && message.contains("refused the password of tsujiban") && !message.contains(PASSWORD), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_installed() {
    let mut world = World::new();
    world.add(&Router { login: Login::Password("right".to_owned()), ..World::router("bad") }).await;
    let finished = world.run().await;
    let (reason, message) = failed(&finished, "bad");
    assert!(reason == Reason::Auth && message.contains("refused the key of tsujiban"), "{message}");
    assert!(world.backup.held().pinned.is_empty(), "a device that lets nobody in is not pinned");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_credentials() {
    let mut world = World::new();
    world.add(&World::router("bad")).await;
    world.apiserver.secrets.clear();
    let finished = world.run().await;
    let (reason, message) = failed(&finished, "bad");
    assert!(reason == Reason::Auth && message.contains("secret device-bad-ssh does not exist"), "{message}");
    assert!(world.wires.dialled.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_is_not_reported_as_stored() {
    let mut world = World::new();
    world.add(&World::router("tokyo-1")).await;
    world.backup.held().broken = Some(tsujiban_proto::error::Kind::Unavailable);
    let finished = world.run().await;
    let (reason, message) = failed(&finished, "tokyo-1");
    assert!(reason == Reason::Store && message.contains("the storage is away"), "{message}");
    let held = world.backup.held();
    assert_eq!((held.keys.len(), held.distinct_keys()), (4, 2), "three tries of one call with one key, and the record");
    assert!(held.stored.is_empty());
    assert!(matches!(finished["tokyo-1"], Finished { recorded: true, outcome: Outcome::Failed(_), .. }));
}
