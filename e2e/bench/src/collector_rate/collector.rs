//! Runs the collector: the real program, against the fleet and two stand-ins.

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::process::Command;
use tokio::time::timeout;

use super::SESSIONS;
use super::apiserver::{Apiserver, NAMESPACE};
use super::fleet::{Fleet, NET, PORT};
use super::store::{Endpoint, GROUP, Store, TOKEN};

const PATIENCE: Duration = Duration::from_mins(10);

pub struct Collector {
    program: PathBuf,
    folder: PathBuf,
    apiserver: Apiserver,
    store: Store,
    backup: Endpoint,
}

impl Collector {
    /// Sets up what surrounds the collector, in an empty folder.
    pub async fn new(folder: &Path, fleet: &Fleet) -> Result<Self> {
        let program = env::current_exe()?.with_file_name("tsujiban-collector");
        ensure!(program.exists(), "{} is missing; run `make bench`", program.display());
        let stored = folder.join("stored");
        fs::create_dir(&stored)?;
        let store = Store::new(&stored);
        let backup = store.listen().await?;
        fs::write(folder.join("ca.crt"), &backup.ca)?;
        fs::write(folder.join("token"), TOKEN)?;
        let apiserver = Apiserver::listen(fleet).await?;
        fs::write(folder.join("kubeconfig"), kubeconfig(apiserver.address))?;
        Ok(Self { program, folder: folder.to_owned(), apiserver, store, backup })
    }

    /// One collection, from the start of the program to its end. An error unless each router's config is stored as it is.
    pub async fn collect(&self, fleet: &Fleet) -> Result<Duration> {
        self.store.forget();
        let file = |name: &str| self.folder.join(name);
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("KUBECONFIG", file("kubeconfig"))
            .args(["--group", GROUP, "--namespace", NAMESPACE, "--backup-endpoint", &self.backup.url])
            .arg("--ca-file")
            .arg(file("ca.crt"))
            .arg("--token-file")
            .arg(file("token"))
            .arg("--termination-log")
            .arg(file("termination-log"))
            .args(["--max-concurrent", &SESSIONS.to_string(), "--window-seconds", "1800", "--immediate", "true"])
            .args(["--device-cidrs", &format!("{}/{}", NET.0, NET.1), "--device-ports", &PORT.to_string()])
            .args(["--log-level", "warn"])
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let begin = Instant::now();
        let output = timeout(PATIENCE, command.output()).await.context("the collector does not end")??;
        let took = begin.elapsed();
        let said = || format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "the collector failed ({}):\n{}", output.status, said());
        self.check(fleet).with_context(said)?;
        self.apiserver.all_backed_up();
        Ok(took)
    }

    fn check(&self, fleet: &Fleet) -> Result<()> {
        let held = self.store.held();
        for router in &fleet.routers {
            // the device says `!` between its heading and its config, and that is kept
            let whole = format!("!\n{}", router.config());
            let stored = held.stored.get(&router.name).with_context(|| format!("the config of {} was not stored", router.name))?;
            ensure!(*stored == whole.as_bytes(), "the stored config of {} is not the one that it has", router.name);
        }
        let routers = fleet.routers.len();
        ensure!(held.failed.is_empty() && held.stored.len() == routers, "not exactly the {routers} routers were backed up");
        Ok(())
    }
}

fn kubeconfig(apiserver: SocketAddr) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "bench",
        "clusters": [{ "name": "bench", "cluster": { "server": format!("http://{apiserver}") } }],
        "users": [{ "name": "collector", "user": {} }],
        "contexts": [{ "name": "bench", "context": { "cluster": "bench", "user": "collector", "namespace": NAMESPACE } }],
    })
    .to_string()
}
