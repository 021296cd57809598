//! The cluster and the tools that the tests use.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use anyhow::{Context, Result, bail, ensure};
use kube::Client;
use serde_json::Value;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tsujiban_api::names::SYSTEM_NAMESPACE;

use crate::wait::{SOON, until};

/// Tests that break something shared (S3, the operator, a CRD) take the write lock; all others take the read lock.
static SHARED: LazyLock<RwLock<()>> = LazyLock::new(RwLock::default);

/// The exit code of `tsujiban backup now` when the config of a device was not stored.
pub const NOT_STORED: i32 = 6;

/// A cluster with Tsujiban in it.
pub struct Stage {
    pub client: Client,
    pub checkout: PathBuf,
    /// The state folder of our own cluster: logs, etcd's files, routers.
    pub state: PathBuf,
    pub(crate) cli: PathBuf,
}

/// What a command answered.
#[derive(Debug)]
pub struct Answer {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Answer {
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.out).with_context(|| format!("not JSON: {} {}", self.out, self.err))
    }

    /// The answer of a command that must succeed.
    pub fn ok(self) -> Result<Self> {
        ensure!(self.code == 0, "exit code {}: {}{}", self.code, self.out, self.err);
        Ok(self)
    }
}

impl Stage {
    /// Finds the cluster by the environment that `make test-e2e` sets.
    pub async fn find() -> Result<Self> {
        let path = |name: &str| env::var(name).map(PathBuf::from).with_context(|| format!("{name} is not set; run `make test-e2e`"));
        let (state, cli) = (path("TSUJIBAN_CLUSTER_STATE")?, path("TSUJIBAN_CLI")?);
        let checkout = PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().context("checkout")?.to_owned();
        let client = Client::try_default().await.context("no cluster answers; run `make test-e2e`")?;
        client.apiserver_version().await.context("the cluster does not answer; run `make test-e2e`")?;
        Ok(Self { client, checkout, state, cli })
    }

    pub async fn together() -> RwLockReadGuard<'static, ()> {
        SHARED.read().await
    }

    pub async fn alone() -> RwLockWriteGuard<'static, ()> {
        SHARED.write().await
    }

    /// Runs `tsujiban` as the staff member that the tests' release has.
    #[allow(clippy::unused_async)] // so that all that waits reads alike
    pub async fn tsujiban(&self, arguments: &[&str]) -> Result<Answer> {
        run(Command::new(&self.cli).args(["--staff", "tests", "--output", "json"]).args(arguments))
    }

    /// Runs `tsujiban` as a staff member of the tests' release, with output for people.
    #[allow(clippy::unused_async)] // as above
    pub async fn tsujiban_as(&self, staff: &str, arguments: &[&str]) -> Result<Answer> {
        run(Command::new(&self.cli).args(["--staff", staff]).args(arguments))
    }

    /// Runs `tsujiban` with another kubeconfig.
    #[allow(clippy::unused_async)] // as above
    pub async fn tsujiban_with(&self, kubeconfig: &std::path::Path, arguments: &[&str]) -> Result<Answer> {
        run(Command::new(&self.cli).env("KUBECONFIG", kubeconfig).args(["--output", "json"]).args(arguments))
    }

    #[allow(clippy::unused_async)] // as above
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<Answer> {
        run(Command::new("kubectl").args(arguments))
    }

    #[allow(clippy::unused_async)] // as above
    pub async fn helm(&self, arguments: &[&str]) -> Result<Answer> {
        run(Command::new("helm").args(arguments))
    }

    /// Changes values of the release, such as `operator.replicas=2`.
    pub async fn set(&self, values: &[&str]) -> Result<()> {
        let chart = self.checkout.join("charts/tsujiban").to_string_lossy().into_owned();
        let mut arguments = vec!["upgrade", "tsujiban", &chart, "-n", SYSTEM_NAMESPACE, "--reset-then-reuse-values"];
        arguments.extend(values.iter().flat_map(|value| ["--set", *value]));
        self.helm(&arguments).await?.ok()?;
        Ok(())
    }

    /// Waits until the pods of a workload, such as `statefulset/tsujiban-audit`, match its spec and are ready.
    pub async fn rolled_out(&self, workload: &str) -> Result<()> {
        self.kubectl(&["rollout", "status", workload, "-n", SYSTEM_NAMESPACE, "--timeout=120s"]).await?.ok()?;
        Ok(())
    }

    /// The public key of the operation history, which the audit service prints when it starts.
    pub async fn history_key(&self) -> Result<String> {
        until("the audit service says its key", SOON, || async {
            let said = self.kubectl(&["logs", "statefulset/tsujiban-audit", "-n", SYSTEM_NAMESPACE]).await?.ok()?;
            // a verifier key is NAME+HASH+KEY, and its name ends with the environment
            Ok(said.out.lines().find(|line| !line.starts_with('{') && line.matches('+').count() >= 2).map(str::to_owned))
        })
        .await
    }

    /// Starts, stops, pauses or resumes a program of our cluster, such as `s3`.
    #[allow(clippy::unused_async)] // as above
    pub async fn component(&self, verb: &str, name: &str) -> Result<()> {
        let command = self.checkout.join("e2e/cluster/component");
        run(Command::new(command).arg("--state").arg(&self.state).args([verb, name]))?.ok()?;
        Ok(())
    }

    /// Deletes a cluster-scoped object, to be put back as it was.
    pub async fn take_away(&self, kind: &str, name: &str) -> Result<Taken<'_>> {
        let mut object = self.kubectl(&["get", kind, name, "-o", "json"]).await?.ok()?.json()?;
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|key, _| ["name", "labels", "annotations"].contains(&key.as_str()));
        }
        self.kubectl(&["delete", kind, name]).await?.ok()?;
        Ok(Taken { stage: self, object })
    }

    /// The snapshots of a group, newest first.
    pub async fn snapshots(&self, group: &str) -> Result<Vec<Value>> {
        let answer = self.tsujiban(&["snapshots", "list", group]).await?.ok()?.json()?;
        match answer {
            Value::Array(list) => Ok(list),
            Value::Object(mut map) => match map.remove("snapshots") {
                Some(Value::Array(list)) => Ok(list),
                other => bail!("no list of snapshots: {other:?}"),
            },
            other => bail!("no list of snapshots: {other}"),
        }
    }
}

/// The ids of snapshots.
pub fn ids(snapshots: &[Value]) -> Vec<Option<&str>> {
    snapshots.iter().map(|snapshot| snapshot.get("id").and_then(Value::as_str)).collect()
}

/// An object that was deleted, and has to be put back.
#[must_use = "put it back"]
pub struct Taken<'a> {
    stage: &'a Stage,
    object: Value,
}

impl Taken<'_> {
    pub async fn put_back(self) -> Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), self.object.to_string())?;
        self.stage.kubectl(&["create", "-f", &file.path().to_string_lossy()]).await?.ok()?;
        Ok(())
    }
}

fn run(command: &mut Command) -> Result<Answer> {
    let program = command.get_program().to_owned();
    let output = tokio::task::block_in_place(|| command.output()).with_context(|| format!("{}", program.display()))?;
    Ok(Answer {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
