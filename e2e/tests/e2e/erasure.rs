//! Data goes when somebody meant it to go, at once and by every path; otherwise it stays and is found again.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;
use tsujiban_e2e::manifests::Group;
use tsujiban_e2e::router::{Login, Router};
use tsujiban_e2e::stage::{Stage, ids};
use tsujiban_e2e::wait::{SOON, until};

/// C24: a deleted device's snapshots are unreadable at once; another device's stay.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_deleted_with_intent_is_unreadable() -> Result<()> {
    let stage = Stage::find().await?;
    let _together = Stage::together().await;
    let group = Group::create(&stage, "erase-device", 91).await?;
    let mut routers = Vec::new();
    for (name, host) in [("goes", "172.20.91.11"), ("stays", "172.20.91.12")] {
        group.device(name, &format!("ERA-{name}"), json!({"host": host})).await?;
        routers.push(Router::up(&stage, &format!("era-{name}"), host, &Login::Key(&group.public_key(name).await?))?);
    }
    group.back_up().await?.ok()?;
    let snapshots = stage.snapshots("erase-device").await?;
    assert_eq!(snapshots.len(), 2);
    let gone = snapshots.iter().find(|s| s["device"] == "goes").and_then(|s| s["id"].as_str()).context("no snapshot of the device")?;

    group.devices().delete("goes", &DeleteParams::default()).await?;
    until("the device is gone", SOON, || async { Ok(group.devices().get_opt("goes").await?.is_none().then_some(())) }).await?;
    for arguments in [["snapshots", "show"], ["snapshots", "verify"]] {
        let answer = stage.tsujiban(&[arguments[0], arguments[1], "erase-device", gone]).await?;
        assert_ne!(answer.code, 0, "{arguments:?}: {}", answer.out);
    }
    let left = stage.snapshots("erase-device").await?;
    assert!(left.len() == 1 && left[0]["device"] == "stays", "{left:?}");
    drop(routers);
    group.erase().await
}

/// C25: a Tenant deleted with Retain keeps everything; a Tenant of the same name finds it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_retained_group_is_found_again() -> Result<()> {
    let stage = Stage::find().await?;
    let _together = Stage::together().await;
    let group = Group::create(&stage, "retained", 92).await?;
    group.device("core-1", "RET-1", json!({"host": "172.20.92.11"})).await?;
    let _router = Router::up(&stage, "ret-1", "172.20.92.11", &Login::Key(&group.public_key("core-1").await?))?;
    group.back_up().await?.ok()?;
    let (before, incarnation) = (stage.snapshots("retained").await?, group.incarnation().await?);

    group.tenants().delete("retained", &DeleteParams::default()).await?;
    until("the tenant is gone", SOON, || async { Ok(group.tenants().get_opt("retained").await?.is_none().then_some(())) }).await?;
    let listed = stage.tsujiban(&["groups", "list", "--retained"]).await?.ok()?;
    assert!(listed.out.contains(&incarnation), "{}", listed.out);

    group.apply(json!({})).await?;
    group.condition("Ready", "True").await?;
    assert_eq!(group.incarnation().await?, incarnation);
    assert_eq!(ids(&stage.snapshots("retained").await?), ids(&before));
    group.back_up().await?.ok()?;
    group.attempt("core-1", "Unchanged").await?;
    group.erase().await
}

/// C24, C25: a deleted namespace, Device CRD or Tenant CRD is no intent: the snapshots are there, and are found again.
#[tokio::test(flavor = "multi_thread")]
async fn without_intent_nothing_is_lost() -> Result<()> {
    let stage = Stage::find().await?;
    let _alone = Stage::alone().await;
    let group = Group::create(&stage, "accident", 93).await?;
    let connection = json!({"host": "172.20.93.11"});
    group.device("core-1", "ACC-1", connection.clone()).await?;
    let router = Router::up(&stage, "acc-1", "172.20.93.11", &Login::Key(&group.public_key("core-1").await?))?;
    group.back_up().await?.ok()?;
    let (before, incarnation) = (stage.snapshots("accident").await?, group.incarnation().await?);
    assert_eq!(before.len(), 1);

    for accident in ["namespace", "devices CRD", "tenants CRD"] {
        match accident {
            "namespace" => {
                let namespaces: Api<Namespace> = Api::all(stage.client.clone());
                namespaces.delete(&group.namespace, &DeleteParams::default()).await?;
            }
            "devices CRD" => crd_away_and_back(&stage, "devices").await?,
            _ => crd_away_and_back(&stage, "tenants").await?,
        }
        let back = until(&format!("the group is back after: {accident}"), SOON * 2, || async {
            drop(Group::create(&stage, "accident", 93).await?);
            group.device("core-1", "ACC-1", connection.clone()).await?;
            Ok(Some(group.public_key("core-1").await?))
        })
        .await?;
        assert_eq!(group.incarnation().await?, incarnation, "after: {accident}");
        assert_eq!(ids(&stage.snapshots("accident").await?), ids(&before), "after: {accident}");
        router.authorize(&back)?; // the key pair may have gone with the namespace
        group.back_up().await?.ok()?;
        group.attempt("core-1", "Unchanged").await?;
    }
    drop(router);
    group.erase().await
}

/// Deletes a CRD and applies it again as the chart has it.
async fn crd_away_and_back(stage: &Stage, plural: &str) -> Result<()> {
    stage.kubectl(&["delete", "crd", &format!("{plural}.tsujiban.dev"), "--timeout=120s"]).await?.ok()?;
    let file = stage.checkout.join("crds").join(format!("{plural}.yaml"));
    stage.kubectl(&["apply", "--server-side", "-f", &file.to_string_lossy()]).await?.ok()?;
    stage.kubectl(&["wait", "--for=condition=Established", &format!("crd/{plural}.tsujiban.dev"), "--timeout=60s"]).await?.ok()?;
    Ok(())
}
