//! The host key is judged before anything is offered, and never changed silently.

use std::sync::atomic::Ordering;

use tsujiban_collector::hostkey::openssh;
use tsujiban_core::outcome::Reason;
use tsujiban_proto::backup::v1 as wire;

use crate::router::{Login, Router};
use crate::world::{PASSWORD, World, changed, failed, private};

fn key(seed: u8) -> String {
    openssh(private(seed).public_key())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_the_first_contact_is_pinned_and_then_expected() {
    let mut world = World::new();
    world.add(&World::router("tokyo-1")).await;
    assert!(changed(&world.run().await, "tokyo-1"));
    assert_eq!(world.backup.held().pinned["tokyo-1"], key(1));

    let impostor = Router { host_keys: vec![private(2)], ..World::router("tokyo-1") };
    let (address, listens) = (*world.wires.routers.keys().next().unwrap(), impostor.listen().await);
    world.wires.routers.insert(address, Some(listens));
    let finished = world.run().await;
    let (reason, message) = failed(&finished, "tokyo-1");
    assert!(reason == Reason::HostKeyMismatch && message.contains("have staff replace the pinned one"), "{message}");
    assert_eq!(impostor.logins.load(Ordering::Relaxed), 0);
    let held = world.backup.held();
    assert_eq!((held.attempts[0].host_key.clone(), held.pinned["tokyo-1"].clone()), (key(2), key(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_given_key_goes_before_the_pinned_one() {
    let mut world = World::new();
    for (name, pinned, given) in [("right", 2, 1), ("wrong", 1, 2)] {
        world.add(&World::router(name)).await;
        world.host_key(given);
        world.backup.held().pinned.insert(name.to_owned(), key(pinned));
    }
    let finished = world.run().await;
    assert!(changed(&finished, "right"));
    assert_eq!(failed(&finished, "wrong").0, Reason::HostKeyMismatch);
    assert_eq!(world.backup.held().pinned["right"], key(2), "only staff replace a pinned key");
}

/// C22: a password never goes to a device whose host key nobody has confirmed.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_not_offered_to_a_stranger() {
    let mut world = World::new();
    let router = Router { login: Login::Password(PASSWORD.to_owned()), ..World::router("tokyo-1") };
    world.add(&router).await;
    world.password(PASSWORD);
    let finished = world.run().await;
    let (reason, message) = failed(&finished, "tokyo-1");
    assert!(reason == Reason::HostKeyUnconfirmed && message.contains("to spec.connection.hostKey"), "{message}");
    assert_eq!(router.logins.load(Ordering::Relaxed), 0);
    let held = world.backup.held();
    assert_eq!((held.attempts[0].reason(), held.attempts[0].host_key.clone()), (wire::Reason::HostKeyUnconfirmed, key(1)));
    assert!(held.pinned.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_keys_the_expected_one_is_asked_for() {
    let ecdsa = russh::keys::decode_secret_key(&rcgen::KeyPair::generate().unwrap().serialize_pem(), None).unwrap();
    let mut world = World::new();
    world.add(&Router { host_keys: vec![private(1), ecdsa.clone()], ..World::router("both") }).await;
    world.connection("hostKey", openssh(ecdsa.public_key()).into());
    world.add(&World::router("other")).await;
    world.connection("hostKey", openssh(ecdsa.public_key()).into());
    let finished = world.run().await;
    assert!(changed(&finished, "both"), "{finished:?}");
    let (reason, message) = failed(&finished, "other");
    assert!(
        reason == Reason::HostKeyMismatch && message.contains("no host key of type ecdsa-sha2-nistp256") && message.contains("ssh-ed25519"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_taken_from_a_device_when_another_key_was_pinned_meanwhile() {
    let mut world = World::new();
    world.add(&World::router("tokyo-1")).await;
    world.backup.held().raced = Some(key(2));
    let finished = world.run().await;
    assert_eq!(failed(&finished, "tokyo-1").0, Reason::HostKeyMismatch);
    assert!(world.backup.held().stored.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_key_that_is_none() {
    let mut world = World::new();
    world.add(&World::router("tokyo-1")).await;
    world.connection("hostKey", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA".into());
    let finished = world.run().await;
    let (reason, message) = failed(&finished, "tokyo-1");
    assert!(reason == Reason::HostKeyMismatch && message.contains("spec.connection.hostKey is not a host key"), "{message}");
}
