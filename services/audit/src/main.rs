//! `tsujiban-audit serve` and `tsujiban-audit migrate`.

use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tsujiban_audit::engine::Standing;
use tsujiban_audit::scrub::Scrub;
use tsujiban_audit::service::Audit;
use tsujiban_audit::settings::{Cli, Command, ServeArgs, SettingsError};
use tsujiban_audit::start::StartError;
use tsujiban_audit::{jobs, rpc, start, tiles};
use tsujiban_core::clock::SystemClock;
use tsujiban_core::workload::Service;
use tsujiban_service::access::Guard;
use tsujiban_service::health::Health;
use tsujiban_service::history::History;
use tsujiban_service::identity::KubeAuthenticator;
use tsujiban_service::patience::patiently;
use tsujiban_service::tls::Certificate;
use tsujiban_service::{server, shutdown, telemetry};

#[global_allocator]
static ALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Serve(args) => serve(&args).await,
        Command::Migrate(args) => {
            args.migrate().await?;
            println!("the tables are of this version, and {} may use them", args.service_role);
            Ok(())
        }
    }
}

async fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    let _telemetry = telemetry::init("tsujiban-audit", &args.server.telemetry)?;
    let stop = shutdown::on_signal()?;
    let registry = Registry::new();
    let database = patiently(&stop, async || args.open().await, SettingsError::is_transient).await?;
    let parts = args.parts(database.clone(), &registry)?;
    let keyring = Arc::clone(&parts.keyring);
    let audit = patiently(&stop, async || start::start(parts.clone(), &args.s3.allowed_regions).await, StartError::is_transient).await?;
    println!("{}", audit.verifier());
    let ledger: Arc<Audit> = Arc::clone(&audit);
    let (own, delivery) = History::open(args.spool.parts(Service::Audit.row().host, keyring, ledger), &registry)?;
    audit.record_in(own.clone());
    let client = kube::Client::try_default().await.context("the apiserver's address and credentials are not known here")?;
    let authenticator = KubeAuthenticator::new(client, Service::Audit.row().audience, &args.installation.system_namespace, SystemClock);
    let mut guard = Guard::new(Arc::new(authenticator), registry);
    guard.services = rpc::SERVICES.to_vec();
    guard.history = Some(own.clone());
    guard.reflection = args.installation.shows_contracts();
    // it outlives the last call by as long as that takes to be written down
    let last = CancellationToken::new();
    let delivery = tokio::spawn(delivery.run(last.clone()));
    let health = Health::new();
    health.set_able(audit.engine.standing() == Standing::Sound).await;
    let scrub = Scrub::new(args.scrub.scrub_days).healing_from(audit.clone());
    let jobs = tokio::spawn(jobs::run(Arc::clone(&audit), own, args.keys.clone(), scrub, health.clone(), stop.clone()));
    let tiles = tokio::spawn(show_tiles(Arc::clone(&audit), args.clone(), stop.clone()));
    let served = server::serve(&args.server, rpc::routes(&audit), guard, health, stop.clone()).await;
    stop.cancel();
    jobs.await?;
    tiles.await??;
    last.cancel();
    delivery.await?;
    // after the last write: a copy of the file is a copy of the database
    database.close().await;
    Ok(served?)
}

/// Shows logs under the same certificate as the service, on a port of their own.
async fn show_tiles(audit: Arc<Audit>, args: ServeArgs, stop: CancellationToken) -> anyhow::Result<()> {
    // the server's own one is the one that is measured
    let certificate = Certificate::new(&args.server.tls_dir, &Registry::new())?;
    certificate.wait(&stop).await;
    if stop.is_cancelled() {
        return Ok(());
    }
    let listener = TcpListener::bind(args.tiles_listen).await.with_context(|| format!("cannot listen on {}", args.tiles_listen))?;
    let following = (certificate.clone(), stop.clone());
    tokio::spawn(async move { following.0.follow(following.1).await });
    let mut config = (*certificate.server_config()?).clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    tiles::serve(audit, listener, TlsAcceptor::from(Arc::new(config)), stop).await;
    Ok(())
}
