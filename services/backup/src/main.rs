//! `tsujiban-backup serve`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use tsujiban_api::names::BACKUP_AUDIENCE;
use tsujiban_backup::service::Backup;
use tsujiban_backup::settings::{Cli, Command, ServeArgs, SettingsError};
use tsujiban_backup::start::StartError;
use tsujiban_backup::{error, jobs, probe, rpc, start};
use tsujiban_core::clock::SystemClock;
use tsujiban_service::health::Health;
use tsujiban_service::identity::KubeAuthenticator;
use tsujiban_service::{server, shutdown, telemetry};

#[global_allocator]
static ALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How often to try a database or a storage that cannot be reached, and how long to wait between tries.
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

/// Starts the service, with patience for a database and a storage that start at the same time.
async fn begin(args: &ServeArgs, registry: &Registry, stop: &CancellationToken) -> anyhow::Result<Arc<Backup>> {
    let catalogue = patiently(stop, async || args.catalogue().await, SettingsError::is_transient).await?;
    let parts = args.parts(catalogue, registry)?;
    patiently(stop, async || start::start(parts.clone(), &args.s3.allowed_regions).await, StartError::is_transient).await
}

async fn patiently<T, E>(
    stop: &CancellationToken,
    attempt: impl AsyncFn() -> Result<T, E>,
    is_transient: fn(&E) -> bool,
) -> anyhow::Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    for _ in 1..TRIES {
        match attempt().await {
            Err(error) if is_transient(&error) => tracing::warn!(error = error::chain(&error), "waiting"),
            done => return Ok(done?),
        }
        tokio::select! {
            () = stop.cancelled() => anyhow::bail!("told to stop while waiting for the database or the storage"),
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
    Ok(attempt().await?)
}
