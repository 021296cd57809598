//! The way in from outside (C13).

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use tsujiban_api::names::SYSTEM_NAMESPACE;
use tsujiban_e2e::pod::Probe;
use tsujiban_e2e::stage::Stage;
use tsujiban_e2e::wait::until;

const OPEN: [&str; 6] = [
    "edge.enabled=true",
    "edge.kind=Ingress",
    "edge.host=tsujiban.example.co.jp",
    "edge.from.namespace=e2e-gateway",
    "edge.routes[0].service=backup",
    "edge.routes[0].methods[0]=tsujiban.backup.v1.BackupService/ListSnapshots",
];

/// The pods of the platform's gateway reach the backup service while the values say so, and nobody else does.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_gateway_is_let_in_and_only_while_the_edge_is_on() -> Result<()> {
    let stage = Stage::find().await?;
    let _alone = Stage::alone().await;
    for namespace in ["e2e-gateway", "e2e-elsewhere"] {
        stage.kubectl(&["create", "namespace", namespace]).await?.ok()?;
    }
    let shown = let_in(&stage).await;
    stage.set(&["edge.enabled=false"]).await?;
    stage.kubectl(&["delete", "namespace", "e2e-gateway", "e2e-elsewhere", "--wait=false"]).await?.ok()?;
    shown
}

async fn let_in(stage: &Stage) -> Result<()> {
    let gateway = Probe::start(stage, "e2e-gateway", "gateway", json!({"app": "gateway"})).await?;
    let elsewhere = Probe::start(stage, "e2e-elsewhere", "gateway", json!({"app": "gateway"})).await?;
    let host = format!("tsujiban-backup.{SYSTEM_NAMESPACE}.svc");
    let reaches = async |probe: &Probe<'_>| probe.reaches(&host, 8443).await;
    ensure!(!reaches(&gateway).await?, "the gateway is let in while the edge is off");

    stage.set(&OPEN).await?;
    until("the gateway is let in", Duration::from_mins(1), || async { Ok(reaches(&gateway).await?.then_some(())) }).await?;
    ensure!(!reaches(&elsewhere).await?, "another namespace is let in as well");
    stage.kubectl(&["get", "ingress", "tsujiban", "-n", SYSTEM_NAMESPACE]).await?.ok()?;

    stage.set(&["edge.enabled=false"]).await?;
    until("the gateway is kept out again", Duration::from_mins(1), || async { Ok((!reaches(&gateway).await?).then_some(())) }).await
}
