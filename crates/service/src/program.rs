//! A service from its arguments to its last write. What differs between services is a [`Program`]; all else happens here, once: telemetry,
//! signals, a start that retries, database, keys, storage, history, access, health, jobs, and the order in which they end.

mod check;
mod migrate;
mod probe;

use std::error::Error;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use prometheus::Registry;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tsujiban_core::clock::SystemClock;
use tsujiban_core::workload::Service;
use tsujiban_database::{Database, DatabaseArgs, InvalidDatabase, Schema, SchemaError};
use tsujiban_objects::{InvalidS3, S3, S3Args};
use tsujiban_sealing::{Keyring, SystemRandom};

pub use self::check::CheckArgs;
pub use self::migrate::{MigrateArgs, MigrateError};
pub use self::probe::{ProbeArgs, ProbeError};
use crate::access::Guard;
use crate::health::Health;
use crate::history::spool::SpoolError;
use crate::history::{History, InvalidClient, Ledger};
use crate::identity::KubeAuthenticator;
use crate::retry::{NotStarted, retry_startup};
use crate::server::{self, ServeError, ServerArgs};
use crate::settings::{InstallationArgs, KeyArgs, KeyringError, ScrubArgs, SpoolArgs};
use crate::telemetry::TelemetryError;
use crate::writing::WriteState;
use crate::{shutdown, telemetry};

/// What a service has besides what all services share.
pub trait Program: Send + Sync + Sized + 'static {
    /// Its row in the table of services.
    const SERVICE: Service;
    /// What it does, in one line for `--help`.
    const ABOUT: &'static str;
    /// The full names of the gRPC services that it serves.
    const CONTRACTS: &'static [&'static str];

    /// The arguments of `serve` that no other service has.
    type Args: Args + Clone + Send + Sync;
    /// Its database with tables of this version.
    type Tables: Clone + Send + Sync;
    /// Its parts. Made once, and used again whenever the start is retried.
    type Parts: Clone + Send + Sync;
    /// Why it does not start.
    type Error: Error + Send + Sync + 'static;

    /// Its tables.
    fn schema() -> &'static Schema;

    /// Where operations are recorded, when another service keeps them. `None`: nowhere, or in the service itself.
    fn ledger(_args: &Self::Args) -> Result<Option<Arc<dyn Ledger>>, InvalidClient> {
        Ok(None)
    }

    /// Opens the database, whose tables are of this version. Retried like the start.
    fn open(database: Database) -> impl Future<Output = Result<Self::Tables, Self::Error>>;

    /// Makes its parts from the kit, without network calls.
    fn parts(kit: &Kit<Self::Tables>, args: &Self::Args) -> Result<Self::Parts, Self::Error>;

    /// Checks that database, bucket and keys belong together, and makes the service. Retried while [`is_transient`](Self::is_transient).
    fn start(parts: Self::Parts, allowed_regions: &[String]) -> impl Future<Output = Result<Arc<Self>, Self::Error>>;

    /// Whether a start that failed may succeed in a moment, without human action.
    fn is_transient(error: &Self::Error) -> bool;

    /// The service's own history, when it keeps that itself.
    fn own_ledger(self: &Arc<Self>) -> Option<Arc<dyn Ledger>> {
        None
    }

    /// Gives a service that keeps the history itself, once after the start, the history in which operations on it are recorded.
    fn record_in(&self, _history: History) {}

    fn routes(self: &Arc<Self>) -> Routes;

    /// Whether it can answer calls from the first moment on. It reports later changes to `tasks.health`.
    fn is_able(&self) -> bool {
        true
    }

    /// Runs its jobs until `tasks.stop` is cancelled.
    fn run(self: Arc<Self>, args: Self::Args, tasks: Tasks) -> impl Future<Output = Result<(), Box<dyn Error + Send + Sync>>> + Send;
}

/// What every service is told that keeps groups' data.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs<A: Args> {
    #[command(flatten)]
    pub server: ServerArgs,
    /// Where the database lies, unless it is in PostgreSQL: a volume that outlives the process.
    #[arg(long, env = "TSUJIBAN_DATA_DIR", default_value = "/var/lib/tsujiban")]
    pub data_dir: PathBuf,
    #[command(flatten)]
    pub database: DatabaseArgs,
    #[command(flatten)]
    pub keys: KeyArgs,
    #[command(flatten)]
    pub installation: InstallationArgs,
    #[command(flatten)]
    pub s3: S3Args,
    #[command(flatten)]
    pub scrub: ScrubArgs,
    #[command(flatten)]
    pub spool: SpoolArgs,
    #[command(flatten)]
    pub own: A,
}

#[derive(Debug, Parser)]
#[command(version)]
struct Cli<A: Args> {
    #[command(subcommand)]
    command: Command<A>,
}

#[derive(Debug, Subcommand)]
enum Command<A: Args> {
    /// Runs the service until it is told to stop.
    Serve(Box<ServeArgs<A>>),
    /// PostgreSQL: brings the tables to this version, as the role that owns them, and lets the service's role use them.
    Migrate(Box<MigrateArgs>),
    /// PostgreSQL: fails if the tables say that only newer versions may use them. Changes nothing.
    CheckTables(Box<CheckArgs>),
    /// Checks that a service answers over TLS and refuses a call without a token.
    Probe(ProbeArgs),
}

/// What a service's parts are made of.
pub struct Kit<T> {
    pub registry: Registry,
    pub clock: Arc<SystemClock>,
    pub random: Arc<SystemRandom>,
    pub tables: T,
    /// SQLite: the folder of the database.
    pub folder: Option<PathBuf>,
    pub store: Arc<S3>,
    pub keyring: Arc<Keyring>,
    pub installation: InstallationArgs,
    pub writing: WriteState,
    /// Records the outcome of each call. `None` for a service that keeps the history itself: it gets its history after the start.
    pub history: Option<History>,
}

/// What a service's jobs are given.
pub struct Tasks {
    pub server: ServerArgs,
    pub keys: KeyArgs,
    pub scrub: ScrubArgs,
    pub history: Option<History>,
    pub health: Health,
    pub stop: CancellationToken,
}

/// Why a program ended without being told to stop.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    #[error("logs and traces cannot be written")]
    Telemetry(#[from] TelemetryError),
    #[error("signals cannot be received")]
    Signals(#[source] std::io::Error),
    #[error(transparent)]
    Keys(#[from] KeyringError),
    #[error(transparent)]
    S3(#[from] InvalidS3),
    #[error(transparent)]
    Database(#[from] NotStarted<InvalidDatabase>),
    #[error(transparent)]
    Schema(#[from] NotStarted<SchemaError>),
    #[error(transparent)]
    Migrate(#[from] NotStarted<MigrateError>),
    #[error("this version cannot be installed here")]
    NotAllowed(#[from] SchemaError),
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error(transparent)]
    Client(#[from] InvalidClient),
    #[error("the operation history cannot be written")]
    Spool(#[from] SpoolError),
    #[error("a metric is registered twice; this is a bug")]
    Metrics(#[from] prometheus::Error),
    #[error("the apiserver's address and credentials are not known here")]
    Apiserver(#[source] Box<kube::Error>),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("a task ended unexpectedly; this is a bug")]
    Task(#[from] JoinError),
    #[error(transparent)]
    Service(Box<dyn Error + Send + Sync>),
}

/// Runs the program as it was called.
pub async fn run<P: Program>() -> Result<(), ProgramError> {
    let row = P::SERVICE.row();
    let mut command = Cli::<P::Args>::command().name(row.host).about(P::ABOUT);
    let called = Cli::<P::Args>::from_arg_matches_mut(&mut command.get_matches_mut());
    match called.unwrap_or_else(|error| error.format(&mut command).exit()).command {
        Command::Serve(args) => serve::<P>(*args).await,
        Command::Migrate(args) => {
            let _telemetry = telemetry::init(row.host, &args.telemetry)?;
            let stop = shutdown::on_signal().map_err(ProgramError::Signals)?;
            let role = migrate::migrate(&args, P::schema(), &stop).await?;
            tracing::info!(version = env!("CARGO_PKG_VERSION"), role, "the tables are of this version, and the role may use them");
            Ok(())
        }
        Command::CheckTables(args) => {
            let _telemetry = telemetry::init(row.host, &args.telemetry)?;
            Ok(check::check(&args).await?)
        }
        Command::Probe(args) => {
            probe::probe(&args).await?;
            println!("{} answers, and refuses a call without a token", args.endpoint);
            Ok(())
        }
    }
}

/// Starts the service, serves until it is told to stop, and ends everything in order.
async fn serve<P: Program>(args: ServeArgs<P::Args>) -> Result<(), ProgramError> {
    let row = P::SERVICE.row();
    let _telemetry = telemetry::init(row.host, &args.server.telemetry)?;
    let stop = shutdown::on_signal().map_err(ProgramError::Signals)?;
    let registry = Registry::new();
    let file = args.data_dir.join(row.database);
    let database = retry_startup(&stop, async || args.database.open(&file).await, InvalidDatabase::is_transient).await?;
    retry_startup(&stop, async || database.prepare(P::schema()).await, SchemaError::is_transient).await?;
    let tables = retry_startup(&stop, async || P::open(database.clone()).await, P::is_transient).await.map_err(failed)?;
    let keyring = args.keys.keyring()?;
    let open = |ledger| History::open(args.spool.parts(row.host, Arc::clone(&keyring), ledger), &registry);
    let (mut history, mut delivery) = P::ledger(&args.own)?.map(open).transpose()?.unzip();
    let clock = Arc::new(SystemClock);
    let kit = Kit {
        writing: WriteState::new(&row.host.replace('-', "_"), &registry, clock.clone())?,
        registry: registry.clone(),
        clock,
        random: Arc::new(SystemRandom::new()),
        tables,
        folder: args.database.database_url.is_empty().then(|| args.data_dir.clone()),
        store: Arc::new(args.s3.connect()?),
        keyring: Arc::clone(&keyring),
        installation: args.installation.clone(),
        history: history.clone(),
    };
    let parts = P::parts(&kit, &args.own).map_err(failed)?;
    let service =
        retry_startup(&stop, async || P::start(parts.clone(), &args.s3.allowed_regions).await, P::is_transient).await.map_err(failed)?;
    if let Some(ledger) = service.own_ledger() {
        let (own, its_delivery) = open(ledger)?;
        service.record_in(own.clone());
        (history, delivery) = (Some(own), Some(its_delivery));
    }

    let client = kube::Client::try_default().await.map_err(|error| ProgramError::Apiserver(Box::new(error)))?;
    let authenticator = KubeAuthenticator::new(client, row.audience, &args.installation.system_namespace, SystemClock);
    let mut guard = Guard::new(Arc::new(authenticator), registry);
    guard.services = P::CONTRACTS.to_vec();
    guard.history = history.clone();
    guard.reflection = args.installation.shows_contracts();
    // the delivery stops only after the last call is recorded
    let last = CancellationToken::new();
    let delivery = delivery.map(|delivery| tokio::spawn(delivery.run(last.clone())));
    let health = Health::new();
    health.set_able(service.is_able()).await;
    let tasks = Tasks {
        server: args.server.clone(),
        keys: args.keys.clone(),
        scrub: args.scrub.clone(),
        history,
        health: health.clone(),
        stop: stop.clone(),
    };
    let jobs = tokio::spawn(Arc::clone(&service).run(args.own.clone(), tasks));
    let served = server::serve(&args.server, service.routes(), guard, health, stop.clone()).await;
    stop.cancel();
    jobs.await?.map_err(ProgramError::Service)?;
    last.cancel();
    if let Some(delivery) = delivery {
        delivery.await?;
    }
    // after the last write: a copy of the file is a copy of the database
    database.close().await;
    Ok(served?)
}

fn failed(error: impl Error + Send + Sync + 'static) -> ProgramError {
    ProgramError::Service(Box::new(error))
}
