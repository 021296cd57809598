//! A running service with everything around it, and short words for what callers do.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use prometheus::Registry;
use ring::digest::{SHA256, digest};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tonic::Status;
use tonic::transport::Channel;
use tsujiban_backup::catalogue::{Catalogue, SCHEMA};
use tsujiban_backup::metrics::Metrics;
use tsujiban_backup::rpc;
use tsujiban_backup::scrub::Scrub;
use tsujiban_backup::service::{Backup, Parts};
use tsujiban_backup::start::{StartError, start};
use tsujiban_core::clock::{Clock, ManualClock};
use tsujiban_database::Database;
use tsujiban_database::testing::{Postgres, Tables};
use tsujiban_objects::{Memory, Objects, list_all};
use tsujiban_proto::backup::v1::backup_service_client::BackupServiceClient;
use tsujiban_proto::backup::v1::get_snapshot_response;
use tsujiban_proto::backup::v1::put_snapshot_request::Part;
use tsujiban_proto::backup::v1::{
    DeviceRef, GetSnapshotRequest, ListAttemptsRequest, ListSnapshotsRequest, PutSnapshotHeader, PutSnapshotRequest, PutSnapshotResponse,
    PutSnapshotTrailer, Snapshot, VerifySnapshotRequest, VerifySnapshotResponse,
};
use tsujiban_proto::lifecycle::v1::lifecycle_service_client::LifecycleServiceClient;
use tsujiban_proto::lifecycle::v1::{EraseRequest, EraseResponse, PrepareRequest, ReportRequest, ReportResponse};
use tsujiban_sealing::{Keyring, MasterKey, SealedEpochKey, SystemRandom};
use tsujiban_service::access::Guard;
use tsujiban_service::testing::{InProcess, KnownCallers, serve_guarded, with_token};
use tsujiban_service::writing::WriteState;
use uuid::Uuid;

use crate::POSTGRES;

/// The file of a database.
pub const FILE: &str = "catalogue.db";
pub const REGION: &str = "ap-northeast-1";
pub const OPERATOR: &str = "operator";
pub const STAFF: &str = "hanako";
/// Staff that may not see secrets.
pub const NO_REVEAL: &str = "taro";
pub const HOST_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGhvc3RrZXlob3N0a2V5aG9zdGtleWhvc3RrZXlob3N0";

/// What is outside the process and survives it.
pub struct World {
    pub clock: Arc<ManualClock>,
    pub memory: Arc<Memory>,
    pub master: MasterKey,
    pub disk: Disk,
}

/// Where a database lies: a file in a folder of its own, or a database of the server that all tests of this binary share.
pub enum Disk {
    Sqlite(TempDir),
    Postgres(OnceCell<Tables>),
}

impl Disk {
    /// With nothing on it.
    pub fn new() -> Self {
        if POSTGRES { Self::Postgres(OnceCell::new()) } else { Self::Sqlite(tempfile::tempdir().unwrap()) }
    }

    /// As the service sees it.
    pub async fn open(&self) -> Database {
        match self {
            Self::Sqlite(dir) => Database::sqlite(&dir.path().join(FILE)).await.unwrap(),
            Self::Postgres(_) => self.server().await.service.open().await,
        }
    }

    /// The same with tables of this version.
    pub async fn catalogue(&self) -> Catalogue {
        let database = self.open().await;
        database.prepare(&SCHEMA).await.unwrap();
        Catalogue::new(database).await.unwrap()
    }

    /// Changes the database behind the service's back.
    pub async fn change(&self, statements: &str) {
        let database = match self {
            Self::Sqlite(_) => self.open().await,
            Self::Postgres(_) => self.server().await.superuser.open().await,
        };
        let statements = sqlx::AssertSqlSafe(statements.to_owned());
        tsujiban_database::on!(database.writes(), p => sqlx::raw_sql(statements).execute(p).await.map(drop)).unwrap();
        database.close().await;
    }

    /// The same once more. Nobody may have it open.
    pub async fn copy(&self) -> Self {
        match self {
            Self::Sqlite(dir) => {
                let copy = tempfile::tempdir().unwrap();
                std::fs::copy(dir.path().join(FILE), copy.path().join(FILE)).unwrap();
                Self::Sqlite(copy)
            }
            Self::Postgres(_) => Self::Postgres(OnceCell::new_with(Some(self.server().await.copy(Postgres::shared()).await))),
        }
    }

    /// All that is on it: names and bytes.
    pub async fn files(&self) -> Vec<(String, Vec<u8>)> {
        match self {
            Self::Sqlite(dir) => {
                let paths = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
                paths.map(|path| (path.display().to_string(), std::fs::read(&path).unwrap())).collect()
            }
            Self::Postgres(_) => Postgres::shared().files(&self.server().await.superuser).await,
        }
    }

    async fn server(&self) -> &Tables {
        let Self::Postgres(tables) = self else { panic!("it is a file") };
        tables.get_or_init(|| Postgres::shared().with_tables(&SCHEMA)).await
    }
}

/// The service's process.
pub struct Stage {
    pub world: World,
    pub epochs: Vec<SealedEpochKey>,
    pub backup: Arc<Backup>,
    pub catalogue: Catalogue,
    pub server: InProcess,
}

impl World {
    pub fn new() -> Self {
        let clock = Arc::new(ManualClock::new("2026-11-23T00:00:00Z".parse().unwrap()));
        let memory = Arc::new(Memory::new(clock.clone(), REGION));
        let master = MasterKey::generate(&SystemRandom::new()).unwrap();
        Self { clock, memory, master, disk: Disk::new() }
    }

    pub fn lose_database(&mut self) {
        self.disk = Disk::new();
    }

    pub fn epoch(&self) -> SealedEpochKey {
        SealedEpochKey::generate(&self.master, &SystemRandom::new(), self.clock.now()).unwrap()
    }

    pub async fn parts(&self, epochs: &[SealedEpochKey], store: Arc<dyn Objects>) -> Parts {
        Parts {
            clock: self.clock.clone(),
            random: Arc::new(SystemRandom::new()),
            store,
            catalogue: self.disk.catalogue().await,
            keyring: Arc::new(Keyring::new(self.master.clone(), epochs).unwrap()),
            environment: "test".parse().unwrap(),
            metrics: Metrics::new(&Registry::new()).unwrap(),
            writing: WriteState::new("tsujiban_backup", &Registry::new(), self.clock.clone()).unwrap(),
            history: None,
        }
    }

    pub async fn try_start(self, epochs: Vec<SealedEpochKey>, store: Arc<dyn Objects>) -> Result<Stage, StartError> {
        let parts = self.parts(&epochs, store).await;
        self.run(epochs, parts).await
    }

    pub async fn run(self, epochs: Vec<SealedEpochKey>, parts: Parts) -> Result<Stage, StartError> {
        let (catalogue, history) = (parts.catalogue.clone(), parts.history.clone());
        let backup = start(parts, &[REGION.to_owned()]).await?;
        let mut guard = Guard::new(Arc::new(callers()), Registry::new());
        guard.services = rpc::SERVICES.to_vec();
        guard.history = history;
        let server = serve_guarded(rpc::routes(&backup), guard).await;
        Ok(Stage { world: self, epochs, backup, catalogue, server })
    }

    pub async fn start(self) -> Stage {
        let (epoch, store) = (self.epoch(), self.memory.clone());
        self.try_start(vec![epoch], store).await.unwrap()
    }
}

fn callers() -> KnownCallers {
    let rights: Vec<_> = ["snapshots", "groups", "hostkeys", "catalogue", "attempts"]
        .into_iter()
        .flat_map(|function| ["list", "get", "verify", "update", "erase"].map(|verb| (function, verb)))
        .collect();
    let all: Vec<_> = rights.iter().copied().chain([("snapshots", "reveal")]).collect();
    KnownCallers::new()
        .operator(OPERATOR)
        .collector("acme", &"acme".parse().unwrap())
        .collector("other", &"other".parse().unwrap())
        .staff(STAFF, STAFF, &all)
        .staff(NO_REVEAL, NO_REVEAL, &rights)
}

impl Stage {
    /// A service with nothing in it.
    pub async fn empty() -> Self {
        World::new().start().await
    }

    /// A service with groups `acme` and `other`.
    pub async fn prepared() -> Self {
        let stage = Self::empty().await;
        stage.prepare("acme").await.unwrap();
        stage.prepare("other").await.unwrap();
        stage
    }

    /// The process ends and starts again.
    pub async fn restart(self) -> Self {
        let (world, epochs) = self.stop().await;
        let store = world.memory.clone();
        world.try_start(epochs, store).await.unwrap()
    }

    pub async fn stop(self) -> (World, Vec<SealedEpochKey>) {
        self.catalogue.close().await;
        (self.world, self.epochs)
    }

    pub fn advance(&self, by: SignedDuration) {
        self.world.clock.advance(by);
    }

    pub fn now(&self) -> Timestamp {
        self.world.clock.now()
    }

    pub fn backup(&self) -> BackupServiceClient<Channel> {
        BackupServiceClient::new(self.server.channel())
    }

    pub fn lifecycle(&self) -> LifecycleServiceClient<Channel> {
        LifecycleServiceClient::new(self.server.channel())
    }

    pub async fn prepare(&self, group: &str) -> Result<String, Status> {
        let request = PrepareRequest { group: group.into(), expected_incarnation: String::new(), ..Default::default() };
        Ok(self.lifecycle().prepare(with_token(OPERATOR, request)).await?.into_inner().incarnation)
    }

    pub async fn report(&self) -> ReportResponse {
        self.lifecycle().report(with_token(OPERATOR, ReportRequest::default())).await.unwrap().into_inner()
    }

    pub async fn erase(&self, token: &str, group: &str, incarnation: &str, serial: &str) -> Result<EraseResponse, Status> {
        let (group, incarnation, device_serial) = (group.into(), incarnation.into(), serial.into());
        self.erase_as(token, EraseRequest { group, incarnation, device_serial, device_uid: String::new() }).await
    }

    pub async fn erase_as(&self, token: &str, request: EraseRequest) -> Result<EraseResponse, Status> {
        Ok(self.lifecycle().erase(with_token(token, request)).await?.into_inner())
    }

    /// The collector of `group` stores a config of the device with this serial number.
    pub async fn put(&self, group: &str, serial: &str, config: &[u8]) -> Result<PutSnapshotResponse, Status> {
        self.send(group, put_messages(header(group, serial), config)).await
    }

    pub async fn send(&self, token: &str, messages: Vec<PutSnapshotRequest>) -> Result<PutSnapshotResponse, Status> {
        Ok(self.backup().put_snapshot(with_token(token, tokio_stream::iter(messages))).await?.into_inner())
    }

    pub async fn list(&self, group: &str, device: &str) -> Result<Vec<Snapshot>, Status> {
        let request = ListSnapshotsRequest { group: group.into(), device: device.into(), page_size: 1000, page_token: String::new() };
        Ok(self.backup().list_snapshots(with_token(STAFF, request)).await?.into_inner().snapshots)
    }

    pub async fn get(&self, token: &str, group: &str, id: &str, reveal: bool) -> Result<Vec<u8>, Status> {
        let request = GetSnapshotRequest { group: group.into(), id: id.into(), reveal };
        let mut stream = self.backup().get_snapshot(with_token(token, request)).await?.into_inner();
        let mut config = Vec::new();
        while let Some(message) = stream.message().await? {
            if let Some(get_snapshot_response::Part::Chunk(chunk)) = message.part {
                config.extend(chunk);
            }
        }
        Ok(config)
    }

    /// Stores a config and answers its snapshot's id and the name of its object.
    pub async fn store(&self, group: &str, serial: &str, text: &str) -> (String, String) {
        let stored = self.put(group, serial, &config(text)).await.unwrap();
        assert!(stored.changed, "{serial} {text}");
        let id = stored.snapshot.unwrap().id;
        let objects = list_all(&*self.world.memory, "v1/").await.unwrap();
        let object = objects.into_iter().find(|entry| entry.key.ends_with(&id)).unwrap().key;
        (id, object)
    }

    pub async fn verify(&self, group: &str, id: &str) -> Result<VerifySnapshotResponse, Status> {
        let request = VerifySnapshotRequest { group: group.into(), id: id.into() };
        Ok(self.backup().verify_snapshot(with_token(STAFF, request)).await?.into_inner())
    }

    /// A whole scrub.
    pub async fn scrub(&self) {
        let (mut scrub, day) = (Scrub::default(), SignedDuration::from_hours(24));
        let before = self.backup.whole_scrub().await.unwrap();
        self.advance(day);
        while self.backup.whole_scrub().await.unwrap() == before {
            self.backup.scrub_step(&mut scrub, day).await.unwrap();
        }
    }

    pub async fn attempts(&self, cursor: u64) -> Vec<tsujiban_proto::backup::v1::Attempt> {
        let request = ListAttemptsRequest { cursor, limit: 0 };
        self.backup().list_attempts(with_token(OPERATOR, request)).await.unwrap().into_inner().attempts
    }
}

/// The device with this serial number, as a collector names it.
pub fn device(group: &str, serial: &str) -> DeviceRef {
    DeviceRef { uid: uid(serial, 1), ..shown(group, serial) }
}

/// The same as the service names it.
pub fn shown(group: &str, serial: &str) -> DeviceRef {
    DeviceRef { group: group.into(), serial: serial.into(), name: format!("router-{}", serial.to_lowercase()), uid: String::new() }
}

/// The uid of a Device in its first, second or later life.
pub fn uid(serial: &str, life: u8) -> String {
    let digest = digest(&SHA256, format!("{serial} {life}").as_bytes());
    Uuid::from_slice(&digest.as_ref()[..16]).unwrap().to_string()
}

pub fn header(group: &str, serial: &str) -> PutSnapshotHeader {
    PutSnapshotHeader {
        device: Some(device(group, serial)),
        driver: "Frr".into(),
        idempotency_key: Uuid::from_u128(u128::from_be_bytes(random())).to_string(),
        host_key: HOST_KEY.into(),
        model: "FRR".into(),
        firmware: "8.4.4".into(),
    }
}

fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    tsujiban_sealing::Random::fill(&SystemRandom::new(), &mut bytes).unwrap();
    bytes
}

pub fn put_messages(header: PutSnapshotHeader, config: &[u8]) -> Vec<PutSnapshotRequest> {
    let trailer = PutSnapshotTrailer { bytes: config.len() as u64, sha256: digest(&SHA256, config).as_ref().to_vec() };
    let chunks = config.chunks(64 * 1024).map(|chunk| Part::Chunk(chunk.to_vec()));
    let parts = std::iter::once(Part::Header(header)).chain(chunks).chain([Part::Trailer(trailer)]);
    parts.map(|part| PutSnapshotRequest { part: Some(part) }).collect()
}

/// A whole config with something of its own in it.
pub fn config(of: &str) -> Vec<u8> {
    let text = format!("frr version 8.4.4\nfrr defaults traditional\nhostname {of}\npassword hunter2-{of}\n!\nend\n");
    text.into_bytes()
}
