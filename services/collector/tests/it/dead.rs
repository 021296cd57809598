//! Devices that cannot be reached, or must not be.

use tokio::net::TcpListener;
use tsujiban_core::outcome::Reason;

use crate::world::{World, changed, failed};

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_port_and_a_device_that_never_answers() {
    let mut world = World::new();
    world.add(&World::router("good")).await;
    world.declare("closed", &world.address().to_string());
    let silent = world.address();
    world.wires.routers.insert((silent, 22).into(), None);
    world.declare("silent", &silent.to_string());
    let finished = world.run().await;
    assert!(changed(&finished, "good"));
    let (reason, message) = failed(&finished, "closed");
    assert!(
        reason == Reason::Timeout && message.contains("172.20.0.2:22 cannot be reached") && message.contains("connection refused"),
        "{message}"
    );
    assert_eq!(failed(&finished, "silent"), (Reason::Timeout, "no answer from 172.20.0.3:22 within 3 s; check power and network"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_the_connection_and_says_nothing() {
    let mut world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = world.address();
    world.wires.routers.insert((address, 22).into(), Some(listener.local_addr().unwrap()));
    world.declare("mute", &address.to_string());
    let finished = world.run().await;
    let (reason, message) = failed(&finished, "mute");
    assert!(reason == Reason::Timeout && message.contains("did not finish the SSH handshake within 3 s"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_no_ssh_server() {
    let mut world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = world.address();
    world.wires.routers.insert((address, 22).into(), Some(listener.local_addr().unwrap()));
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        stream.try_write(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    world.declare("web", &address.to_string());
    let finished = world.run().await;
    let (reason, message) = failed(&finished, "web");
    assert!(reason == Reason::Protocol && message.contains("check that 172.20.0.1:22 is the device's SSH server"), "{message}");
}

/// C7, C13: nothing outside the group's networks is dialled, whatever a name resolves to.
#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_must_not_be_dialled() {
    let mut world = World::new();
    for (name, addresses) in [
        ("pods", &["10.244.0.7"][..]),
        ("metadata", &["169.254.169.254"]),
        ("loopback", &["127.0.0.1"]),
        ("hidden", &["::ffff:127.0.0.1"]),
        ("elsewhere", &["192.0.2.1"]),
        ("half", &["172.20.0.9", "10.244.0.7"]),
    ] {
        let host = format!("{name}.example.jp");
        world.wires.names.insert(host.clone(), addresses.iter().map(|ip| ip.parse().unwrap()).collect());
        world.declare(name, &host);
    }
    world.declare("port", "172.20.0.9");
    world.connection("port", 2222.into());
    world.declare("literal", "10.244.0.7");
    let finished = world.run().await;
    for device in ["pods", "metadata", "loopback", "hidden", "elsewhere", "half", "port", "literal"] {
        let (reason, message) = failed(&finished, device);
        assert!(reason == Reason::AddressNotAllowed && message.contains("must not be reached"), "{device}: {message}");
        assert!(world.backup.recorded(device).is_some());
    }
    assert!(world.wires.dialled.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_nobody_knows() {
    let mut world = World::new();
    world.declare("lost", "lost.example.jp");
    let finished = world.run().await;
    let (reason, message) = failed(&finished, "lost");
    assert!(reason == Reason::Timeout && message.contains("lost.example.jp cannot be resolved"), "{message}");
}
