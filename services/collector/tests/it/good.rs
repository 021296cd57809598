//! What works.

use russh::{Preferred, cipher, kex, mac};
use serde_json::json;
use tsujiban_collector::hostkey::openssh;
use tsujiban_collector::outcome::Outcome;
use tsujiban_core::outcome::Reason;

use crate::router::{Login, Router};
use crate::script::{Script, config};
use crate::world::{PASSWORD, World, changed, failed, private};

#[tokio::test(flavor = "multi_thread")]
async fn a_config_is_stored_as_it_is_and_seen_again() {
    let mut world = World::new();
    world.add(&World::router("tokyo-1")).await;
    assert!(changed(&world.run().await, "tokyo-1"));
    let (header, stored) = world.backup.held().stored["tokyo-1"].clone();
    assert_eq!(String::from_utf8(stored).unwrap(), format!("!\n{}", config("tokyo-1")));
    assert_eq!((header.driver.as_str(), header.model.as_str(), header.firmware.as_str()), ("Frr", "FRRouting", "8.4.4"));
    assert_eq!(header.host_key, openssh(private(1).public_key()));
    let again = world.run().await;
    assert!(matches!(again["tokyo-1"].outcome, Outcome::Unchanged { .. }) && again["tokyo-1"].recorded);
    assert!(world.backup.held().attempts.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_goes_to_a_given_or_pinned_key() {
    let mut world = World::new();
    let router = |name| Router { login: Login::Password(PASSWORD.to_owned()), ..World::router(name) };
    world.add(&router("given")).await;
    world.password(PASSWORD);
    world.host_key(1);
    world.add(&router("pinned")).await;
    world.password(PASSWORD);
    world.backup.held().pinned.insert("pinned".to_owned(), openssh(private(1).public_key()));
    let finished = world.run().await;
    assert!(changed(&finished, "given") && changed(&finished, "pinned"));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_configs_of_five_megabytes_than_fit_at_once() {
    let mut world = World::new();
    let large = |name| config(name).replace(" description uplink\n", &" description a long line in a large config\n".repeat(120_000));
    let devices = ["tokyo-1", "tokyo-2", "tokyo-3", "tokyo-4"];
    for name in devices {
        world.add_script(name, Script::Whole(large(name))).await;
    }
    let finished = world.run().await;
    for name in devices {
        let bytes = u64::try_from(large(name).len()).unwrap() + 2;
        assert!(bytes > 5_000_000);
        assert_eq!(finished[name].outcome, Outcome::Changed { bytes });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_like_a_prompt_or_a_pager_inside_a_config() {
    let pause = std::time::Duration::from_millis(60);
    let mut world = World::new();
    world.add_script("tokyo-1", Script::Whole(config("tokyo-1").replace("uplink", "tokyo-1# "))).await;
    world.add_script("tokyo-2", Script::Pause("tokyo-2# ".to_owned(), pause)).await;
    world.add_script("tokyo-3", Script::Pause(" description see --More-- ".to_owned(), pause)).await;
    let finished = world.run().await;
    for device in ["tokyo-1", "tokyo-2", "tokyo-3"] {
        assert!(changed(&finished, device), "{finished:?}");
    }
    assert!(world.backup.held().stored["tokyo-2"].1.windows(20).any(|part| part == b"tokyo-2#  descriptio"));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_active_devices_are_asked() {
    let mut world = World::new();
    for (name, lifecycle) in [("active", "Active"), ("away", "Maintenance"), ("old", "Retired")] {
        world.add(&World::router(name)).await;
        world.apiserver.devices.last_mut().unwrap()["spec"]["lifecycle"] = json!(lifecycle);
    }
    assert_eq!(world.run().await.keys().collect::<Vec<_>>(), ["active"]);
    assert_eq!(world.wires.dialled.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_device_needs_legacy() {
    let mut world = World::new();
    let old = Preferred {
        kex: vec![kex::DH_G14_SHA1].into(),
        cipher: vec![cipher::AES_128_CBC].into(),
        mac: vec![mac::HMAC_SHA1].into(),
        ..Preferred::DEFAULT
    };
    world.add(&Router { preferred: old.clone(), ..World::router("modern") }).await;
    world.add(&Router { preferred: old, ..World::router("legacy") }).await;
    world.connection("algorithms", json!("Legacy"));
    let finished = world.run().await;
    assert!(changed(&finished, "legacy"), "{finished:?}");
    let (reason, message) = failed(&finished, "modern");
    assert!(
        reason == Reason::Protocol && message.contains("diffie-hellman-group14-sha1") && message.contains("algorithms: Legacy"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_read_again_for_each_call_and_a_starting_service_is_waited_for() {
    let mut world = World::new();
    world.add(&World::router("tokyo-1")).await;
    let context = world.context().await;
    let target = context.cluster.targets().await.unwrap().remove(0);
    assert_eq!(context.backup.pinned(&target).await.unwrap(), "");
    world.rotate("another-token");
    world.backup.held().refuse = 2;
    assert_eq!(context.backup.pinned(&target).await.unwrap(), "");
    world.backup.held().token = "unknown".to_owned();
    assert!(context.backup.pinned(&target).await.is_err());
}

/// After a rollback a Device of a newer version is left out, and all others are backed up.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_of_a_newer_version_is_left_out_alone() {
    let mut world = World::new();
    for name in ["tokyo-1", "tokyo-2"] {
        world.add(&World::router(name)).await;
    }
    world.apiserver.devices.first_mut().unwrap()["spec"]["driver"] = json!("OfNextYear");
    assert_eq!(world.run().await.keys().collect::<Vec<_>>(), ["tokyo-2"]);
}
