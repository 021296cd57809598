//! The service in process, over TLS, on an SQLite file, in front of a history that remembers what it is told.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests too

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tsujiban_core::clock::SystemClock;
use tsujiban_database::Database;
use tsujiban_objects::S3Args;
use tsujiban_proto::audit::v1::{Operation, Result as Came};
use tsujiban_proto::error::ServiceError;
use tsujiban_proto::lifecycle::v1::import_request::Part;
use tsujiban_proto::lifecycle::v1::lifecycle_service_client::LifecycleServiceClient;
use tsujiban_proto::lifecycle::v1::{
    DetachRequest, EraseRequest, ExportRequest, GroupReport, GroupState, ImportHeader, ImportRequest, PrepareRequest, ReportRequest,
};
use tsujiban_proto::scratch::v1::scratch_service_client::ScratchServiceClient;
use tsujiban_proto::scratch::v1::{GetValueRequest, IncrementRequest};
use tsujiban_scratch::program::ScratchArgs;
use tsujiban_scratch::service::{Error, Scratch};
use tsujiban_sealing::SystemRandom;
use tsujiban_service::access::Guard;
use tsujiban_service::history::History;
use tsujiban_service::program::{Kit, Program};
use tsujiban_service::settings::{InstallationArgs, SpoolArgs};
use tsujiban_service::testing::{Epochs, FakeAudit, InProcess, KnownCallers, serve_guarded, with_token};
use tsujiban_service::writing::WriteState;

const OPERATOR: &str = "operator";
const STAFF: &str = "hanako";
/// How long the history may take to arrive. Only a test that fails waits for so long.
const PATIENCE: Duration = Duration::from_mins(1);

/// What outlives the process, and what is around it.
struct World {
    dir: TempDir,
    epochs: Epochs,
    audit: FakeAudit,
}

/// The service's process.
struct Stage {
    server: InProcess,
    /// Of this process alone: the one before lets go of its own only in a while.
    _spool: TempDir,
    _stop: DropGuard,
}

impl World {
    async fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), epochs: Epochs::new(), audit: FakeAudit::start().await }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// An empty database; keys and history stay.
    fn lose_database(&mut self) {
        self.dir = tempfile::tempdir().unwrap();
    }

    /// Starts the service as its program does.
    async fn start(&self, environment: &str) -> Result<Stage, Error> {
        let (row, registry, clock) = (Scratch::SERVICE.row(), Registry::new(), Arc::new(SystemClock));
        let args = ScratchArgs { audit: self.audit.args() };
        let ledger = Scratch::ledger(&args).unwrap().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let spool = SpoolArgs { spool_dir: folder.path().join("spool"), spool_bytes: 0 };
        let (history, delivery) = History::open(spool.parts(row.host, Arc::clone(&self.epochs.keyring), ledger), &registry).unwrap();
        let kit = Kit {
            writing: WriteState::new("tsujiban_scratch", &registry, clock.clone()).unwrap(),
            registry: registry.clone(),
            clock,
            random: Arc::new(SystemRandom::new()),
            tables: Scratch::open(Database::sqlite(&self.path().join(row.database)).await.unwrap()).await?,
            folder: Some(self.path().to_owned()),
            store: Arc::new(self.storage().connect().unwrap()),
            keyring: Arc::clone(&self.epochs.keyring),
            installation: InstallationArgs { environment: environment.parse().unwrap(), system_namespace: "tsujiban-system".into() },
            history: Some(history.clone()),
        };
        let scratch = Scratch::start(Scratch::parts(&kit, &args)?).await?;
        let mut guard = Guard::new(Arc::new(callers()), registry);
        guard.services = Scratch::CONTRACTS.to_vec();
        guard.history = Some(history);
        let stop = CancellationToken::new();
        tokio::spawn(delivery.run(stop.clone()));
        Ok(Stage { server: serve_guarded(scratch.routes(), guard).await, _spool: folder, _stop: stop.drop_guard() })
    }

    /// Waits until such an operation is in the history.
    async fn recorded(&self, is_it: impl Fn(&Operation) -> bool) {
        let arrived = async {
            while !self.audit.entries().iter().filter_map(|entry| entry.operation.as_ref()).any(&is_it) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, arrived).await.expect("it is not recorded");
    }

    /// A storage that nobody asks for anything.
    fn storage(&self) -> S3Args {
        for file in ["access-key", "secret-key"] {
            std::fs::write(self.path().join(file), "x").unwrap();
        }
        S3Args {
            endpoint: "https://127.0.0.1:1".into(),
            region: "ap-northeast-1".into(),
            bucket: "none".into(),
            allowed_regions: vec!["ap-northeast-1".into()],
            credentials_dir: self.path().to_owned(),
            ca_file: None,
            path_style: true,
        }
    }
}

fn callers() -> KnownCallers {
    KnownCallers::new().operator(OPERATOR).collector("acme", &"acme".parse().unwrap()).collector("other", &"other".parse().unwrap()).staff(
        STAFF,
        STAFF,
        &[("counters", "get"), ("groups", "erase")],
    )
}

impl Stage {
    fn scratch(&self) -> ScratchServiceClient<Channel> {
        ScratchServiceClient::new(self.server.channel())
    }

    fn lifecycle(&self) -> LifecycleServiceClient<Channel> {
        LifecycleServiceClient::new(self.server.channel())
    }

    async fn increment(&self, token: &str, group: &str) -> Result<u64, Status> {
        let request = IncrementRequest { group: group.into() };
        Ok(self.scratch().increment(with_token(token, request)).await?.into_inner().value)
    }

    async fn value(&self, group: &str) -> Result<u64, Status> {
        Ok(self.scratch().get_value(with_token(STAFF, GetValueRequest { group: group.into() })).await?.into_inner().value)
    }

    async fn prepare(&self, group: &str, expected: &str) -> Result<String, Status> {
        let request = PrepareRequest { group: group.into(), expected_incarnation: expected.into(), expected_log: String::new() };
        Ok(self.lifecycle().prepare(with_token(OPERATOR, request)).await?.into_inner().incarnation)
    }

    async fn detach(&self, group: &str, incarnation: &str) -> Result<(), Status> {
        let request = DetachRequest { group: group.into(), incarnation: incarnation.into() };
        self.lifecycle().detach(with_token(OPERATOR, request)).await.map(drop)
    }

    async fn erase(&self, token: &str, group: &str, incarnation: &str) -> Result<(), Status> {
        let request = EraseRequest { group: group.into(), incarnation: incarnation.into(), ..EraseRequest::default() };
        self.lifecycle().erase(with_token(token, request)).await.map(drop)
    }

    async fn export(&self, group: &str, incarnation: &str) -> Result<Vec<u8>, Status> {
        let request = ExportRequest { group: group.into(), incarnation: incarnation.into() };
        let mut stream = self.lifecycle().export(with_token(OPERATOR, request)).await?.into_inner();
        let mut all = Vec::new();
        while let Some(message) = stream.message().await? {
            all.extend(message.chunk);
        }
        Ok(all)
    }

    /// Sends an export in pieces that are cut anywhere.
    async fn import(&self, group: &str, incarnation: &str, export: &[u8]) -> Result<u64, Status> {
        let header = Part::Header(ImportHeader { group: group.into(), incarnation: incarnation.into() });
        let chunks = export.chunks(7).map(|chunk| Part::Chunk(chunk.to_vec()));
        let messages: Vec<_> = std::iter::once(header).chain(chunks).map(|part| ImportRequest { part: Some(part) }).collect();
        Ok(self.lifecycle().import(with_token(OPERATOR, tokio_stream::iter(messages))).await?.into_inner().records)
    }

    async fn report(&self, group: &str) -> GroupReport {
        let reported = self.lifecycle().report(with_token(OPERATOR, ReportRequest { group: group.into() })).await.unwrap().into_inner();
        assert!(reported.writing.unwrap().able);
        let [report] = reported.groups.try_into().unwrap();
        report
    }
}

fn reason(status: &Status) -> String {
    ServiceError::from(status).reason
}

/// C5, C7: a collector counts for its own group and for no other, and both calls are in the history.
#[tokio::test]
async fn a_collector_counts_for_its_own_group_alone() {
    let world = World::new().await;
    let stage = world.start("test").await.unwrap();
    assert_eq!(reason(&stage.increment("acme", "acme").await.unwrap_err()), "NO_COUNTER", "before it is prepared");
    stage.prepare("acme", "").await.unwrap();
    stage.prepare("other", "").await.unwrap();
    assert_eq!(stage.increment("acme", "acme").await.unwrap(), 1);
    assert_eq!(stage.increment("acme", "acme").await.unwrap(), 2);
    assert_eq!(stage.increment("other", "other").await.unwrap(), 1);
    let refused = stage.increment("acme", "other").await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "OTHER_GROUP"));
    assert_eq!((stage.value("acme").await.unwrap(), stage.value("other").await.unwrap()), (2, 1));
    let refused = stage.increment(STAFF, "acme").await.unwrap_err();
    assert_eq!(reason(&refused), "MISSING_RIGHT", "staff need the verb update");

    for (actor, method, came) in [
        ("collector/acme", "Increment", Came::Allowed),
        ("collector/acme", "Increment", Came::Denied),
        (STAFF, "GetValue", Came::Allowed),
        (STAFF, "Increment", Came::Denied),
    ] {
        let is_it = |done: &Operation| {
            let who = done.actor.as_ref().unwrap().id.as_str();
            done.function == "counters" && (who, done.method.as_str(), done.result()) == (actor, method, came)
        };
        world.recorded(is_it).await;
    }
}

#[tokio::test]
async fn counters_outlive_the_process_and_stay_in_their_environment() {
    let world = World::new().await;
    let stage = world.start("test").await.unwrap();
    let incarnation = stage.prepare("acme", "").await.unwrap();
    stage.increment("acme", "acme").await.unwrap();
    drop(stage);
    let refused = world.start("production").await.err().unwrap();
    assert!(matches!(refused, Error::Other { what: "environment", .. }), "{refused}");
    let stage = world.start("test").await.unwrap();
    assert_eq!(stage.prepare("acme", &incarnation).await.unwrap(), incarnation);
    assert_eq!(stage.value("acme").await.unwrap(), 1);
}

/// C24: what is retained comes back, and what is erased does not.
#[tokio::test]
async fn a_group_is_detached_comes_back_and_is_erased() {
    let world = World::new().await;
    let stage = world.start("test").await.unwrap();
    let incarnation = stage.prepare("acme", "").await.unwrap();
    stage.increment("acme", "acme").await.unwrap();
    assert_eq!(reason(&stage.erase(STAFF, "acme", &incarnation).await.unwrap_err()), "GROUP_LIVES");

    stage.detach("acme", &incarnation).await.unwrap();
    assert_eq!(stage.report("acme").await.state(), GroupState::Retained);
    assert_eq!(stage.value("acme").await.unwrap(), 1, "it is kept");
    assert_eq!(stage.increment("acme", "acme").await.unwrap_err().code(), Code::NotFound, "and does not count");
    let other = stage.prepare("acme", "00000000000000000000000000000000").await.unwrap_err();
    assert_eq!(reason(&other), "OTHER_INCARNATION");
    assert_eq!(stage.prepare("acme", &incarnation).await.unwrap(), incarnation);
    assert_eq!((stage.report("acme").await.state(), stage.increment("acme", "acme").await.unwrap()), (GroupState::Living, 2));

    stage.erase(OPERATOR, "acme", &incarnation).await.unwrap();
    stage.erase(OPERATOR, "acme", &incarnation).await.unwrap();
    let report = stage.report("acme").await;
    assert_eq!((report.state(), report.incarnation.as_str()), (GroupState::Erased, incarnation.as_str()));
    assert!(report.ended_at.is_some() && report.id_free_at.is_some());
    assert_eq!(stage.value("acme").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(reason(&stage.prepare("acme", &incarnation).await.unwrap_err()), "ERASED");
    assert_eq!(reason(&stage.detach("acme", &incarnation).await.unwrap_err()), "ERASED");
    assert_ne!(stage.prepare("acme", "").await.unwrap(), incarnation, "the id is free");
}

/// C23: an export brings a counter back into an empty service, where the operator expects the incarnation that was there.
#[tokio::test]
async fn a_group_is_exported_and_imported_into_an_empty_service() {
    let mut world = World::new().await;
    let stage = world.start("test").await.unwrap();
    let (incarnation, other) = (stage.prepare("acme", "").await.unwrap(), stage.prepare("other", "").await.unwrap());
    for _ in 0..3 {
        stage.increment("acme", "acme").await.unwrap();
    }
    let export = stage.export("acme", &incarnation).await.unwrap();
    assert_eq!(stage.import("acme", &incarnation, &export).await.unwrap(), 0, "it is there");
    assert_eq!(reason(&stage.import("other", &other, &export).await.unwrap_err()), "BAD_EXPORT");
    drop(stage);

    world.lose_database();
    let stage = world.start("test").await.unwrap();
    assert_eq!(stage.prepare("acme", &incarnation).await.unwrap(), incarnation);
    assert_eq!(reason(&stage.import("acme", &incarnation, export.get(..20).unwrap()).await.unwrap_err()), "BAD_EXPORT", "it is cut");
    assert_eq!(stage.import("acme", &incarnation, &export).await.unwrap(), 1);
    assert_eq!(stage.value("acme").await.unwrap(), 3);
    stage.erase(OPERATOR, "acme", &incarnation).await.unwrap();
    assert_eq!(stage.import("acme", &incarnation, &export).await.unwrap_err().code(), Code::NotFound, "what was erased stays so");
}
