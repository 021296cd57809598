//! Wires the operator together.

use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser as _;
use kube::{Api, Client, Config};
use tokio::sync::watch;
use tsujiban_api::names;
use tsujiban_core::clock::SystemClock;
use tsujiban_operator::http;
use tsujiban_operator::lease::{Lease, TTL};
use tsujiban_operator::metrics::Metrics;
use tsujiban_operator::run::{World, lead};
use tsujiban_operator::settings::Settings;
use tsujiban_sealing::SystemRandom;
use tsujiban_service::{shutdown, telemetry};

#[global_allocator]
static ALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    let _telemetry = telemetry::init(names::OPERATOR, &settings.telemetry)?;
    let stop = shutdown::on_signal().context("cannot listen for signals")?;
    let mut config = Config::infer().await.context("no way to the apiserver: neither a kubeconfig nor a pod's ServiceAccount")?;
    let metrics = Arc::new(Metrics::new().context("cannot register metrics")?);
    let clock = Arc::new(SystemClock);
    let client = Client::try_from(config.clone()).context("cannot make a client for the apiserver")?;
    config.default_retry = false; // the lease has a deadline of its own
    let lease_client = Client::try_from(config).context("cannot make a client for the lease")?;
    let lease = Lease {
        api: Api::namespaced(lease_client, &settings.namespace),
        name: names::OPERATOR.to_owned(),
        identity: format!("{}_{}", std::env::var("HOSTNAME").unwrap_or_default(), uuid::Uuid::now_v7()),
        ttl: TTL,
        clock: clock.clone(),
    };
    let (leads_in, mut leads) = watch::channel(false);
    tracing::info!(environment = %settings.environment, namespace = settings.namespace, version = env!("CARGO_PKG_VERSION"), "starting; waiting for the lease");

    let world = World { client, clock, random: Arc::new(SystemRandom::new()), metrics: Arc::clone(&metrics) };
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
        () = stop.cancelled() => Ok(()),
        served = http::serve(settings.listen, Arc::clone(&metrics)) => served.with_context(|| format!("cannot serve on {}", settings.listen)),
        () = lease.run(leads_in) => Ok(()),
        ended = work => ended,
    };
    lease.release().await;
    result
}
