//! The kinds and the release go and come back.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tsujiban_plane::SYSTEM;
use tsujiban_plane::wait::until;
use tsujiban_proto::lifecycle::v1::GroupState;

use super::NOTICED;
use crate::operator::Operator;
use crate::world::World;

const KINDS: [&str; 3] = ["tenants.tsujiban.dev", "sites.tsujiban.dev", "devices.tsujiban.dev"];
const DEVICES: [(&str, &str); 2] = [("acme", "r1"), ("borealis", "r9")];

/// Both groups, one of which would be erased if its Tenant were deleted.
async fn declare(world: &World) {
    world.declare("acme", json!({}), &[("r1", "SN1")]).await;
    world.declare("borealis", json!({"deletionPolicy": "Erase"}), &[("r9", "SN9")]).await;
}

async fn operator(world: &World) -> Operator {
    Operator::start(world.plane.operator().await.unwrap().client().unwrap(), &world.endpoint)
}

/// Sites may be back by then: without a history they have no finalizer, so an installation finds none and makes the kind anew.
async fn are_gone(world: &World, kinds: &[&str]) {
    until("the kinds are gone", NOTICED, || async {
        let left = world.plane.kubectl(&["get", "crd", "--output=name"])?;
        Ok(kinds.iter().all(|kind| !left.contains(kind)).then_some(()))
    })
    .await
    .unwrap();
}

fn delete_kinds(world: &World, kinds: &[&str]) {
    world.plane.kubectl(&[&["delete", "crd", "--wait=false"], kinds].concat()).unwrap();
}

/// Nothing was erased, and what matters is what it was.
async fn assert_nothing_lost(world: &World, before: &Value, after: &str) {
    assert_eq!(world.treasure(&DEVICES).await, *before, "after: {after}");
    assert_eq!(world.erasures(), BTreeSet::new(), "after: {after}");
}

fn assert_all(world: &World, state: GroupState) {
    let states: Vec<_> = world.backup.groups().iter().map(|group| group.state).collect();
    assert_eq!(states, [state; 2]);
}

/// C24, C25: no namespace, key or backup goes with the kinds or with the release, whatever the deletionPolicy, whoever is there to see
/// it; what is declared again finds everything.
#[tokio::test(flavor = "multi_thread")]
async fn kinds_and_release_go_and_come_back() {
    let world = World::new().await;
    let running = operator(&world).await;
    declare(&world).await;
    let before = world.treasure(&DEVICES).await;
    assert_eq!(world.erasures(), BTreeSet::new());

    // of a kind that has gone nothing can be read, and what is left must go nevertheless
    for kind in KINDS {
        delete_kinds(&world, &[kind]);
        are_gone(&world, &[kind]).await;
    }
    assert_nothing_lost(&world, &before, "the kinds went").await;
    assert_all(&world, GroupState::Retained);
    world.plane.install(world.plane.checkout()).await.unwrap();
    declare(&world).await;
    assert_nothing_lost(&world, &before, "the kinds came back").await;
    assert_all(&world, GroupState::Living);

    drop(running);
    for release in ["tsujiban", "tsujiban-crds"] {
        world.plane.helm(&["uninstall", release, "--namespace", SYSTEM]).unwrap();
    }
    assert_nothing_lost(&world, &before, "the release went").await;
    world.plane.install(world.plane.checkout()).await.unwrap();
    let running = operator(&world).await;
    declare(&world).await; // changes nothing: all is there
    assert_nothing_lost(&world, &before, "the release came back").await;

    drop(running);
    world.plane.helm(&["uninstall", "tsujiban", "--namespace", SYSTEM]).unwrap();
    delete_kinds(&world, &KINDS); // and nobody takes the finalizers away
    world.plane.apply_charts(world.plane.checkout()).await.unwrap();
    let _running = operator(&world).await;
    are_gone(&world, &["tenants", "devices"]).await;
    assert_nothing_lost(&world, &before, "the kinds went while nobody was there").await;
    world.plane.install(world.plane.checkout()).await.unwrap();
    declare(&world).await;
    assert_nothing_lost(&world, &before, "all came back").await;
    assert_all(&world, GroupState::Living);
}
