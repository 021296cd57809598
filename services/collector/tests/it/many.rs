//! Many devices, some of them dead.

use std::time::Duration;

use tokio::time::Instant;
use tsujiban_core::outcome::Reason;

use crate::world::{World, changed, failed};

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_devices_of_which_every_tenth_is_dead() {
    let mut world = World::new();
    world.limits.max_concurrent = 32;
    world.limits.idle = Duration::from_secs(8);
    world.limits.device = Duration::from_mins(1);
    for number in 0..200 {
        if number % 10 == 0 {
            let address = world.address();
            world.wires.routers.insert((address, 22).into(), None);
            world.declare(&format!("dead-{number}"), &address.to_string());
        } else {
            world.add(&World::router(&format!("good-{number}"))).await;
        }
    }
    let begin = Instant::now();
    let finished = world.run().await;
    let took = begin.elapsed();
    for (name, device) in &finished {
        if name.starts_with("dead") {
            assert_eq!(failed(&finished, name).0, Reason::Timeout);
            assert!(device.took < Duration::from_secs(12), "{device:?}");
        } else {
            assert!(changed(&finished, name), "{device:?}");
        }
    }
    let held = world.backup.held();
    assert_eq!((finished.len(), held.stored.len(), held.attempts.len()), (200, 180, 20));
    assert!(took < Duration::from_mins(2), "20 dead devices of 8 s each must not be waited for one after the other: {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_is_too_short_is_said() {
    let mut world = World::new();
    world.limits.max_concurrent = 1;
    world.limits.window = Duration::from_secs(4);
    for number in 0..3 {
        let address = world.address();
        world.wires.routers.insert((address, 22).into(), None);
        world.declare(&format!("dead-{number}"), &address.to_string());
    }
    let begin = Instant::now();
    let finished = world.run().await;
    assert!(begin.elapsed() < Duration::from_secs(5));
    let mut messages: Vec<&str> = finished.keys().map(|name| failed(&finished, name).1).collect();
    messages.sort_unstable();
    assert!(messages[0].starts_with("no answer from"), "{messages:?}");
    assert!(messages[1].starts_with("the window ended before the device's turn"), "{messages:?}");
    assert!(messages[2].starts_with("the window ended while the device was talked to"), "{messages:?}");
    assert_eq!(world.backup.held().attempts.len(), 3);
}
