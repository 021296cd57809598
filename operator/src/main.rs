//! Wires the operator together.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use kube::{Api, Config};
use tokio::sync::watch;
use tsujiban_api::names;
use tsujiban_core::clock::SystemClock;
use tsujiban_operator::fence::Fence;
use tsujiban_operator::lease::{Lease, TTL};
use tsujiban_operator::metrics::Metrics;
use tsujiban_operator::run::{World, lead};
use tsujiban_operator::settings::Settings;
use tsujiban_operator::{connection, http};
use tsujiban_sealing::SystemRandom;
use tsujiban_service::{shutdown, telemetry};

/// How long the answers to what was begun are waited for before the lease is given up.
const DRAIN: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    let _telemetry = telemetry::init(names::OPERATOR, &settings.telemetry)?;
    let stop = shutdown::on_signal().context("cannot listen for signals")?;
    let config = Config::infer().await.context("no way to the apiserver: neither a kubeconfig nor a pod's ServiceAccount")?;
    let identity = format!("{}_{}", std::env::var("HOSTNAME").unwrap_or_default(), uuid::Uuid::now_v7());
    let config = connection::named(config, &identity)?;
    let metrics = Arc::new(Metrics::new().context("cannot register metrics")?);
    let kept = metrics.keeper().context("cannot register metrics")?;
    let clock = Arc::new(SystemClock);
    let fence = Fence::shut();
    let client = connection::behind(&config, &fence).context("cannot make a client for the apiserver")?;
    let lease_client = connection::for_the_lease(config).context("cannot make a client for the lease")?;
    let lease = Lease {
        api: Api::namespaced(lease_client, &settings.namespace),
        name: names::OPERATOR.to_owned(),
        identity,
        ttl: TTL,
        clock: clock.clone(),
        fence: fence.clone(),
    };
    let (leads_in, mut leads) = watch::channel(false);
    tracing::info!(environment = %settings.environment, namespace = settings.namespace, version = env!("CARGO_PKG_VERSION"), "starting; waiting for the lease");

    let world = World { client, clock, random: Arc::new(SystemRandom::new()), metrics: Arc::clone(&metrics), kept, fence: fence.clone() };
    let work = async {
        leads.wait_for(|leads| *leads).await.context("the lease is not claimed any more")?;
        tracing::info!("leading");
        metrics.leader.set(1);
        tokio::select! {
            ended = lead(&settings, world) => ended.context("cannot lead any longer"),
            _ = leads.wait_for(|leads| !*leads) => Err(anyhow::anyhow!("the lease is lost; ending, so that only one replica ever leads")),
        }
    };
    let result = tokio::select! {
        () = async {
            stop.cancelled().await;
            fence.drain(DRAIN).await; // the lease is renewed meanwhile
        } => Ok(()),
        served = http::serve(settings.listen, Arc::clone(&metrics)) => served.with_context(|| format!("cannot serve on {}", settings.listen)),
        () = lease.run(leads_in) => Ok(()),
        ended = work => ended,
    };
    if fence.drain(Duration::from_secs(1)).await {
        lease.release().await;
    } else {
        tracing::warn!("a write was not answered: the lease is kept until it runs out, by when the write has happened or never will");
    }
    result
}
