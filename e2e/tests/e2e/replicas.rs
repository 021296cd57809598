//! Several operators, one of which works (C14).

use std::time::Duration;

use anyhow::Result;
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

    let budget = until("the budget counts two operators", Duration::from_mins(1), || async {
        let budget = stage.kubectl(&["get", "pdb", "tsujiban-operator", "-n", SYSTEM_NAMESPACE, "-o", "json"]).await?.ok()?.json()?;
        Ok((budget["status"]["currentHealthy"] == 2).then_some(budget))
    })
    .await?;
    assert_eq!(budget["status"]["expectedPods"], 2, "{budget}");
    assert_eq!(budget["status"]["disruptionsAllowed"], 1, "{budget}");

    let first = until("one of them leads", Duration::from_mins(1), || async { holder(&stage).await }).await?;
    let pods = pods(&stage).await?;
    assert_eq!(pods.len(), 2, "{pods:?}");
    let leader = pods.iter().find(|pod| first.starts_with(&format!("{pod}_")));
    let leader = leader.unwrap_or_else(|| panic!("{first} is none of {pods:?}"));
    stage.kubectl(&["delete", "pod", leader, "-n", SYSTEM_NAMESPACE, "--grace-period=0", "--force"]).await?.ok()?;
    let second =
        until("another one leads", Duration::from_mins(2), || async { Ok(holder(&stage).await?.filter(|now| *now != first)) }).await?;
    assert!(!second.starts_with(&format!("{leader}_")), "{second} is not the one that was killed");

    let group = Group::create(&stage, "replicas", 83).await?;
    group.erase().await?;

    replicas(&stage, 1).await?;
    let gone = stage.kubectl(&["get", "pdb", "tsujiban-operator", "-n", SYSTEM_NAMESPACE, "--ignore-not-found"]).await?.ok()?;
    assert_eq!(gone.out, "", "a single operator has no budget");
    Ok(())
}

/// Sets the number of operators by the chart's value, and waits until all of them are ready.
async fn replicas(stage: &Stage, count: u8) -> Result<()> {
    let chart = stage.checkout.join("charts/tsujiban");
    let value = format!("operator.replicas={count}");
    stage
        .helm(&["upgrade", "tsujiban", &chart.to_string_lossy(), "-n", SYSTEM_NAMESPACE, "--reuse-values", "--set", &value])
        .await?
        .ok()?;
    stage.kubectl(&["rollout", "status", "deployment/tsujiban-operator", "-n", SYSTEM_NAMESPACE, "--timeout=120s"]).await?.ok()?;
    until("as many operators as were asked for", Duration::from_mins(1), || async {
        Ok((pods(stage).await?.len() == usize::from(count)).then_some(()))
    })
    .await
}

async fn holder(stage: &Stage) -> Result<Option<String>> {
    let lease = stage.kubectl(&["get", "lease", "tsujiban-operator", "-n", SYSTEM_NAMESPACE, "-o", "json"]).await?.ok()?.json()?;
    Ok(lease["spec"]["holderIdentity"].as_str().filter(|holder| !holder.is_empty()).map(str::to_owned))
}

/// The operators' pods that are not being deleted.
async fn pods(stage: &Stage) -> Result<Vec<String>> {
    let selector = "app.kubernetes.io/name=tsujiban,app.kubernetes.io/component=operator";
    let list = stage.kubectl(&["get", "pods", "-n", SYSTEM_NAMESPACE, "-l", selector, "-o", "json"]).await?.ok()?.json()?;
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let alive = items.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    Ok(alive.filter_map(|pod| pod["metadata"]["name"].as_str()).map(str::to_owned).collect())
}
