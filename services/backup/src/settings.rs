//! What the program is told, and how what it needs is made of it.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use prometheus::Registry;
use tsujiban_core::clock::SystemClock;
use tsujiban_core::id::EnvironmentName;
use tsujiban_database::{DatabaseArgs, InvalidDatabase, is_unavailable};
use tsujiban_objects::{InvalidS3, S3Args};
use tsujiban_sealing::files::{self, KeyFileError};
use tsujiban_sealing::{KeyError, Keyring, SystemRandom};
use tsujiban_service::server::ServerArgs;

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
    /// Where the Secret with the master key is mounted: files key and id.
    #[arg(long, env = "TSUJIBAN_MASTER_KEY_DIR", default_value = "/etc/tsujiban/master-key")]
    pub master_key_dir: PathBuf,
    /// Where the Secret with the epoch keys is mounted: a file for each.
    #[arg(long, env = "TSUJIBAN_EPOCH_KEYS_DIR", default_value = "/etc/tsujiban/epoch-keys")]
    pub epoch_keys_dir: PathBuf,
    /// The environment's name, such as production. Data of another one is never touched.
    #[arg(long, env = "TSUJIBAN_ENVIRONMENT")]
    pub environment: EnvironmentName,
    /// The namespace in which Tsujiban is installed.
    #[arg(long, env = "TSUJIBAN_SYSTEM_NAMESPACE")]
    pub system_namespace: String,
    #[command(flatten)]
    pub s3: S3Args,
}

/// Why the service cannot be made of its settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    S3(#[from] InvalidS3),
    #[error(transparent)]
    Database(#[from] InvalidDatabase),
    #[error("the catalogue cannot be opened")]
    Catalogue(#[from] CatalogueError),
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

    /// Reads keys and credentials. Talks to nobody.
    pub fn parts(&self, catalogue: Catalogue, registry: &Registry) -> Result<Parts, SettingsError> {
        let master = files::master_key(&self.master_key_dir)?;
        let keyring = Keyring::new(master, &files::epoch_keys(&self.epoch_keys_dir)?)?;
        Ok(Parts {
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom::new()),
            store: Arc::new(self.s3.connect()?),
            catalogue,
            keyring: Arc::new(keyring),
            environment: self.environment.clone(),
            metrics: Metrics::new(registry)?,
        })
    }
}
