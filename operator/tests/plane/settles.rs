//! The thinnest path: what is declared becomes ready, with the operator's own rights.

use kube::api::DeleteParams;
use serde_json::json;
use tsujiban_plane::wait::until;
use tsujiban_proto::lifecycle::v1::GroupState;

use crate::operator::Operator;
use crate::world::{SOON, World};

#[tokio::test(flavor = "multi_thread")]
async fn a_group_and_its_device_come_and_go() {
    let world = World::new().await;
    let client = world.plane.operator().await.unwrap().client().unwrap();
    let operator = Operator::start(client, &world.endpoint);
    world.tenant("acme", json!({})).await;
    world.tenant_is("acme", "True").await;
    world.site("acme").await;
    world.device("acme", "r1", "SN1", 10).await;
    world.device_is("acme", "r1", "True").await;
    assert_eq!(operator.metrics.keys_ready.get(), 1);
    world.tenant("acme", json!({"deletionPolicy": "Erase"})).await;
    world.tenants().delete("acme", &DeleteParams::default()).await.unwrap();
    until("the group is gone", SOON, || async { Ok(world.namespaces().get_opt("tn-acme").await?.is_none().then_some(())) }).await.unwrap();
    assert_eq!(world.backup.group("acme").unwrap().state, GroupState::Erased);
}
