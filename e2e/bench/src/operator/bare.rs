//! A process with nothing in it but a store of all Devices: what knowing them costs at least.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::StreamExt;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, ResourceExt};
use tsujiban_api::Device;
use tsujiban_plane::Plane;

use super::process::{Ends, rss};

/// What such a process needed.
pub struct Bare {
    /// MiB.
    pub rss: f64,
    /// From its start until it knew all.
    pub filled: Duration,
}

/// Starts one, and ends it again.
pub async fn store(plane: &Plane) -> Result<Bare> {
    let start = Instant::now();
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--bare-store").env("KUBECONFIG", &plane.admin.kubeconfig).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = Ends(command.spawn()?);
    let pid = child.0.id();
    let stdout = child.0.stdout.take().context("the bare store says nothing")?;
    tokio::task::spawn_blocking(move || BufReader::new(stdout).lines().next()).await?.context("the bare store ended early")??;
    let filled = start.elapsed();
    tokio::time::sleep(Duration::from_secs(10)).await; // as the operator, it is measured at rest
    Ok(Bare { rss: rss(pid)?, filled })
}

/// Is that process: fills the store, says so, and stays until it is killed.
pub fn store_in_this_process() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let api: Api<Device> = Api::all(Client::try_default().await?);
        let (store, writer) = reflector::store();
        let config = watcher::Config::default().page_size(100).streaming_lists();
        let stream = watcher(api, config).default_backoff().modify(|device| device.managed_fields_mut().clear()).reflect(writer);
        tokio::spawn(stream.for_each(|_| std::future::ready(())));
        store.wait_until_ready().await?;
        println!("{}", store.len());
        std::io::stdout().flush()?;
        std::future::pending::<()>().await;
        Ok(())
    })
}
