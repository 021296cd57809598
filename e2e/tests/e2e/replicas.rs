//! Several operators, one of which works (C14).

#![allow(clippy::indexing_slicing)] // a field that a JSON value lacks is null, not a panic

use std::time::Duration;

use anyhow::{Result, ensure};
use tsujiban_api::names::SYSTEM_NAMESPACE;
use tsujiban_e2e::manifests::Group;
use tsujiban_e2e::stage::Stage;
use tsujiban_e2e::wait::until;

/// A second operator waits for the lease, takes it when the first one is gone, and does the work; meanwhile a drain may take one at a time.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_operator_takes_over() -> Result<()> {
    let stage = Stage::find().await?;
    let _alone = Stage::alone().await;
    replicas(&stage, 2).await?;
    let shown = take_over(&stage).await;
    replicas(&stage, 1).await?;
    let budget = stage.kubectl(&["get", "pdb", "tsujiban-operator", "-n", SYSTEM_NAMESPACE, "--ignore-not-found"]).await?.ok()?;
    ensure!(budget.out.is_empty(), "a single operator has a budget: {}", budget.out);
    shown
}

async fn take_over(stage: &Stage) -> Result<()> {
    let budget = until("the budget counts two operators", Duration::from_mins(1), || async {
        let budget = stage.kubectl(&["get", "pdb", "tsujiban-operator", "-n", SYSTEM_NAMESPACE, "-o", "json"]).await?.ok()?.json()?;
        Ok((budget["status"]["currentHealthy"] == 2).then_some(budget))
    })
    .await?;
    ensure!(budget["status"]["expectedPods"] == 2 && budget["status"]["disruptionsAllowed"] == 1, "{budget}");

    // one that goes with the rollout may hold the lease a little longer
    let leader = until("one of the two leads", Duration::from_mins(1), || async {
        let (holder, pods) = (holder(stage).await?, pods(stage).await?);
        Ok(holder.filter(|holder| pods.len() == 2 && pods.contains(holder)))
    })
    .await?;
    stage.kubectl(&["delete", "pod", &leader, "-n", SYSTEM_NAMESPACE, "--grace-period=0", "--force"]).await?.ok()?;
    until("another one leads", Duration::from_mins(2), || async { Ok(holder(stage).await?.filter(|now| *now != leader)) }).await?;

    Group::create(stage, "replicas", 83).await?.erase().await
}

/// Sets the number of operators by the chart's value, and waits until all of them are ready.
async fn replicas(stage: &Stage, count: u8) -> Result<()> {
    stage.set(&[&format!("operator.replicas={count}")]).await?;
    stage.rolled_out("deployment/tsujiban-operator").await?;
    until("as many operators as were asked for", Duration::from_mins(1), || async {
        Ok((pods(stage).await?.len() == usize::from(count)).then_some(()))
    })
    .await
}

/// The pod that holds the lease: its identity is the pod's name and the number of its process.
async fn holder(stage: &Stage) -> Result<Option<String>> {
    let lease = stage.kubectl(&["get", "lease", "tsujiban-operator", "-n", SYSTEM_NAMESPACE, "-o", "json"]).await?.ok()?.json()?;
    let identity = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    Ok(identity.split_once('_').map(|(pod, _)| pod.to_owned()))
}

/// The operators' pods that are not being deleted.
async fn pods(stage: &Stage) -> Result<Vec<String>> {
    let selector = "app.kubernetes.io/name=tsujiban,app.kubernetes.io/component=operator";
    let list = stage.kubectl(&["get", "pods", "-n", SYSTEM_NAMESPACE, "-l", selector, "-o", "json"]).await?.ok()?.json()?;
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let alive = items.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    Ok(alive.filter_map(|pod| pod["metadata"]["name"].as_str()).map(str::to_owned).collect())
}
