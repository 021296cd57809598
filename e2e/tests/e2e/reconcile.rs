//! What the operator keeps as it should be.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::ResourceQuota;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tsujiban_api::names;
use tsujiban_e2e::manifests::Group;
use tsujiban_e2e::stage::Stage;
use tsujiban_e2e::wait::{SOON, stays, until};

/// The rule that only the operator changes generated objects.
const GENERATED_RULE: &str = "tsujiban-generated";

/// C13: what somebody with every right removes or weakens is back within seconds.
#[tokio::test(flavor = "multi_thread")]
async fn drift_is_repaired() -> Result<()> {
    let stage = Stage::find().await?;
    let _alone = Stage::alone().await;
    let group = Group::create(&stage, "drift", 111).await?;
    let policies: Api<NetworkPolicy> = Api::namespaced(stage.client.clone(), &group.namespace);
    let quotas: Api<ResourceQuota> = Api::namespaced(stage.client.clone(), &group.namespace);

    // nobody but the operator may touch generated objects, not even an administrator
    let refused = policies.delete(names::POLICY_DENY_ALL, &DeleteParams::default()).await;
    assert!(refused.is_err(), "a generated policy was deleted");

    // an administrator who takes that rule away can; and the operator repairs
    let rule = stage.take_away("validatingadmissionpolicybinding", GENERATED_RULE).await?;
    let repaired = async {
        until("the policy can be deleted", SOON, || async {
            Ok(policies.delete(names::POLICY_DENY_ALL, &DeleteParams::default()).await.ok().map(drop))
        })
        .await?;
        until("the policy is back", Duration::from_secs(10), || async { Ok(policies.get_opt(names::POLICY_DENY_ALL).await?) }).await?;
        let more = json!({"spec": {"hard": {"pods": "1000"}}});
        quotas.patch(names::QUOTA, &PatchParams::default(), &Patch::Merge(&more)).await?;
        until("the quota is as before", Duration::from_secs(10), || async {
            let hard = quotas.get(names::QUOTA).await?.spec.and_then(|s| s.hard).context("no hard limits")?;
            Ok(hard.get("pods").is_some_and(|pods| pods.0 == "10").then_some(()))
        })
        .await
    }
    .await;
    rule.put_back().await?;
    repaired?;
    group.erase().await
}

/// C7: a suspended group has no backups and no network, and loses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_group_stands_still() -> Result<()> {
    let stage = Stage::find().await?;
    let _together = Stage::together().await;
    let group = Group::create(&stage, "suspended", 112).await?;
    group.apply(json!({"suspended": true})).await?;
    group.condition("Ready", "True").await?;
    let jobs: Api<CronJob> = Api::namespaced(stage.client.clone(), &group.namespace);
    assert_eq!(jobs.get(names::CRONJOB).await?.spec.suspend, Some(true));
    let refused = group.back_up().await?;
    assert!(refused.code != 0 && refused.err.contains("suspended"), "{refused:?}");
    let incarnation = group.incarnation().await?;
    group.apply(json!({"suspended": false})).await?;
    group.condition("Ready", "True").await?;
    assert_eq!(group.incarnation().await?, incarnation);
    group.erase().await
}

/// A resync in which nothing changed writes nothing: no object of the group gets a new version.
#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_group_is_not_written() -> Result<()> {
    let stage = Stage::find().await?;
    let _together = Stage::together().await;
    let group = Group::create(&stage, "quiet", 113).await?;
    let kinds = "namespace/tn-quiet,tenant/quiet";
    // the group's Site says when it is in the operation history
    stage.kubectl(&["wait", "site/hq", "-n", "tn-quiet", "--for=condition=Ready", "--timeout=60s"]).await?.ok()?;
    group.condition("Conformant", "True").await?;
    // an operator that has just started learns of the clock with the audit service's first report
    let clock = ["get", "tenant/quiet", "-o", r#"jsonpath={.status.conditions[?(@.type=="ClockSynchronised")].status}"#];
    until("the clock is spoken of", SOON, || async { Ok((!stage.kubectl(&clock).await?.ok()?.out.is_empty()).then_some(())) }).await?;
    // and when all that is stored of it was read again for the first time
    stage.kubectl(&["wait", "tenant/quiet", "--for=condition=StorageIntact", "--timeout=300s"]).await?.ok()?;
    stays("versions of the group's objects", Duration::from_secs(75), || async {
        let cluster =
            stage.kubectl(&["get", "namespace/tn-quiet", "tenant/quiet", "-o", "jsonpath={..metadata.resourceVersion}"]).await?.ok()?;
        let inside = stage
            .kubectl(&[
                "get",
                "-n",
                "tn-quiet",
                "site,resourcequota,limitrange,networkpolicy,serviceaccount,rolebinding,cronjob,configmap,secret",
                "-o",
                "jsonpath={.items[*].metadata.resourceVersion}",
            ])
            .await?
            .ok()?;
        Ok((kinds, cluster.out, inside.out))
    })
    .await?;
    group.erase().await
}

/// The schedule lies at a minute of the group's own, and devices have one CronJob together.
#[tokio::test(flavor = "multi_thread")]
async fn one_cronjob_a_group() -> Result<()> {
    let stage = Stage::find().await?;
    let _together = Stage::together().await;
    let group = Group::create(&stage, "one-job", 114).await?;
    for (name, host) in [("a", "172.20.114.1"), ("b", "172.20.114.2"), ("c", "172.20.114.3")] {
        group.device(name, &format!("ONE-{name}"), json!({"host": host})).await?;
        group.public_key(name).await?;
    }
    let jobs: Api<CronJob> = Api::namespaced(stage.client.clone(), &group.namespace);
    let found = jobs.list(&kube::api::ListParams::default()).await?;
    assert_eq!(found.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), [names::CRONJOB]);
    let spec = found.items.into_iter().next().context("no CronJob")?.spec;
    let tenant = group.tenants().get("one-job").await?;
    assert_eq!(tenant.status.and_then(|s| s.schedule), Some(spec.schedule));
    assert_eq!(spec.time_zone.as_deref(), Some("Asia/Tokyo"));
    group.erase().await
}
