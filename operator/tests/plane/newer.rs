//! After a rollback objects of the newer version are there. They stop nothing, and nothing is done with them.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tsujiban_api::Device;
use tsujiban_plane::wait::until;

use crate::operator::Operator;
use crate::world::{SOON, World};

const DEVICES: &str = "devices.tsujiban.dev";

/// The kind Device as a newer version has it: with a driver that this one does not know.
async fn install_newer_kind(world: &World) -> Result<()> {
    let kinds: Api<CustomResourceDefinition> = Api::all(world.admin.clone());
    let mut kind = serde_json::to_value(kinds.get(DEVICES).await?)?;
    let drivers = kind.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/driver/enum").unwrap();
    drivers.as_array_mut().unwrap().push(json!("OfNextYear"));
    kinds.replace(DEVICES, &PostParams::default(), &serde_json::from_value(kind)?).await?;
    Ok(())
}

fn newer(name: &str) -> serde_json::Value {
    json!({
        "apiVersion": "tsujiban.dev/v1alpha1", "kind": "Device", "metadata": {"name": name, "namespace": "tn-acme"},
        "spec": {"siteRef": {"name": "hq"}, "serialNumber": "SN-NEW", "driver": "OfNextYear", "connection": {"host": "172.20.1.9"}},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_of_a_newer_version_stops_no_other_and_keeps_its_finalizer() {
    let world = World::new().await;
    let client = world.plane.operator().await.unwrap().client().unwrap();
    let operator = Operator::start(client.clone(), &world.endpoint);
    world.tenant("acme", json!({})).await;
    world.tenant_is("acme", "True").await;
    world.site("acme").await;
    world.device("acme", "tokyo-1", "SN-1", 11).await;
    let raw: Api<DynamicObject> = Api::namespaced_with(world.admin.clone(), "tn-acme", &ApiResource::erase::<Device>(&()));
    install_newer_kind(&world).await.unwrap();
    until("the newer kind is served", SOON, || async {
        Ok(raw.patch("new", &PatchParams::apply("test").force(), &Patch::Apply(&newer("new"))).await.ok().map(drop))
    })
    .await
    .unwrap();

    // by its watch, and by the first list of the next operator
    for (name, serial, last) in [("tokyo-2", "SN-2", 12), ("tokyo-3", "SN-3", 13)] {
        world.device("acme", name, serial, last).await;
        until("the others go on", SOON, || async {
            let device = world.devices("acme").get(name).await?;
            Ok(device.status.is_some_and(|status| status.observed_generation.is_some()).then_some(()))
        })
        .await
        .unwrap();
        if name == "tokyo-2" {
            told(&world).await;
        }
    }
    operator.end().await;
    let operator = Operator::start(client, &world.endpoint);
    world.device("acme", "tokyo-4", "SN-4", 14).await;
    until("the next operator goes on", SOON, || async {
        let device = world.devices("acme").get("tokyo-4").await?;
        Ok(device.status.is_some_and(|status| status.observed_generation.is_some()).then_some(()))
    })
    .await
    .unwrap();

    // deleted, it waits for the version that understands it
    raw.delete("new", &DeleteParams::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let kept = raw.get("new").await.unwrap();
    assert!(kept.metadata.deletion_timestamp.is_some() && !kept.finalizers().is_empty(), "{kept:?}");
    let understood = json!({"spec": {"driver": "Frr"}});
    raw.patch("new", &PatchParams::default(), &Patch::Merge(&understood)).await.unwrap();
    until("it goes once it is understood", SOON, || async { Ok(raw.get_opt("new").await?.is_none().then_some(())) }).await.unwrap();
    drop(operator);
}

/// An Event says what is not understood.
async fn told(world: &World) {
    let events: Api<Event> = Api::namespaced(world.admin.clone(), "tn-acme");
    until("an Event tells of it", SOON, || async {
        let found = events.list(&ListParams::default()).await?.items;
        let told = found.iter().find(|event| event.reason.as_deref() == Some("NotUnderstood"));
        ensure!(told.is_none_or(|event| event.note.as_deref().is_some_and(|note| note.contains("OfNextYear"))), "{told:?}");
        Ok(told.map(drop))
    })
    .await
    .unwrap();
}
