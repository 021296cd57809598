//! What is secret is readable neither on the control plane's disk nor in a log.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{ListParams, LogParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tsujiban_e2e::manifests::{Group, password_secret};
use tsujiban_e2e::router::{Login, Router};
use tsujiban_e2e::stage::Stage;

const PASSWORD: &str = "kept-secret-passw0rd";
const SITE: &str = "kept-secret-site-text";
const CONTROL: &str = "control-text-that-is-not-secret";
const CONFIG: &str = "kept-secret-config-text";

/// C22: with a control that shows the search would find what is there.
#[tokio::test(flavor = "multi_thread")]
async fn neither_in_etcd_nor_in_logs() -> Result<()> {
    let stage = Stage::find().await?;
    let _together = Stage::together().await;
    let group = Group::create(&stage, "kept-secret", 101).await?;
    group.apply(json!({"displayName": SITE})).await?;
    password_secret(&stage, &group.namespace, "core-1", PASSWORD).await?;
    let router = Router::up(&stage, "sec-1", "172.20.101.11", &Login::Password(PASSWORD))?;
    router.configure(&["interface lo", &format!("description {CONFIG}")])?;
    let connection = json!({"host": "172.20.101.11", "credentialsSecretRef": {"name": "core-1"}, "hostKey": router.host_key});
    group.device("core-1", "SEC-1", connection).await?;
    let maps: Api<ConfigMap> = Api::namespaced(stage.client.clone(), "default");
    let control: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "kept-secret"}, "data": {"text": CONTROL}}))?;
    maps.create(&PostParams::default(), &control).await?;
    group.back_up().await?.ok()?;
    group.attempt("core-1", "Changed").await?;

    let etcd = files(&stage.state.join("etcd"))?;
    assert!(found(&etcd, CONTROL)?, "the search finds what is not encrypted");
    for secret in [PASSWORD, SITE, CONFIG] {
        assert!(!found(&etcd, secret)?, "{secret} is readable in etcd's files");
    }
    let volumes = files(&stage.state.join("volumes"))?;
    assert!(!volumes.is_empty(), "the backup service has a volume");
    for secret in [PASSWORD, CONFIG, "SEC-1"] {
        assert!(!found(&volumes, secret)?, "{secret} is readable on a volume");
    }
    let logs = logs(&stage, &["tsujiban-system", &group.namespace]).await?;
    assert!(logs.contains("kept-secret"), "the logs speak of the group: {logs}");
    for secret in [PASSWORD, CONFIG, "PRIVATE KEY"] {
        assert!(!logs.contains(secret), "{secret} is in a log");
    }
    maps.delete("kept-secret", &kube::api::DeleteParams::default()).await?;
    drop(router);
    group.erase().await
}

async fn logs(stage: &Stage, namespaces: &[&str]) -> Result<String> {
    let mut all = String::new();
    for namespace in namespaces {
        let pods: Api<Pod> = Api::namespaced(stage.client.clone(), namespace);
        for pod in pods.list(&ListParams::default()).await? {
            all.push_str(&pods.logs(&pod.name_any(), &LogParams::default()).await?);
        }
    }
    Ok(all)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn found(files: &[PathBuf], text: &str) -> Result<bool> {
    for file in files {
        let bytes = match fs::read(file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue, // a log that was cut meanwhile
            Err(error) => return Err(error.into()),
        };
        if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
            return Ok(true);
        }
    }
    Ok(false)
}
