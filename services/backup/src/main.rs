//! `tsujiban-backup serve`.

use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use tsujiban_backup::catalogue::Catalogue;
use tsujiban_backup::service::Backup;
use tsujiban_backup::settings::{Cli, Command, ServeArgs, SettingsError};
use tsujiban_backup::start::StartError;
use tsujiban_backup::{jobs, probe, rpc, start};
use tsujiban_core::clock::SystemClock;
use tsujiban_core::workload::Service;
use tsujiban_service::access::Guard;
use tsujiban_service::health::Health;
use tsujiban_service::history::Delivery;
use tsujiban_service::identity::KubeAuthenticator;
use tsujiban_service::patience::patiently;
use tsujiban_service::{server, shutdown, telemetry};

#[global_allocator]
static ALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    let (backup, catalogue, delivery) = begin(args, &registry, &stop).await?;
    let client = kube::Client::try_default().await.context("the apiserver's address and credentials are not known here")?;
    let authenticator = KubeAuthenticator::new(client, Service::Backup.row().audience, &args.installation.system_namespace, SystemClock);
    let mut guard = Guard::new(Arc::new(authenticator), registry);
    guard.services = rpc::SERVICES.to_vec();
    guard.history = backup.history();
    guard.reflection = args.installation.shows_contracts();
    // it outlives the last call by as long as that takes to be written down
    let last = CancellationToken::new();
    let delivery = delivery.map(|delivery| tokio::spawn(delivery.run(last.clone())));
    let health = Health::new();
    let work = jobs::run(Arc::clone(&backup), args.keys.clone(), args.scrub.scrub_days, health.clone(), stop.clone());
    let jobs = tokio::spawn(work);
    let served = server::serve(&args.server, rpc::routes(&backup), guard, health, stop.clone()).await;
    stop.cancel();
    jobs.await?;
    last.cancel();
    if let Some(delivery) = delivery {
        delivery.await?;
    }
    // after the last write: a copy of the file is a copy of the database
    catalogue.close().await;
    Ok(served?)
}

/// Starts the service, with patience for a database and a storage that start at the same time.
async fn begin(
    args: &ServeArgs,
    registry: &Registry,
    stop: &CancellationToken,
) -> anyhow::Result<(Arc<Backup>, Catalogue, Option<Delivery>)> {
    let catalogue = patiently(stop, async || args.catalogue().await, SettingsError::is_transient).await?;
    let (parts, delivery) = args.parts(catalogue.clone(), registry)?;
    let backup = patiently(stop, async || start::start(parts.clone(), &args.s3.allowed_regions).await, StartError::is_transient).await?;
    Ok((backup, catalogue, delivery))
}
