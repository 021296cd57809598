//! A group reaches nothing of another group, of the nodes or of the control plane.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use tsujiban_api::names;
use tsujiban_core::workload::{self, GRPC_PORT};
use tsujiban_e2e::manifests::Group;
use tsujiban_e2e::pod::Probe;
use tsujiban_e2e::router::{Login, Router};
use tsujiban_e2e::stage::Stage;

const CONTROL: &str = "e2e-control";

/// C7, C13: with a control that shows the same traffic passing where no policy is.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_reaches_only_what_it_must() -> Result<()> {
    let stage = Stage::find().await?;
    let _together = Stage::together().await;
    let (a, b) = (Group::create(&stage, "isolation-a", 41).await?, Group::create(&stage, "isolation-b", 42).await?);
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHhQvEgCFjBB3sVYwQ8pM0rYMqjLzq0cUlL8nS1cTn5Q";
    let own_router = Router::up(&stage, "iso-a", "172.20.41.11", &Login::Key(key))?;
    let other_router = Router::up(&stage, "iso-b", "172.20.42.11", &Login::Key(key))?;

    let target = Probe::start(&stage, &b.namespace, "target", json!({"app": "target"})).await?;
    let control = control_probe(&stage).await?;
    let open_target = Probe::start(&stage, CONTROL, "target", json!({"app": "target"})).await?;
    let services = |namespace: &str| Api::<Service>::namespaced(stage.client.clone(), namespace);
    let refused = services(&b.namespace).create(&PostParams::default(), &target_service()?).await;
    assert!(matches!(&refused, Err(kube::Error::Api(s)) if s.is_forbidden()), "a group's quota leaves no room for services: {refused:?}");
    let service = services(CONTROL).create(&PostParams::default(), &target_service()?).await?;
    let service_ip = service.spec.and_then(|s| s.cluster_ip).context("the service has no address")?;
    let (api_host, api_port) = apiserver(&stage).await?;
    let backup_ip = cluster_ip(&stage, names::SYSTEM_NAMESPACE, workload::Service::Backup.row().host).await?;
    let kubernetes_ip = cluster_ip(&stage, "default", "kubernetes").await?;
    let node = api_host.clone();

    let places: BTreeMap<&str, (&str, u16)> = BTreeMap::from([
        ("pod of b", (target.ip.as_str(), 8080)),
        ("pod elsewhere", (open_target.ip.as_str(), 8080)),
        ("service elsewhere", (service_ip.as_str(), 8080)),
        ("router of b", ("172.20.42.11", 22)),
        ("own router", ("172.20.41.11", 22)),
        ("apiserver", (api_host.as_str(), api_port)),
        ("kubernetes service", (kubernetes_ip.as_str(), 443)),
        ("kubelet of the node", (node.as_str(), 10250)),
        ("object storage", (node.as_str(), 7070)),
        ("backup service", (backup_ip.as_str(), GRPC_PORT)),
    ]);

    let plain = Probe::start(&stage, &a.namespace, "plain", json!({"app": "plain"})).await?;
    let collector =
        Probe::start(&stage, &a.namespace, "like-collector", json!({names::LABEL_COMPONENT: names::COMPONENT_COLLECTOR})).await?;

    let mut seen = BTreeMap::new();
    for (place, (host, port)) in &places {
        seen.insert(
            *place,
            (plain.reaches(host, *port).await?, collector.reaches(host, *port).await?, control.reaches(host, *port).await?),
        );
    }
    let expected = BTreeMap::from([
        // place: (plain pod, pod with the collector's label, pod in a namespace without policies)
        ("pod of b", (false, false, false)), // b's own policies refuse it, whoever asks
        ("pod elsewhere", (false, false, true)),
        ("service elsewhere", (false, false, true)),
        ("router of b", (false, false, true)),
        ("own router", (false, true, true)),
        ("apiserver", (false, true, true)),
        ("kubernetes service", (false, true, true)),
        ("kubelet of the node", (false, false, true)),
        ("object storage", (false, false, true)),
        ("backup service", (false, true, false)), // the backup service lets collectors of groups in, nobody else
    ]);
    assert_eq!(seen, expected);
    assert!(plain.resolves("kubernetes.default.svc.cluster.local").await?, "names resolve");

    drop((own_router, other_router));
    let namespaces: Api<Namespace> = Api::all(stage.client.clone());
    namespaces.delete(CONTROL, &DeleteParams::default()).await?;
    a.erase().await?;
    b.erase().await
}

async fn control_probe(stage: &Stage) -> Result<Probe<'_>> {
    let namespaces: Api<Namespace> = Api::all(stage.client.clone());
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": CONTROL}}))?;
    namespaces.create(&PostParams::default(), &namespace).await?;
    tsujiban_e2e::wait::until("the control namespace has its service account", tsujiban_e2e::wait::SOON, || async {
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::namespaced(stage.client.clone(), CONTROL);
        Ok(accounts.get_opt("default").await?)
    })
    .await?;
    Probe::start(stage, CONTROL, "control", json!({"app": "control"})).await
}

fn target_service() -> Result<Service> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": "target"},
        "spec": {"selector": {"app": "target"}, "ports": [{"port": 8080}]},
    }))?)
}

async fn cluster_ip(stage: &Stage, namespace: &str, name: &str) -> Result<String> {
    let service = Api::<Service>::namespaced(stage.client.clone(), namespace).get(name).await?;
    service.spec.and_then(|s| s.cluster_ip).with_context(|| format!("service {namespace}/{name} has no address"))
}

/// The address behind the service `kubernetes`.
async fn apiserver(stage: &Stage) -> Result<(String, u16)> {
    let slice = Api::<EndpointSlice>::namespaced(stage.client.clone(), "default").get("kubernetes").await?;
    let host = slice.endpoints.unwrap_or_default().into_iter().flat_map(|e| e.addresses).next().context("no apiserver address")?;
    let port = slice.ports.unwrap_or_default().into_iter().find_map(|p| p.port).context("no apiserver port")?;
    Ok((host, u16::try_from(port)?))
}
