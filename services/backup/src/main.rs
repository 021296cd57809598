//! `tsujiban-backup serve`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use tsujiban_api::names::BACKUP_AUDIENCE;
use tsujiban_backup::service::Backup;
use tsujiban_backup::settings::{Cli, Command, ServeArgs};
use tsujiban_backup::{error, jobs, probe, rpc, start};
use tsujiban_core::clock::SystemClock;
use tsujiban_service::health::Health;
use tsujiban_service::identity::KubeAuthenticator;
use tsujiban_service::{server, shutdown, telemetry};

#[global_allocator]
static ALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long to wait for a storage that cannot be reached, and between tries.
const TRIES: u32 = 60;
const PAUSE: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Serve(args) => serve(&args).await,
        Command::Probe(args) => {
            probe::probe(&args).await?;
            println!("{} answers, and refuses a call without a token", args.endpoint);
            Ok(())
        }
    }
}

async fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    let _telemetry = telemetry::init("tsujiban-backup", &args.server.telemetry)?;
    let stop = shutdown::on_signal()?;
    let registry = Registry::new();
    let backup = begin(args, &registry, &stop).await?;
    let client = kube::Client::try_default().await.context("the apiserver's address and credentials are not known here")?;
    let authenticator = KubeAuthenticator::new(client, BACKUP_AUDIENCE, &args.system_namespace, SystemClock);
    let jobs = tokio::spawn(jobs::run(Arc::clone(&backup), args.epoch_keys_dir.clone(), stop.clone()));
    let served = server::serve(&args.server, rpc::routes(&backup), Arc::new(authenticator), registry, Health::new(), stop.clone()).await;
    stop.cancel();
    jobs.await?;
    Ok(served?)
}

/// Starts the service, with patience for a storage that starts at the same time.
async fn begin(args: &ServeArgs, registry: &Registry, stop: &CancellationToken) -> anyhow::Result<Arc<Backup>> {
    let parts = args.parts(registry).await?;
    for _ in 1..TRIES {
        match start::start(parts.clone(), &args.s3.allowed_regions).await {
            Err(error) if error.is_transient() => tracing::warn!(error = error::chain(&error), "waiting for the storage"),
            started => return Ok(started?),
        }
        tokio::select! {
            () = stop.cancelled() => anyhow::bail!("told to stop while waiting for the storage"),
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
    Ok(start::start(parts, &args.s3.allowed_regions).await?)
}
