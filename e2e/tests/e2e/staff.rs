//! What staff do with `tsujiban` besides looking.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;
use tsujiban_e2e::manifests::Group;
use tsujiban_e2e::router::{Login, Router};
use tsujiban_e2e::stage::Stage;
use tsujiban_e2e::wait::{SOON, until};

/// C23: a config comes back byte by byte into a file that only its owner can read, and the catalogue comes back from the bucket.
#[tokio::test(flavor = "multi_thread")]
async fn a_config_and_the_catalogue_come_back() -> Result<()> {
    let stage = Stage::find().await?;
    let _together = Stage::together().await;
    let group = Group::create(&stage, "restored", 121).await?;
    group.device("core-1", "RST-1", json!({"host": "172.20.121.11"})).await?;
    let router = Router::up(&stage, "rst-1", "172.20.121.11", &Login::Key(&group.public_key("core-1").await?))?;
    router.configure(&["password restored-secret"])?;
    group.back_up().await?.ok()?;
    let snapshots = stage.snapshots("restored").await?;
    let id = snapshots[0]["id"].as_str().context("no snapshot")?;

    let folder = tempfile::tempdir()?;
    let file = folder.path().join("core-1.conf");
    let target = file.to_string_lossy();
    stage.tsujiban_as("tests", &["snapshots", "restore", "restored", id, "--output", &target]).await?.ok()?;
    let config = fs::read_to_string(&file)?;
    assert!(config.contains("restored-secret") && config.ends_with("end\n"), "{config}");
    assert_eq!(u64::try_from(config.len()).ok(), snapshots[0]["bytes"].as_u64());
    assert_eq!(fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
    let printed = stage.tsujiban_as("tests", &["snapshots", "restore", "restored", id, "--output", "-"]).await?.ok()?;
    assert_eq!(printed.out, config);
    let again = stage.tsujiban_as("tests", &["snapshots", "restore", "restored", id, "--output", &target]).await?;
    assert_ne!(again.code, 0, "an existing file is not overwritten");
    // staff without the right to reveal
    let other = folder.path().join("other.conf");
    let refused = stage.tsujiban_as("demo", &["snapshots", "restore", "restored", id, "--output", &other.to_string_lossy()]).await?;
    assert!(refused.code != 0 && refused.err.contains("reveal") && !other.exists(), "{refused:?}");

    stage.tsujiban(&["backup", "rebuild"]).await?.ok()?;
    let rebuilt = stage.snapshots("restored").await?;
    assert_eq!(rebuilt.len(), 1);
    assert_eq!(rebuilt[0]["id"], snapshots[0]["id"]);
    group.back_up().await?.ok()?;
    group.attempt("core-1", "Unchanged").await?;

    // the router was exchanged: its new key is not trusted before staff say so
    let old_key = router.host_key.clone();
    drop(router);
    let exchanged = Router::up(&stage, "rst-1", "172.20.121.11", &Login::Key(&group.public_key("core-1").await?))?;
    group.back_up().await?;
    group.attempt("core-1", "HostKeyMismatch").await?;
    let replace = ["hostkeys", "replace", "restored", "core-1", "--expected", &old_key, "--new", &exchanged.host_key];
    stage.tsujiban(&replace).await?.ok()?;
    group.back_up().await?.ok()?;
    group.attempt("core-1", "Changed").await?;
    drop(exchanged);
    group.erase().await
}

/// C25: staff erase a retained group; its namespace goes, and its id is refused until its last data has expired.
#[tokio::test(flavor = "multi_thread")]
async fn a_retained_group_is_erased_by_staff() -> Result<()> {
    let stage = Stage::find().await?;
    let _together = Stage::together().await;
    let group = Group::create(&stage, "staff-erase", 122).await?;
    let incarnation = group.incarnation().await?;
    let erase = ["groups", "erase", "staff-erase", "--incarnation", &incarnation, "--yes"];
    let early = stage.tsujiban(&erase).await?;
    assert_ne!(early.code, 0, "a group whose Tenant lives was erased: {}", early.out);

    group.tenants().delete("staff-erase", &DeleteParams::default()).await?;
    until("the group is retained", SOON, || async {
        let listed = stage.tsujiban(&["groups", "list", "--retained"]).await?.ok()?;
        Ok(listed.out.contains(&incarnation).then_some(()))
    })
    .await?;
    stage.tsujiban(&erase).await?.ok()?;
    let namespaces: Api<Namespace> = Api::all(stage.client.clone());
    until("the namespace is gone", SOON * 2, || async { Ok(namespaces.get_opt("tn-staff-erase").await?.is_none().then_some(())) }).await?;

    group.apply(json!({})).await?;
    let refused = group.condition("KeysReady", "False").await?;
    assert_eq!(refused.reason, "Refused", "{refused:?}");
    group.tenants().delete("staff-erase", &DeleteParams::default()).await?;
    Ok(())
}
