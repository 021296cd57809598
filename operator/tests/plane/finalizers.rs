//! Who may change finalizers, of namespaced kinds and of the cluster-scoped one: administrators, and nobody else but the operator.

use anyhow::{Result, ensure};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tsujiban_api::names::FINALIZER;
use tsujiban_api::{Device, Site, Tenant};

use crate::operator::Operator;
use crate::world::World;

/// Rights on the kinds as a platform team gives them to those who declare groups, and none on their finalizers.
const DECLARER: &str = "\
kubectl create clusterrole declarer --verb=get,list,patch,update --resource=tenants.tsujiban.dev,sites.tsujiban.dev,devices.tsujiban.dev
kubectl create clusterrolebinding declarer --clusterrole=declarer --user=declarer@example.co.jp";

/// Tries to add a finalizer to an object of each kind, and to change something else of it. Answers what was refused, in words.
async fn refused(client: &Client, patch: &Value) -> Result<Vec<String>> {
    let (dry, patch) = (PatchParams { dry_run: true, ..PatchParams::default() }, Patch::Merge(patch));
    let tenants: Api<Tenant> = Api::all(client.clone());
    let sites: Api<Site> = Api::namespaced(client.clone(), "tn-acme");
    let devices: Api<Device> = Api::namespaced(client.clone(), "tn-acme");
    let answers = [
        tenants.patch("acme", &dry, &patch).await.map(drop),
        sites.patch("hq", &dry, &patch).await.map(drop),
        devices.patch("core-1", &dry, &patch).await.map(drop),
    ];
    Ok(answers.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn administrators_alone_change_the_finalizers_of_every_kind() -> Result<()> {
    let world = World::new().await;
    let operator = Operator::start(world.plane.operator().await?.client()?, &world.endpoint);
    world.tenant("acme", json!({})).await;
    world.tenant_is("acme", "True").await;
    world.site("acme").await;
    world.device("acme", "core-1", "SN-1", 11).await;
    world.plane.shell(DECLARER)?;
    let declarer = world.plane.person("declarer@example.co.jp", None).await?.client()?;

    let more = json!({"metadata": {"finalizers": [FINALIZER, "example.com/keep"]}});
    let other = json!({"metadata": {"labels": {"example.com/floor": "3"}}});
    let by_admin = refused(&world.admin, &more).await?;
    ensure!(by_admin.is_empty(), "{by_admin:?}");
    let by_declarer = refused(&declarer, &more).await?;
    let is_plain = |text: &String| text.contains("metadata.finalizers is not yours to change");
    ensure!(by_declarer.len() == 3 && by_declarer.iter().all(is_plain), "{by_declarer:?}");
    let changes = refused(&declarer, &other).await?;
    ensure!(changes.is_empty(), "{changes:?}");
    operator.end().await;
    Ok(())
}
