//! What the scrub costs collectors that store configs meanwhile.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use jiff::SignedDuration;
use prometheus::Registry;
use ring::digest::{SHA256, digest};
use tempfile::TempDir;
use tonic::transport::Channel;
use tsujiban_backup::catalogue::{Catalogue, SCHEMA};
use tsujiban_backup::metrics::Metrics;
use tsujiban_backup::rpc;
use tsujiban_backup::scrub::Scrub;
use tsujiban_backup::service::{Backup, Parts};
use tsujiban_backup::start::start;
use tsujiban_core::clock::{Clock, SystemClock};
use tsujiban_database::Database;
use tsujiban_objects::Memory;
use tsujiban_proto::backup::v1::backup_service_client::BackupServiceClient;
use tsujiban_proto::backup::v1::put_snapshot_request::Part;
use tsujiban_proto::backup::v1::{DeviceRef, PutSnapshotHeader, PutSnapshotRequest, PutSnapshotTrailer};
use tsujiban_proto::lifecycle::v1::PrepareRequest;
use tsujiban_proto::lifecycle::v1::lifecycle_service_client::LifecycleServiceClient;
use tsujiban_sealing::{Keyring, MasterKey, SealedEpochKey, SystemRandom};
use tsujiban_service::writing::WriteState;

use crate::audit::{ROUNDS, as_f64, each, folder, median, millis, one, p99};
use crate::figure::{Figure, Measured, Suite, Target};
use crate::load;
use crate::progress::step;
use crate::server::{GROUP, Server, from_collector, from_operator};

pub const SUITE: Suite = Suite { figures: &[SCRUB], measure: |_| one(cost) };

const SCRUB: &str = "scrub_cost_uploads";
const REGION: &str = "ap-northeast-1";
const CLIENTS: u64 = 8;
const DEVICES: u64 = 500;
/// How many 10,000 devices have after a year in which each changed every day.
const YEAR: u64 = 3_650_000;
const WEEK: Duration = Duration::from_hours(7 * 24);
const EVERY: Duration = Duration::from_millis(20);
const CONFIG_BYTES: usize = 16 << 10;
const HOST_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGhvc3RrZXlob3N0a2V5aG9zdGtleWhvc3RrZXlob3N0";

/// What is there, and what comes.
struct Work {
    /// How many configs there are before.
    size: u64,
    calls: u64,
    rounds: usize,
}

const WORK: Work = Work { size: 1000, calls: 1200, rounds: ROUNDS };

/// The service with a new database on the disk that is measured, and a bucket in memory.
struct Service {
    backup: Arc<Backup>,
    metrics: Metrics,
    server: Server,
    _folder: TempDir,
}

async fn cost(disk: &Path) -> Result<Measured> {
    let Work { calls, rounds, .. } = WORK;
    let (on, off) = both(disk, &WORK).await?;
    let note = format!(
        "99th percentile of {calls} uploads of {} KiB, one every {} ms whether or not those before were answered, over {CLIENTS} TLS connections in \
         turns, with the scrub on, at the pace at which it reads {YEAR} configs within 7 days; beside the same without it; median of {rounds} rounds \
         each in turns ({}; {})",
        CONFIG_BYTES >> 10,
        EVERY.as_millis(),
        each(&on),
        each(&off),
    );
    Ok(Measured { figure: Figure::new(SCRUB, median(on), "ms", median(off), note), target: Target::RatioAtMost(1.2) })
}

/// What each round takes with the scrub and without it, in milliseconds. The scrub runs as it does for a whole year's configs within a week,
/// on fewer: the period is as much shorter as they are fewer.
async fn both(disk: &Path, work: &Work) -> Result<(Vec<f64>, Vec<f64>)> {
    step(&format!("{SCRUB}: {} configs are stored", work.size));
    let service = Service::open(disk).await?;
    let channels = try_join_all((0..CLIENTS).map(|_| service.server.connect())).await?;
    let clients: Vec<_> = channels.into_iter().map(BackupServiceClient::new).collect();
    let (storing, each) = (clients.clone(), work.size / CLIENTS);
    let configs = (0..CLIENTS).map(|client| (client * each..(client + 1) * each).collect()).collect();
    load::closed(configs, move |client, n| put(storing.get(client).cloned(), n)).await?;
    let period = SignedDuration::try_from(WEEK.mul_f64(as_f64(work.size) / as_f64(YEAR)))?;
    let (mut on, mut off, mut next) = (Vec::new(), Vec::new(), work.size);
    for round in 1..=work.rounds {
        step(&format!("{SCRUB}: a config every {} ms, without and with the scrub, round {round} of {}", EVERY.as_millis(), work.rounds));
        off.push(store(&clients, &mut next, work.calls).await?);
        let mut scrub = tokio::spawn(scrub(Arc::clone(&service.backup), period));
        on.push(store(&clients, &mut next, work.calls).await?);
        if scrub.is_finished() {
            (&mut scrub).await??;
        }
        scrub.abort();
    }
    ensure!(service.metrics.scrub_checked.get() > 0, "the scrub read nothing");
    Ok((on, off))
}

impl Service {
    async fn open(disk: &Path) -> Result<Self> {
        let folder = folder(disk)?;
        let (random, clock) = (Arc::new(SystemRandom::new()), Arc::new(SystemClock));
        let master = MasterKey::generate(&random)?;
        let epoch = SealedEpochKey::generate(&master, &random, clock.now())?;
        let metrics = Metrics::new(&Registry::new())?;
        let database = Database::sqlite(&folder.path().join("catalogue.db")).await?;
        database.migrate(&SCHEMA).await?;
        let parts = Parts {
            store: Arc::new(Memory::new(clock.clone(), REGION)),
            catalogue: Catalogue::new(database).await?,
            keyring: Arc::new(Keyring::new(master, &[epoch])?),
            environment: "bench".parse()?,
            metrics: metrics.clone(),
            writing: WriteState::new("tsujiban_backup", &Registry::new(), clock.clone())?,
            clock,
            random,
            history: None,
        };
        let backup = start(parts, &[REGION.to_owned()]).await?;
        let server = Server::start(rpc::routes(&backup), &rpc::SERVICES).await?;
        let group = PrepareRequest { group: GROUP.into(), ..PrepareRequest::default() };
        LifecycleServiceClient::new(server.connect().await?).prepare(from_operator(group)).await?;
        Ok(Self { backup, metrics, server, _folder: folder })
    }
}

/// The 99th percentile in milliseconds.
async fn store(clients: &[BackupServiceClient<Channel>], next: &mut u64, calls: u64) -> Result<f64> {
    let first = *next;
    *next += calls;
    let took = load::paced((first..*next).collect(), EVERY, |call, n| put(clients.get(call % clients.len()).cloned(), n)).await?;
    Ok(millis(p99(took)))
}

/// Stores the n-th config, which is that of no other device and time.
async fn put(client: Option<BackupServiceClient<Channel>>, n: u64) -> Result<()> {
    let mut config = format!("frr version 8.4.4\nfrr defaults traditional\nhostname change-{n}\n");
    while config.len() < CONFIG_BYTES {
        config.push_str("ip route 10.100.1.0/24 172.20.0.1\n");
    }
    config.push_str("end\n");
    let config = config.into_bytes();
    let device = n % DEVICES;
    let header = PutSnapshotHeader {
        device: Some(DeviceRef {
            group: GROUP.into(),
            serial: format!("SN{device}"),
            name: format!("router-{device}"),
            uid: format!("{:032x}", u128::from(device) + 1),
        }),
        driver: "Frr".into(),
        idempotency_key: format!("{:032x}", (1_u128 << 64) + u128::from(n)),
        host_key: HOST_KEY.into(),
        model: "FRR".into(),
        firmware: "8.4.4".into(),
    };
    let trailer = PutSnapshotTrailer { bytes: u64::try_from(config.len())?, sha256: digest(&SHA256, &config).as_ref().to_vec() };
    let parts = [Part::Header(header), Part::Chunk(config), Part::Trailer(trailer)].map(|part| PutSnapshotRequest { part: Some(part) });
    let mut client = client.context("a client for each call")?;
    let stored = client.put_snapshot(from_collector(tokio_stream::iter(parts))).await?.into_inner();
    ensure!(stored.changed, "config {n} was not stored anew");
    Ok(())
}

/// As the service does, until it fails or is aborted.
async fn scrub(backup: Arc<Backup>, period: SignedDuration) -> Result<()> {
    let mut scrub = Scrub::default();
    loop {
        let wait = backup.scrub_step(&mut scrub, period).await?;
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_round_has_both_sides() {
        let disk = tempfile::tempdir().unwrap();
        let (on, off) = both(disk.path(), &Work { size: 16, calls: 20, rounds: 1 }).await.unwrap();
        assert!(on.iter().chain(&off).all(|took| *took > 0.0));
        assert_eq!((on.len(), off.len()), (1, 1));
    }
}
