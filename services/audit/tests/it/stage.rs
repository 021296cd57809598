//! A running service with everything around it, and short words for what callers do.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::bucket::Bucket;
use jiff::{SignedDuration, Timestamp};
use prometheus::Registry;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::Channel;
use tsujiban_audit::error::Result;
use tsujiban_audit::metrics::Metrics;
use tsujiban_audit::rpc;
use tsujiban_audit::service::{Audit, Parts, SCHEMA};
use tsujiban_core::clock::{Clock, ManualClock};
use tsujiban_core::workload::Service;
use tsujiban_database::Database;
use tsujiban_database::testing::{Postgres, Tables};
use tsujiban_history::{EnvironmentOrigin, OriginDomain};
use tsujiban_objects::{Memory, Objects, list_all};
use tsujiban_proto::access::v1::Operation as Verb;
use tsujiban_proto::audit::v1::audit_service_client::AuditServiceClient;
use tsujiban_proto::audit::v1::{
    Actor, ActorKind, AppendRequest, AppendedEntry, Entry, ListEntriesRequest, NewEntry, Operation, Phase, Result as AuditResult,
};
use tsujiban_proto::time::to_wire;
use tsujiban_sealing::{Keyring, MasterKey, SealedEpochKey, SystemRandom};
use tsujiban_service::testing::{InProcess, KnownCallers, serve_in_process, with_token};
use tsujiban_service::writing::WriteState;

pub const REGION: &str = "ap-northeast-1";
pub const OPERATOR: &str = "operator";
pub const BACKUP: &str = "backup";
pub const STAFF: &str = "hanako";

/// What is outside the process and survives it.
pub struct World {
    pub clock: Arc<ManualClock>,
    pub memory: Arc<Memory>,
    /// What the service sees of the bucket.
    pub bucket: Arc<Bucket>,
    pub master: MasterKey,
    pub epochs: Mutex<Vec<SealedEpochKey>>,
    pub place: Place,
    /// What the service is told to name its logs under.
    pub origin_domain: OriginDomain,
}

pub enum Place {
    Sqlite(TempDir),
    Postgres(Tables),
}

/// The service's process.
pub struct Stage {
    pub audit: Arc<Audit>,
    pub database: Database,
    pub server: InProcess,
}

impl World {
    /// A day of which the database's clock, too, says that it has long expired: 2024-02-20 in Japan.
    pub fn sqlite() -> Self {
        Self::new(Place::Sqlite(tempfile::tempdir().unwrap()))
    }

    pub async fn postgres() -> Self {
        Self::new(Self::new_postgres().await)
    }

    async fn new_postgres() -> Place {
        Place::Postgres(Postgres::shared().with_tables(&SCHEMA).await)
    }

    fn new(place: Place) -> Self {
        let clock = Arc::new(ManualClock::new("2024-02-20T00:00:00Z".parse().unwrap()));
        let memory = Arc::new(Memory::new(clock.clone(), REGION));
        let master = MasterKey::generate(&SystemRandom::new()).unwrap();
        let epochs = Mutex::default();
        let bucket = Arc::new(Bucket::new(memory.clone()));
        let world = Self { clock, memory, bucket, master, epochs, place, origin_domain: OriginDomain::default() };
        world.add_epoch();
        world
    }

    pub fn add_epoch(&self) -> SealedEpochKey {
        let epoch = SealedEpochKey::generate(&self.master, &SystemRandom::new(), self.clock.now()).unwrap();
        self.epochs.lock().unwrap().push(epoch.clone());
        epoch
    }

    pub fn epochs(&self) -> Vec<SealedEpochKey> {
        self.epochs.lock().unwrap().clone()
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn advance(&self, by: SignedDuration) {
        self.clock.advance(by);
    }

    /// To a moment that is not past.
    pub fn advance_to(&self, time: &str) {
        let time: Timestamp = time.parse().unwrap();
        let by = time.duration_since(self.now());
        assert!(!by.is_negative(), "{time} is past");
        self.advance(by);
    }

    pub fn folder(&self) -> Option<&Path> {
        match &self.place {
            Place::Sqlite(folder) => Some(folder.path()),
            Place::Postgres(_) => None,
        }
    }

    /// The root lists in the bucket, in their order.
    pub async fn lists(&self) -> Vec<(String, Vec<u8>)> {
        let mut lists = Vec::new();
        for entry in list_all(&*self.bucket, "roots/").await.unwrap().into_iter().filter(|entry| !entry.delete_marker) {
            lists.push((entry.key.clone(), self.bucket.get(&entry.key, Some(&entry.version)).await.unwrap().to_vec()));
        }
        lists
    }

    /// The database is gone, and a new one is in its place.
    pub async fn lose_database(&mut self) {
        match &self.place {
            Place::Sqlite(_) => self.place = Place::Sqlite(tempfile::tempdir().unwrap()),
            Place::Postgres(_) => self.place = Self::new_postgres().await,
        }
    }

    /// A copy of the database as it is now. The service does not run.
    pub async fn copy_database(&self) -> Place {
        self.copy_of(&self.place).await
    }

    pub async fn copy_of(&self, place: &Place) -> Place {
        match place {
            Place::Sqlite(folder) => {
                let copy = tempfile::tempdir().unwrap();
                // the mark of the newest entry is of the volume, and goes with it
                for file in ["history.db", "history.mark"] {
                    std::fs::copy(folder.path().join(file), copy.path().join(file)).unwrap();
                }
                Place::Sqlite(copy)
            }
            Place::Postgres(tables) => Place::Postgres(tables.copy(Postgres::shared()).await),
        }
    }

    /// The owner of the tables changes them by hand, whatever guards them. The service does not run.
    pub async fn by_hand(&self, statements: &[&str]) {
        match &self.place {
            Place::Sqlite(_) => {
                let database = self.database().await;
                let tsujiban_database::Backend::Sqlite(pool) = database.writes() else { panic!("no SQLite") };
                for trigger in ["entries_stay", "entries_never_change", "nodes_stay", "nodes_never_change", "heads_only_grow", "heads_stay"]
                {
                    sqlx::query(AssertSqlSafe(format!("DROP TRIGGER IF EXISTS {trigger}"))).execute(pool).await.unwrap();
                }
                sqlx::query("PRAGMA foreign_keys = OFF").execute(pool).await.unwrap();
                for statement in statements {
                    sqlx::query(AssertSqlSafe((*statement).to_owned())).execute(pool).await.unwrap();
                }
                database.close().await;
            }
            Place::Postgres(tables) => {
                let mut admin = PgConnection::connect(&tables.superuser.url).await.unwrap();
                sqlx::query("SET session_replication_role = replica").execute(&mut admin).await.unwrap();
                for statement in statements {
                    sqlx::query(AssertSqlSafe(statement.replace("X'", "'\\x"))).execute(&mut admin).await.unwrap();
                }
            }
        }
    }

    pub fn file(&self) -> PathBuf {
        self.folder().unwrap().join("history.db")
    }

    pub async fn database(&self) -> Database {
        match &self.place {
            Place::Sqlite(_) => {
                let database = Database::sqlite(&self.file()).await.unwrap();
                database.migrate(&SCHEMA).await.unwrap();
                database
            }
            Place::Postgres(tables) => tables.service.open().await,
        }
    }

    pub async fn parts(&self) -> Parts {
        Parts {
            clock: self.clock.clone(),
            random: Arc::new(SystemRandom::new()),
            store: self.bucket.clone(),
            database: self.database().await,
            folder: self.folder().map(Path::to_owned),
            keyring: Arc::new(Keyring::new(self.master.clone(), &self.epochs()).unwrap()),
            environment: EnvironmentOrigin { domain: self.origin_domain.clone(), environment: "test".parse().unwrap() },
            metrics: Metrics::new(&Registry::new()).unwrap(),
            writing: WriteState::new("tsujiban_audit", &Registry::new(), self.clock.clone()).unwrap(),
        }
    }

    pub async fn try_start(&self) -> Result<Stage> {
        let parts = self.parts().await;
        let database = parts.database.clone();
        let audit = Audit::open(parts).await?;
        let server = serve_in_process(rpc::routes(&audit), Arc::new(callers())).await;
        Ok(Stage { audit, database, server })
    }

    pub async fn start(&self) -> Stage {
        self.try_start().await.unwrap()
    }
}

pub fn callers() -> KnownCallers {
    let rights: Vec<_> = ["history", "groups"]
        .into_iter()
        .flat_map(|function| ["list", "get", "verify", "update", "erase"].map(|verb| (function, verb)))
        .collect();
    KnownCallers::new()
        .operator(OPERATOR)
        .service(BACKUP, Service::Backup)
        .collector("acme", &"acme".parse().unwrap())
        .collector("other", &"other".parse().unwrap())
        .staff(STAFF, STAFF, &rights)
}

impl Stage {
    pub fn client(&self) -> AuditServiceClient<Channel> {
        AuditServiceClient::new(self.server.channel())
    }

    pub async fn append(&self, entries: Vec<NewEntry>) -> Result<Vec<AppendedEntry>, Status> {
        Ok(self.client().append(with_token(OPERATOR, AppendRequest { entries })).await?.into_inner().entries)
    }

    /// Appends one entry to a group's history.
    pub async fn say(&self, world: &World, group: &str, target: &str) -> u64 {
        self.append(vec![entry(world, group, target)]).await.unwrap()[0].sequence
    }

    /// All entries, newest first, however many pages that takes.
    pub async fn list_by(&self, request: ListEntriesRequest) -> Vec<Entry> {
        let (mut entries, mut request) = (Vec::new(), request);
        loop {
            let page = self.client().list_entries(with_token(STAFF, request.clone())).await.unwrap().into_inner();
            entries.extend(page.entries);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return entries;
            }
        }
    }

    pub async fn list(&self, group: &str) -> Vec<Entry> {
        self.list_by(ListEntriesRequest { group: group.into(), ..Default::default() }).await
    }

    /// The targets in a group's history, oldest first.
    pub async fn targets(&self, group: &str) -> Vec<String> {
        self.list(group).await.into_iter().rev().map(|entry| entry.operation.unwrap().target).collect()
    }

    pub async fn stop(self) {
        drop(self.server);
        drop(self.audit);
        // whatever was begun ends with the connections
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        self.database.close().await;
    }
}

pub fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    tsujiban_sealing::Random::fill(&SystemRandom::new(), &mut bytes).unwrap();
    bytes
}

pub fn operation(world: &World, target: &str) -> Operation {
    Operation {
        id: random().to_vec(),
        phase: Phase::Outcome.into(),
        time: Some(to_wire(world.now())),
        actor: Some(Actor { kind: ActorKind::Staff.into(), id: "hanako".into() }),
        from: "192.0.2.1".into(),
        service: "tsujiban.backup.v1.BackupService".into(),
        method: "GetSnapshot".into(),
        function: "snapshots".into(),
        operation: Verb::View.into(),
        target: target.into(),
        result: AuditResult::Allowed.into(),
        code: "OK".into(),
        reason: String::new(),
        duration_us: 1200,
        request_id: "1".into(),
        trace_id: String::new(),
        detail: HashMap::new(),
    }
}

pub fn entry(world: &World, group: &str, target: &str) -> NewEntry {
    NewEntry { group: group.into(), id: random().to_vec(), operation: Some(operation(world, target)) }
}
