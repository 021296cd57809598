//! Appending as services do it: over gRPC and TLS.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::future::try_join_all;
use tonic::transport::Channel;
use tsujiban_audit::engine::Addition;
use tsujiban_proto::audit::v1::audit_service_client::AuditServiceClient;
use tsujiban_proto::audit::v1::{AppendRequest, NewEntry};

use super::entries::{BYTES, Entries};
use super::service::Service;
use super::{ACKNOWLEDGED, ROUNDS, RPC, each, median, millis, p99};
use crate::figure::{Figure, Measured, Target};
use crate::load;
use crate::progress::step;
use crate::server::{Server, from_operator};

const CLIENTS: u64 = 8;
const BATCH: u64 = 16;
const GROUPS: u64 = 10;
/// How many batches each client appends.
const BATCHES: u64 = 400;
const ENTRIES: u64 = CLIENTS * BATCHES * BATCH;

/// How many entries a second eight clients append, each one batch after the other.
pub async fn rate(disk: &Path) -> Result<Measured> {
    let (mut called, mut straight) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        step(&format!(
            "{RPC}: {CLIENTS} clients append batches of {BATCH} over TLS, then straight to the engine, round {round} of {ROUNDS}"
        ));
        called.push(super::rate(ENTRIES, by_calls(disk).await?));
        straight.push(super::rate(ENTRIES, straight_to_the_engine(disk).await?));
    }
    let note = format!(
        "{ENTRIES} entries of {BYTES} bytes over {GROUPS} groups by {CLIENTS} clients, each with a TLS connection of its own and one batch of \
         {BATCH} at a time, clients and service in one process; beside the same batches straight to the engine; median of {ROUNDS} rounds each \
         ({}; {})",
        each(&called),
        each(&straight),
    );
    let figure = Figure::new(RPC, median(called), "entries/s", median(straight), note);
    Ok(Measured { figure, target: Target::ValueAtLeast(5_000.0) })
}

async fn clients(server: &Server) -> Result<Vec<AuditServiceClient<Channel>>> {
    let channels = try_join_all((0..CLIENTS).map(|_| server.connect())).await?;
    Ok(channels.into_iter().map(AuditServiceClient::new).collect())
}

async fn by_calls(disk: &Path) -> Result<Duration> {
    let (entries, service) = (Entries::new()?, Service::open(disk).await?);
    let server = service.serve().await?;
    let clients = clients(&server).await?;
    let batch = |n: u64| -> Vec<NewEntry> { (n * BATCH..(n + 1) * BATCH).map(|n| entries.wire(n, GROUPS)).collect() };
    let work = (0..CLIENTS).map(|client| (client * BATCHES..(client + 1) * BATCHES).map(batch).collect()).collect();
    load::closed(work, move |client, entries| {
        let client = clients.get(client).cloned();
        async move {
            let mut client = client.context("a client for each caller")?;
            client.append(from_operator(AppendRequest { entries })).await?;
            Ok(())
        }
    })
    .await
}

async fn straight_to_the_engine(disk: &Path) -> Result<Duration> {
    let (entries, service) = (Entries::new()?, Service::open(disk).await?);
    let batch = |n: u64| (n * BATCH..(n + 1) * BATCH).map(|n| entries.addition(n, GROUPS)).collect::<Result<Vec<Addition>>>();
    let work = (0..CLIENTS).map(|client| (client * BATCHES..(client + 1) * BATCHES).map(batch).collect());
    service.append(work.collect::<Result<_>>()?).await
}

/// How long after its time an entry is acknowledged when there are a thousand a second.
pub async fn acknowledged(disk: &Path) -> Result<Measured> {
    const EVERY: Duration = Duration::from_millis(BATCH);
    const CALLS: u64 = 1500;
    step(&format!("{ACKNOWLEDGED}: a batch of {BATCH} every {} ms over TLS", EVERY.as_millis()));
    let entries = Entries::new()?;
    let service = Service::open(disk).await?;
    let server = service.serve().await?;
    let clients = clients(&server).await?;
    let work = (0..CALLS).map(|n| (n * BATCH..(n + 1) * BATCH).map(|n| entries.wire(n, GROUPS)).collect()).collect();
    let took = load::paced(work, EVERY, |n, entries| {
        let client = clients.get(n % clients.len()).cloned();
        async move {
            let mut client = client.context("a client for each call")?;
            client.append(from_operator(AppendRequest { entries })).await?;
            Ok(())
        }
    })
    .await?;
    drop(server);
    step(&format!("{ACKNOWLEDGED}: the same straight to the engine"));
    let bare = Service::open(disk).await?;
    let batch = |n: u64| (n * BATCH..(n + 1) * BATCH).map(|n| entries.addition(n, GROUPS)).collect::<Result<Vec<Addition>>>();
    let work = (0..CALLS).map(batch).collect::<Result<_>>()?;
    let straight = load::paced(work, EVERY, |_, batch| {
        let engine = bare.audit.engine.clone();
        async move {
            engine.append(batch).await?;
            Ok(())
        }
    })
    .await?;
    let note = format!(
        "99th percentile of {CALLS} calls with {BATCH} entries of {BYTES} bytes, one every {} ms whether or not those before were answered, \
         counted from the moment at which the call was due, over {CLIENTS} TLS connections in turns; beside the same straight to the engine",
        EVERY.as_millis()
    );
    let figure = Figure::new(ACKNOWLEDGED, millis(p99(took)), "ms", millis(p99(straight)), note);
    Ok(Measured { figure, target: Target::ValueAtMost(100.0) })
}
