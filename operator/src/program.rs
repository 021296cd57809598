//! The operator as a program: it waits for the lease, leads while it holds it, and releases it after its last write.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use kube::config::InferConfigError;
use kube::{Api, Config};
use tokio::sync::watch;
use tsujiban_api::names;
use tsujiban_core::clock::SystemClock;
use tsujiban_sealing::SystemRandom;
use tsujiban_service::telemetry::TelemetryError;
use tsujiban_service::{shutdown, telemetry};

use crate::connection::ConnectionError;
use crate::fence::Fence;
use crate::lease::{Lease, TTL};
use crate::metrics::Metrics;
use crate::run::{Ended, World, lead};
use crate::settings::{InvalidServices, Settings};
use crate::{connection, http};

/// How long to wait for the answers to writes in progress before the lease is released.
const DRAIN: Duration = Duration::from_secs(10);

/// Why the program ended without being told to.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    #[error(transparent)]
    Services(#[from] InvalidServices),
    #[error("logs and traces cannot be written")]
    Telemetry(#[from] TelemetryError),
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    #[error("no way to the apiserver: neither a kubeconfig nor a pod's ServiceAccount")]
    NoApiserver(#[from] InferConfigError),
    #[error("cannot make a client for the apiserver")]
    Client(#[from] ConnectionError),
    #[error("cannot register metrics")]
    Metrics(#[from] prometheus::Error),
    #[error("cannot serve metrics and probes on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("the lease is not claimed any more")]
    Unclaimed,
    #[error("the lease is lost; ending, so that only one replica ever leads")]
    LeaseLost,
    #[error("cannot lead any longer")]
    Ended(#[from] Ended),
}

/// Waits for the lease and leads, until it is told to stop or something is broken.
pub async fn run() -> Result<(), ProgramError> {
    let settings = Settings::parse();
    settings.check_services()?;
    let _telemetry = telemetry::init(names::OPERATOR, &settings.telemetry)?;
    let stop = shutdown::on_signal().map_err(ProgramError::Signals)?;
    let config = Config::infer().await?;
    let identity = format!("{}_{}", std::env::var("HOSTNAME").unwrap_or_default(), uuid::Uuid::now_v7());
    let config = connection::named(config, &identity)?;
    let metrics = Arc::new(Metrics::new()?);
    let kept = metrics.keeper()?;
    let clock = Arc::new(SystemClock);
    let fence = Fence::shut();
    let client = connection::behind(&config, &fence)?;
    let lease = Lease {
        api: Api::namespaced(connection::for_the_lease(config)?, &settings.namespace),
        name: names::OPERATOR.to_owned(),
        identity,
        ttl: TTL,
        clock: clock.clone(),
        fence: fence.clone(),
    };
    let (leads_in, leads) = watch::channel(false);
    tracing::info!(environment = %settings.environment, namespace = settings.namespace, version = env!("CARGO_PKG_VERSION"), "starting; waiting for the lease");

    let world = World { client, clock, random: Arc::new(SystemRandom::new()), metrics: Arc::clone(&metrics), kept, fence: fence.clone() };
    let listen = settings.listen;
    let result = tokio::select! {
        () = async {
            stop.cancelled().await;
            fence.drain(DRAIN).await; // the lease is renewed meanwhile
        } => Ok(()),
        served = http::serve(listen, Arc::clone(&metrics)) => served.map_err(|source| ProgramError::Listen { address: listen, source }),
        () = lease.run(leads_in) => Ok(()),
        ended = lead_while_held(&settings, world, &metrics, leads) => ended,
    };
    if fence.drain(Duration::from_secs(1)).await {
        lease.release().await;
    } else {
        tracing::warn!("a write was not answered: the lease is kept until it runs out, by when the write has happened or never will");
    }
    result
}

/// Leads once the lease is held, and ends when it is held no longer.
async fn lead_while_held(
    settings: &Settings,
    world: World,
    metrics: &Metrics,
    mut leads: watch::Receiver<bool>,
) -> Result<(), ProgramError> {
    leads.wait_for(|leads| *leads).await.map_err(|_| ProgramError::Unclaimed)?;
    tracing::info!("leading");
    metrics.leader.set(1);
    tokio::select! {
        ended = lead(settings, world) => Ok(ended?),
        _ = leads.wait_for(|leads| !*leads) => Err(ProgramError::LeaseLost),
    }
}
