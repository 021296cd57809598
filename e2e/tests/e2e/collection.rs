//! The main job: a change on a router becomes a snapshot, and nothing else does.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tsujiban_e2e::manifests::{Group, password_secret};
use tsujiban_e2e::router::{Login, Router};
use tsujiban_e2e::stage::{Stage, ids};
use tsujiban_e2e::wait::{SOON, until};

/// C23: what is on the router is stored once, seen again when it has not changed, and stored anew when it has.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_a_new_snapshot_and_no_change_is_none() -> Result<()> {
    let stage = Stage::find().await?;
    let _together = Stage::together().await;
    let group = Group::create(&stage, "collection", 51).await?;
    group.device("core-1", "COL-1", json!({"host": "172.20.51.11"})).await?;
    let router = Router::up(&stage, "col-1", "172.20.51.11", &Login::Key(&group.public_key("core-1").await?))?;

    group.back_up().await?.ok()?;
    group.attempt("core-1", "Changed").await?;
    let first = stage.snapshots("collection").await?;
    assert_eq!(first.len(), 1, "{first:?}");

    group.back_up().await?.ok()?;
    let device = group.attempt("core-1", "Unchanged").await?;
    assert_eq!(device.status.and_then(|s| s.observed_host_key).as_deref(), Some(router.host_key.as_str()));
    assert_eq!(ids(&stage.snapshots("collection").await?), ids(&first));

    router.configure(&["interface lo", "description 東京 changed by a test"])?;
    group.back_up().await?.ok()?;
    group.attempt("core-1", "Changed").await?;
    let second = stage.snapshots("collection").await?;
    assert_eq!(second.len(), 2, "{second:?}");

    let (old, new) = (id(&first[0])?, id(&second[0])?);
    let diff = stage.tsujiban(&["snapshots", "diff", "collection", &old, &new]).await?.ok()?;
    assert!(diff.out.contains("東京 changed by a test"), "{}", diff.out);
    let shown = stage.tsujiban(&["snapshots", "show", "collection", &new]).await?.ok()?;
    assert!(shown.out.contains("<redacted>") && shown.out.contains("hostname"), "{}", shown.out);
    for name in ["core-1", "COL-1", "latest", new.get(..12).context("a short id")?] {
        let named = stage.tsujiban(&["snapshots", "show", "collection", name]).await?.ok()?;
        assert_eq!(named.out, shown.out, "named as {name}");
    }
    let verified = stage.tsujiban(&["snapshots", "verify", "collection", &new]).await?.ok()?;
    assert!(!verified.out.contains("false"), "{}", verified.out);
    group.erase().await
}

/// C7: a password is offered only to a router whose host key is given.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_waits_for_a_given_host_key() -> Result<()> {
    let stage = Stage::find().await?;
    let _together = Stage::together().await;
    let group = Group::create(&stage, "password", 52).await?;
    password_secret(&stage, &group.namespace, "core-1", "correct horse").await?;
    let router = Router::up(&stage, "pw-1", "172.20.52.11", &Login::Password("correct horse"))?;
    let connection = json!({"host": "172.20.52.11", "credentialsSecretRef": {"name": "core-1"}});
    group.device("core-1", "PW-1", connection.clone()).await?;

    group.back_up().await?;
    let device = group.attempt("core-1", "HostKeyUnconfirmed").await?;
    assert_eq!(device.status.and_then(|s| s.observed_host_key).as_deref(), Some(router.host_key.as_str()));

    let mut confirmed = connection;
    confirmed["hostKey"] = json!(router.host_key);
    group.device("core-1", "PW-1", confirmed).await?;
    group.back_up().await?.ok()?;
    group.attempt("core-1", "Changed").await?;
    group.erase().await
}

/// C23: the CronJob runs by itself, at the schedule of the Tenant.
#[tokio::test(flavor = "multi_thread")]
async fn the_cronjob_runs_by_itself() -> Result<()> {
    let stage = Stage::find().await?;
    let _together = Stage::together().await;
    let group = Group::create(&stage, "by-itself", 53).await?;
    group.device("core-1", "SLF-1", json!({"host": "172.20.53.11"})).await?;
    let router = Router::up(&stage, "slf-1", "172.20.53.11", &Login::Key(&group.public_key("core-1").await?))?;
    group.apply(json!({"backup": {"schedule": "* * * * *", "windowMinutes": 1}})).await?;
    until("a snapshot is there", SOON * 4, || async { Ok((stage.snapshots("by-itself").await?.len() == 1).then_some(())) }).await?;
    drop(router);
    group.erase().await
}

fn id(snapshot: &Value) -> Result<String> {
    Ok(snapshot["id"].as_str().with_context(|| format!("no id in {snapshot}"))?.to_owned())
}
