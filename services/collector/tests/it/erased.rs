//! A Device that is erased after it was listed.

use std::collections::BTreeMap;

use tsujiban_collector::hostkey::openssh;
use tsujiban_collector::outcome::{Finished, Outcome};

use crate::world::{World, changed, private};

/// C24: of a device that was erased after it was listed nothing is stored, wherever its turn is by then. That is neither a failure
/// nor an attempt, and the other devices are backed up.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_was_erased_meanwhile_is_no_failure() {
    let mut world = World::new();
    for name in ["at-pinning", "at-storing", "living"] {
        world.add(&World::router(name)).await;
    }
    world.declare("at-recording", "172.20.9.9");
    for name in ["at-pinning", "at-storing", "at-recording"] {
        world.backup.held().erased.insert(format!("uid-of-{name}"));
    }
    world.backup.held().pinned.insert("at-storing".to_owned(), openssh(private(1).public_key()));
    let finished = world.run().await;
    for name in ["at-pinning", "at-storing", "at-recording"] {
        assert!(is_erased(&finished, name), "{:?}", finished[name]);
    }
    assert!(changed(&finished, "living"));
    let held = world.backup.held();
    assert!(held.attempts.is_empty() && held.stored.keys().eq(["living"]));
    assert_eq!(held.refused, 3, "a device that is known to be erased is not asked for again");
}

fn is_erased(finished: &BTreeMap<String, Finished>, device: &str) -> bool {
    finished[device].outcome == Outcome::Erased && finished[device].recorded
}
