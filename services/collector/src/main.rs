//! Wires the collector: settings, logs, signals, and the summary at the end.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, error_span, info};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tsujiban_collector::attempt::Context;
use tsujiban_collector::backup::Backup;
use tsujiban_collector::cluster::Cluster;
use tsujiban_collector::collection;
use tsujiban_collector::network::SystemNetwork;
use tsujiban_collector::random::Random;
use tsujiban_collector::settings::Settings;
use tsujiban_collector::shell::LargeOutputPermits;
use tsujiban_collector::summary::Summary;
use tsujiban_collector::target::Target;
use tsujiban_core::error::chain;
use tsujiban_service::telemetry;

#[global_allocator]
static ALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code of a program that SIGTERM ended: the Job is not complete.
const TERMINATED: u8 = 143;

#[tokio::main]
async fn main() -> ExitCode {
    let settings = Settings::parse();
    let filter = Targets::new().with_default(LevelFilter::WARN).with_target("tsujiban_collector", settings.log_level);
    tracing_subscriber::registry()
        .with(layer().json().flatten_event(true).with_current_span(false).with_span_list(false))
        .with(filter)
        .with(telemetry::trace_ids("tsujiban-collector"))
        .init();
    // one trace for the whole collection, at whatever level is logged: it links the history's entries of its calls
    match collect(&settings).instrument(error_span!("collection")).await {
        Ok(code) => code,
        Err(cause) => {
            let cause = chain(cause.as_ref());
            let text = format!("{}: nothing was backed up: {cause}\n", settings.group);
            error!(error = cause, "nothing was backed up");
            say(&settings, &text, &text).await;
            ExitCode::FAILURE
        }
    }
}

async fn collect(settings: &Settings) -> anyhow::Result<ExitCode> {
    let begin = Instant::now();
    let stop = stop_on_signal()?;
    let random = Arc::new(Random::from_system().ok().context("the machine gives no randomness")?);
    let (context, targets) = tokio::select! {
        prepared = prepare(settings, Arc::clone(&random)) => prepared?,
        () = stop.cancelled() => {
            info!("told to stop before the collection started");
            return Ok(ExitCode::from(TERMINATED));
        }
    };
    info!(group = %settings.group, devices = targets.len(), window_seconds = settings.window_seconds, immediate = settings.immediate, "collection starts");
    let finished = collection::run(&context, targets, &random, begin, &stop).await;
    let summary = Summary { group: &settings.group, finished: &finished, took: begin.elapsed() };
    info!(group = %settings.group, devices = finished.len(), summary = summary.totals(), "collection ended");
    say(settings, &summary.text(), &summary.termination()).await;
    Ok(if summary.interrupted() {
        ExitCode::from(TERMINATED)
    } else if summary.nothing_recorded() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// The devices to back up, and everything needed for it.
async fn prepare(settings: &Settings, random: Arc<Random>) -> anyhow::Result<(Context<SystemNetwork>, Vec<Target>)> {
    // outside a cluster a kubeconfig serves; its errors quote the file and with it secrets, so only the pod's are shown
    let config = match kube::Config::incluster() {
        Ok(config) => config,
        Err(cause) => kube::Config::infer().await.or(Err(cause)).context("the apiserver's address or the pod's token is not known")?,
    };
    let client = kube::Client::try_from(config).context("the apiserver's address or the pod's token cannot be used")?;
    let cluster = Cluster::new(client, &settings.namespace);
    let targets = cluster.targets().await?;
    let backup =
        Backup::connect(&settings.backup_endpoint, &settings.ca_file, &settings.token_file, settings.group.clone(), random).await?;
    let context = Context {
        network: SystemNetwork,
        networks: settings.networks(),
        cluster,
        backup,
        limits: settings.limits(),
        places: LargeOutputPermits::default(),
    };
    collection::check(&context, &settings.backup_endpoint, &targets).await?;
    Ok((context, targets))
}

/// Cancelled by the first SIGTERM or SIGINT.
fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let (mut signals, stop) = (signal(kind).context("signals cannot be received")?, stop.clone());
        tokio::spawn(async move {
            signals.recv().await;
            stop.cancel();
        });
    }
    Ok(stop)
}

/// Writes the summary to standard output, for people who read the log, and to the file that Kubernetes shows in the pod's status.
async fn say(settings: &Settings, text: &str, termination: &str) {
    print!("{text}");
    if let Err(cause) = tokio::fs::write(&settings.termination_log, termination).await {
        tracing::debug!(path = %settings.termination_log.display(), error = %cause, "no termination log");
    }
}
