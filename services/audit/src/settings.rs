//! What the program is told, and how what it needs is made of it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use prometheus::Registry;
use tsujiban_core::clock::SystemClock;
use tsujiban_database::{Database, DatabaseArgs, InvalidDatabase, is_unavailable};
use tsujiban_history::{EnvironmentOrigin, OriginDomain};
use tsujiban_objects::{InvalidS3, Measured, S3Args, StoreMetrics};
use tsujiban_sealing::SystemRandom;
use tsujiban_service::server::ServerArgs;
use tsujiban_service::settings::{InstallationArgs, KeyArgs, KeyringError, ScrubArgs, SpoolArgs};
use tsujiban_service::writing::WriteState;

use crate::metrics::Metrics;
use crate::service::{Parts, migrations};

const DATABASE: &str = "history.db";
/// PostgreSQL: what lets the service's role use the tables, one function for each version of them.
const GRANTS: [&str; 2] = ["SELECT grant_history($1)", "SELECT grant_archive($1)"];

/// Keeps the operation history of every group.
#[derive(Debug, Parser)]
#[command(name = "tsujiban-audit", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the service until it is told to stop.
    Serve(Box<ServeArgs>),
    /// PostgreSQL: brings the tables to this version, as the role that owns them, and lets the service's role use them.
    Migrate(MigrateArgs),
}

#[derive(Debug, Clone, Args)]
pub struct MigrateArgs {
    /// The database, as the role that owns the tables. That role is not the service's: the service could else change them.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// The role that the service connects as.
    #[arg(long, env = "TSUJIBAN_SERVICE_ROLE")]
    pub service_role: String,
}

#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    /// Where logs are shown as C2SP tlog-tiles: HTTPS, with the certificate of the service.
    #[arg(long, env = "TSUJIBAN_TILES_LISTEN", default_value = "0.0.0.0:8444")]
    pub tiles_listen: SocketAddr,
    /// Where the history lies, unless it is in PostgreSQL: a volume that outlives the process.
    #[arg(long, env = "TSUJIBAN_DATA_DIR", default_value = "/var/lib/tsujiban")]
    pub data_dir: PathBuf,
    #[command(flatten)]
    pub database: DatabaseArgs,
    #[command(flatten)]
    pub keys: KeyArgs,
    #[command(flatten)]
    pub installation: InstallationArgs,
    /// The DNS name that begins the names of logs, root lists and the key. The first start fixes it.
    #[arg(long, env = "TSUJIBAN_ORIGIN_DOMAIN", default_value_t)]
    pub origin_domain: OriginDomain,
    /// The bucket of the root lists, with a credential that may put, list and read, and neither delete nor change a lock.
    #[command(flatten)]
    pub s3: S3Args,
    #[command(flatten)]
    pub scrub: ScrubArgs,
    /// Where what is done to this service waits for its own history.
    #[command(flatten)]
    pub spool: SpoolArgs,
}

/// Why the service cannot be made of its settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error(transparent)]
    Keys(#[from] KeyringError),
    #[error(transparent)]
    S3(#[from] InvalidS3),
    #[error(transparent)]
    Database(#[from] InvalidDatabase),
    #[error("the tables cannot be brought to this version; was a newer version of the service here?")]
    Migration(#[from] sqlx::migrate::MigrateError),
    #[error("the service's role cannot be let in; does it exist?")]
    Grant(#[source] sqlx::Error),
    #[error("migrate is for PostgreSQL; an SQLite file is brought to this version by the service itself")]
    NoPostgres,
    #[error("a metric is there twice; this is a fault of the program")]
    Metrics(#[from] prometheus::Error),
}

impl SettingsError {
    /// Whether it may work in a moment, without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Database(InvalidDatabase::Open(error)) if is_unavailable(error))
    }
}

impl MigrateArgs {
    pub async fn migrate(&self) -> Result<(), SettingsError> {
        if self.database.database_url.is_empty() {
            return Err(SettingsError::NoPostgres);
        }
        let database = self.database.open(&PathBuf::new()).await?;
        database.migrate(&migrations()).await?;
        if let tsujiban_database::Backend::Postgres(pool) = database.writes() {
            for grant in GRANTS {
                sqlx::query(grant).bind(self.service_role.clone()).execute(pool).await.map_err(SettingsError::Grant)?;
            }
        }
        database.close().await;
        Ok(())
    }
}

impl ServeArgs {
    /// Opens the database. A file is brought to this version; PostgreSQL is by `migrate`.
    pub async fn open(&self) -> Result<Database, SettingsError> {
        let database = self.database.open(&self.data_dir.join(DATABASE)).await?;
        if self.database.database_url.is_empty() {
            database.migrate(&migrations()).await?;
        }
        Ok(database)
    }

    /// Reads keys and credentials. Talks to nobody.
    pub fn parts(&self, database: Database, registry: &Registry) -> Result<Parts, SettingsError> {
        let keyring = self.keys.keyring()?;
        let store = Measured::new(Arc::new(self.s3.connect()?), StoreMetrics::new(registry, "tsujiban_audit")?);
        let clock = Arc::new(SystemClock);
        Ok(Parts {
            writing: WriteState::new("tsujiban_audit", registry, clock.clone())?,
            clock,
            random: Arc::new(SystemRandom::new()),
            store: Arc::new(store),
            database,
            folder: self.database.database_url.is_empty().then(|| self.data_dir.clone()),
            keyring,
            environment: EnvironmentOrigin { domain: self.origin_domain.clone(), environment: self.installation.environment.clone() },
            metrics: Metrics::new(registry)?,
        })
    }
}
