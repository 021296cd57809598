//! The cluster is brought back to a copy of its etcd, and an hour of its life never happened; the services remember it.

use std::collections::BTreeSet;

use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::json;
use tsujiban_plane::wait::until;
use tsujiban_proto::lifecycle::v1::GroupState;

use super::Told;
use crate::operator::Operator;
use crate::world::{SOON, World};

const COPY: &str = "an-hour-ago";

async fn operator(world: &World) -> Operator {
    Operator::start(world.plane.operator().await.unwrap().client().unwrap(), &world.endpoint)
}

/// What happens in the hour: something new, something erased and something retained, of groups and of devices.
async fn live_an_hour(world: &World) {
    world.declare("late", json!({}), &[("r1", "LATE1")]).await;
    world.device("acme", "new", "NEW", 30).await;
    world.device_is("acme", "new", "True").await;
    world.devices("acme").delete("gone", &DeleteParams::default()).await.unwrap();
    for group in ["erased", "retained"] {
        world.tenants().delete(group, &DeleteParams::default()).await.unwrap();
    }
    until("the hour is over", SOON, || async {
        let tenants = world.tenants().get_opt("erased").await?.is_none() && world.tenants().get_opt("retained").await?.is_none();
        let namespace = world.namespaces().get_opt("tn-erased").await?.is_none();
        Ok((tenants && namespace && world.devices("acme").get_opt("gone").await?.is_none()).then_some(()))
    })
    .await
    .unwrap();
}

fn state(world: &World, group: &str) -> GroupState {
    world.backup.group(group).unwrap().state
}

async fn becomes(world: &World, group: &str, wanted: GroupState) {
    let what = format!("group {group} is {wanted:?}");
    until(&what, SOON, || async { Ok((state(world, group) == wanted).then_some(())) }).await.unwrap();
}

/// C24, C25: nothing of that hour is lost, nothing that was erased begins anew unnoticed, and nothing more is erased.
#[tokio::test(flavor = "multi_thread")]
async fn an_hour_that_never_happened() {
    let mut world = World::new().await;
    let running = operator(&world).await;
    world.declare("acme", json!({}), &[("stays", "STAYS"), ("gone", "GONE")]).await;
    world.declare("erased", json!({"deletionPolicy": "Erase"}), &[("r1", "ER1")]).await;
    world.declare("retained", json!({}), &[("r1", "RE1")]).await;
    world.plane.copy_etcd(COPY).await.unwrap();
    live_an_hour(&world).await;
    let kept = [("acme", "stays"), ("retained", "r1")];
    let before = world.treasure(&kept).await;
    let late = world.incarnation("late").await.unwrap();
    assert_eq!(world.erasures().len(), 2, "one device and one group, as was meant");

    drop(running); // its lease is lost with the apiserver, or is met in an older version: a new process begins
    world.plane.restore_etcd(COPY).await.unwrap();
    let _running = operator(&world).await;

    // who was not touched, or was retained in that hour, goes on
    for (group, device) in kept {
        world.tenant_is(group, "True").await;
        world.device_is(group, device, "True").await;
    }
    becomes(&world, "retained", GroupState::Living).await; // the restored status said Ready before anybody looked
    assert_eq!(world.treasure(&kept).await, before);

    // who was erased is told so, and nothing begins in the place of what is gone
    let message = world.told(&Told::Tenant("erased", "Ready"), "False", "Refused").await;
    assert!(message.contains("was erased"), "{message}");
    let message = world.told(&Told::Device("acme", "gone"), "False", "DataErased").await;
    assert!(message.contains("delete it, then declare it anew"), "{message}");
    assert_eq!(world.backup.groups().iter().filter(|group| group.name == "erased").count(), 1);

    // who came in that hour is kept until it is declared again
    becomes(&world, "late", GroupState::Retained).await;
    world.declare("late", json!({}), &[("r1", "LATE1")]).await;
    assert_eq!((world.incarnation("late").await, state(&world, "late")), (Some(late), GroupState::Living));
    world.device("acme", "new", "NEW", 30).await;
    world.device_is("acme", "new", "True").await;
    assert_eq!(world.erasures(), BTreeSet::new(), "the restoration erases nothing");

    // and what is gone goes for good when it is deleted, without anything of anybody else
    let uid = world.devices("acme").get("gone").await.unwrap().uid().unwrap();
    world.devices("acme").delete("gone", &DeleteParams::default()).await.unwrap();
    until("the device is gone", SOON, || async { Ok(world.devices("acme").get_opt("gone").await?.is_none().then_some(())) }).await.unwrap();
    world.device("acme", "gone", "GONE", 31).await;
    world.device_is("acme", "gone", "True").await;
    world.tenants().delete("erased", &DeleteParams::default()).await.unwrap();
    until("the group is gone", SOON, || async { Ok(world.namespaces().get_opt("tn-erased").await?.is_none().then_some(())) })
        .await
        .unwrap();
    let erasures = world.erasures();
    let is_known = |call: &String| call.contains(&format!("GONE {uid}")) || call.starts_with("erase erased ");
    assert!(!erasures.is_empty() && erasures.iter().all(is_known), "{erasures:?}");
    assert_eq!(world.treasure(&kept).await["keys"], before["keys"]);
}
