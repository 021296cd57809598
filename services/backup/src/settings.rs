//! What the program is told, and how what it needs is made of it.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use prometheus::Registry;
use tsujiban_core::clock::SystemClock;
use tsujiban_core::workload::Service;
use tsujiban_database::{DatabaseArgs, InvalidDatabase, is_unavailable};
use tsujiban_objects::{InvalidS3, S3Args};
use tsujiban_sealing::{Keyring, SystemRandom};
use tsujiban_service::history::spool::SpoolError;
use tsujiban_service::history::{ClientArgs, Delivery, History, HistoryClient, InvalidClient};
use tsujiban_service::server::ServerArgs;
use tsujiban_service::settings::{InstallationArgs, KeyArgs, KeyringError, ScrubArgs, SpoolArgs};
use tsujiban_service::writing::WriteState;

use crate::catalogue::{Catalogue, CatalogueError};
use crate::metrics::Metrics;
use crate::probe::ProbeArgs;
use crate::service::Parts;

const DATABASE: &str = "catalogue.db";

/// Takes configs of devices in, and keeps them sealed and locked.
#[derive(Debug, Parser)]
#[command(name = "tsujiban-backup", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the service until it is told to stop.
    Serve(Box<ServeArgs>),
    /// Checks that a service answers over TLS and refuses a call without a token.
    Probe(ProbeArgs),
}

#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    /// Where the catalogue lies, unless it is in PostgreSQL: a volume that outlives the process.
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
    pub audit: ClientArgs,
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
    #[error("the catalogue cannot be opened")]
    Catalogue(#[from] CatalogueError),
    #[error(transparent)]
    Audit(#[from] InvalidClient),
    #[error("the operation history cannot be written")]
    Spool(#[from] SpoolError),
    #[error("a metric is there twice; this is a fault of the program")]
    Metrics(#[from] prometheus::Error),
}

impl SettingsError {
    /// Whether it may work in a moment, without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Database(InvalidDatabase::Open(error)) => is_unavailable(error),
            Self::Catalogue(error) => error.is_transient(),
            _ => false,
        }
    }
}

impl ServeArgs {
    /// Opens the catalogue, and brings it to this version.
    pub async fn catalogue(&self) -> Result<Catalogue, SettingsError> {
        Ok(Catalogue::open(self.database.open(&self.data_dir.join(DATABASE)).await?).await?)
    }

    /// Reads keys and credentials, and opens the spool. Talks to nobody. The history's part has to be run.
    pub fn parts(&self, catalogue: Catalogue, registry: &Registry) -> Result<(Parts, Option<Delivery>), SettingsError> {
        let keyring = self.keys.keyring()?;
        let store = Arc::new(self.s3.connect()?);
        let metrics = Metrics::new(registry)?;
        let (history, delivery) = self.history(&keyring, registry)?.unzip();
        let clock = Arc::new(SystemClock);
        let parts = Parts {
            writing: WriteState::new("tsujiban_backup", registry, clock.clone())?,
            clock,
            random: Arc::new(SystemRandom::new()),
            store,
            catalogue,
            keyring,
            environment: self.installation.environment.clone(),
            metrics,
            history,
        };
        Ok((parts, delivery))
    }

    fn history(&self, keyring: &Arc<Keyring>, registry: &Registry) -> Result<Option<(History, Delivery)>, SettingsError> {
        if self.audit.endpoint.is_empty() {
            return Ok(None);
        }
        let ledger = Arc::new(HistoryClient::new(&self.audit)?);
        Ok(Some(History::open(self.spool.parts(Service::Backup.row().host, Arc::clone(keyring), ledger), registry)?))
    }
}
