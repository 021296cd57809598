//! Many devices, some of them dead.

use std::time::Duration;

use tokio::time::Instant;
use tsujiban_core::outcome::Reason;

use crate::router::{Gauge, Router};
use crate::script::{Script, config};
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
            assert!(device.took < Duration::from_secs(20), "about 8 s, more when the machine is busy: {device:?}");
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
    for number in 0..5 {
        let address = world.address();
        world.wires.routers.insert((address, 22).into(), None);
        world.declare(&format!("dead-{number}"), &address.to_string());
    }
    let begin = Instant::now();
    let finished = world.run().await;
    assert!(begin.elapsed() < Duration::from_secs(5));
    let mut messages: Vec<&str> = finished.keys().map(|name| failed(&finished, name).1).collect();
    messages.sort_unstable();
    // two are dialled at a time, each for 3 s of the 3.6 s
    let starts = ["no answer from", "no answer from", "the window ended before the device's turn"];
    let starts = starts.into_iter().chain(["the window ended while the device was talked to"; 2]);
    assert!(messages.iter().zip(starts).all(|(message, start)| message.starts_with(start)), "{messages:?}");
    assert_eq!(world.backup.held().attempts.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_devices_are_connected_to_while_others_are_talked_to() {
    let mut world = World::new();
    world.limits.max_concurrent = 2;
    let (connections, sessions) = (Gauge::default(), Gauge::default());
    for number in 0..10 {
        let name = format!("tokyo-{number}");
        let script = Script::Late(config(&name), Duration::from_millis(300));
        world.add(&Router { script, connections: connections.clone(), sessions: sessions.clone(), ..World::router(&name) }).await;
    }
    let finished = world.run().await;
    assert!(finished.keys().all(|name| changed(&finished, name)));
    assert_eq!(sessions.most(), 2, "no more sessions than allowed");
    assert!((3..=5).contains(&connections.most()), "{connections:?}"); // one more may be on its way out
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_waited_long_is_made_anew_and_waiting_does_not_count() {
    let mut world = World::new();
    world.limits.max_concurrent = 1;
    for name in ["tokyo-1", "tokyo-2"] {
        world.add_script(name, Script::Late(config(name), Duration::from_secs(2))).await;
    }
    let begin = Instant::now();
    let finished = world.run().await;
    assert!(begin.elapsed() > Duration::from_secs(4) && finished.keys().all(|name| changed(&finished, name)));
    let took: Duration = finished.values().map(|device| device.took).sum();
    assert!(took < begin.elapsed() + Duration::from_secs(1), "{finished:?}");
    assert_eq!(world.wires.dialled.lock().unwrap().len(), 3);
}

/// The time of the others is not spent on waiting for one that does not answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_does_not_answer_takes_no_turn() {
    let mut world = World::new();
    world.limits.max_concurrent = 1;
    world.limits.idle = Duration::from_secs(20);
    world.limits.window = Duration::from_secs(10);
    let silent = world.address();
    world.wires.routers.insert((silent, 22).into(), None);
    world.declare("silent", &silent.to_string());
    for name in ["tokyo-1", "tokyo-2", "tokyo-3"] {
        world.add(&World::router(name)).await;
    }
    let finished = world.run().await;
    assert!(["tokyo-1", "tokyo-2", "tokyo-3"].iter().all(|name| changed(&finished, name)), "{finished:?}");
    assert_eq!(failed(&finished, "silent").0, Reason::Timeout);
}
