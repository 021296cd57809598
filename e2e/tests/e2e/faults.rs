//! What goes wrong with one router is named rightly and does not touch the others.

use anyhow::Result;
use serde_json::{Value, json};
use tsujiban_e2e::manifests::{Group, password_secret};
use tsujiban_e2e::router::{Login, Router};
use tsujiban_e2e::stage::{NOT_STORED, Stage};
use tsujiban_e2e::strange::Strange;
use tsujiban_e2e::wait::{SOON, until};

const ANOTHER_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHhQvEgCFjBB3sVYwQ8pM0rYMqjLzq0cUlL8nS1cTn5Q";

/// C7, C13: wrong host key, wrong password, unreachable, not declared: the right reason each, and the good router is backed up.
#[tokio::test(flavor = "multi_thread")]
async fn each_fault_has_its_reason_and_the_good_router_is_backed_up() -> Result<()> {
    let stage = Stage::find().await?;
    let _together = Stage::together().await;
    let group = Group::create(&stage, "faults", 71).await?;
    group.device("good", "FLT-1", json!({"host": "172.20.71.11"})).await?;
    let _good = Router::up(&stage, "flt-good", "172.20.71.11", &Login::Key(&group.public_key("good").await?))?;
    let guarded = Router::up(&stage, "flt-pw", "172.20.71.12", &Login::Password("right password"))?;
    password_secret(&stage, &group.namespace, "wrong", "wrong password").await?;

    let with_password = |key: &str| json!({"host": "172.20.71.12", "credentialsSecretRef": {"name": "wrong"}, "hostKey": key});
    let devices: [(&str, Value, &str); 4] = [
        ("wrong-host-key", with_password(ANOTHER_KEY), "HostKeyMismatch"),
        ("wrong-password", with_password(&guarded.host_key), "Auth"),
        ("unreachable", json!({"host": "172.20.71.99"}), "Timeout"),
        // the name resolves to the apiserver, inside the service network
        ("forbidden", json!({"host": "kubernetes.default.svc.cluster.local"}), "AddressNotAllowed"),
    ];
    for (name, connection, _) in &devices {
        group.device(name, &format!("FLT-{name}"), connection.clone()).await?;
    }
    group.public_key("unreachable").await?;
    group.public_key("forbidden").await?;

    not_all_stored(&group).await?;
    group.attempt("good", "Changed").await?;
    for (name, _, reason) in &devices {
        let device = group.attempt(name, reason).await?;
        let message = device.status.and_then(|s| s.last_attempt).and_then(|a| a.message).unwrap_or_default();
        assert!(!message.is_empty() && !message.contains("wrong password"), "{name}: {message:?}");
    }
    assert_eq!(stage.snapshots("faults").await?.len(), 1);
    group.erase().await
}

/// Pagers that never end, cut streams, junk and configs without an end are failures with a reason; 5 MB are no problem.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_whole_config_is_not_stored() -> Result<()> {
    let stage = Stage::find().await?;
    let _together = Stage::together().await;
    let group = Group::create(&stage, "strange", 72).await?;
    let cases: [(&str, &[&str]); 6] = [
        ("endless-pager", &["Protocol", "Truncated", "Timeout"]),
        ("cut-stream", &["Truncated"]),
        ("silent", &["Timeout"]),
        ("large", &["Changed"]),
        ("junk", &["Protocol"]),
        ("no-end", &["Truncated"]),
    ];
    let mut routers = Vec::new();
    for (n, (behaviour, _)) in cases.iter().enumerate() {
        let host = format!("172.20.72.{}", 11 + n);
        group.device(behaviour, &format!("STR-{behaviour}"), json!({"host": host})).await?;
        group.public_key(behaviour).await?;
        routers.push(Strange::up(&stage, &host, behaviour)?);
    }
    not_all_stored(&group).await?;
    for (device, results) in &cases {
        let found = until(&format!("{device} has an attempt"), SOON, || async {
            Ok(group.devices().get(device).await?.status.and_then(|s| s.last_attempt))
        })
        .await?;
        assert!(results.contains(&found.result.as_str()), "{device}: {found:?}");
    }
    let stored = stage.snapshots("strange").await?;
    assert_eq!(stored.len(), 1, "{stored:?}");
    assert!(stored[0]["bytes"].as_u64().is_some_and(|bytes| bytes > 4_900_000), "{stored:?}");
    drop(routers);
    group.erase().await
}

/// Backs a group up of which some devices cannot be: the command says so by its exit code.
async fn not_all_stored(group: &Group<'_>) -> Result<()> {
    let answer = group.back_up().await?;
    anyhow::ensure!(answer.code == NOT_STORED, "exit code {}: {}{}", answer.code, answer.out, answer.err);
    Ok(())
}
