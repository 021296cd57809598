//! What the program is told, and how what it needs is made of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use clap::{Args, Parser, Subcommand};
use prometheus::Registry;
use tsujiban_core::clock::SystemClock;
use tsujiban_core::id::EnvironmentName;
use tsujiban_sealing::SystemRandom;
use tsujiban_service::server::ServerArgs;

use crate::catalogue::{Catalogue, CatalogueError};
use crate::keys::files::{self, KeyFileError};
use crate::keys::{KeyError, Keyring};
use crate::metrics::Metrics;
use crate::probe::ProbeArgs;
use crate::service::Parts;
use crate::store::{InvalidS3, S3, S3Settings};

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
    /// Where the catalogue lies: a volume that outlives the process.
    #[arg(long, env = "TSUJIBAN_DATA_DIR", default_value = "/var/lib/tsujiban")]
    pub data_dir: PathBuf,
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

#[derive(Debug, Clone, Args)]
pub struct S3Args {
    /// The URL of the S3 storage. Empty: AWS.
    #[arg(long = "s3-endpoint", env = "TSUJIBAN_S3_ENDPOINT", default_value = "")]
    pub endpoint: String,
    #[arg(long = "s3-region", env = "TSUJIBAN_S3_REGION")]
    pub region: String,
    /// A bucket with Object Lock.
    #[arg(long = "s3-bucket", env = "TSUJIBAN_S3_BUCKET")]
    pub bucket: String,
    /// Where the bucket may be: regions, separated by commas.
    #[arg(
        long = "s3-allowed-regions",
        env = "TSUJIBAN_S3_ALLOWED_REGIONS",
        value_delimiter = ',',
        default_value = "ap-northeast-1,ap-northeast-3"
    )]
    pub allowed_regions: Vec<String>,
    /// Where the Secret with the storage's credentials is mounted: files access-key and secret-key.
    #[arg(long = "s3-credentials-dir", env = "TSUJIBAN_S3_CREDENTIALS_DIR", default_value = "/etc/tsujiban/s3")]
    pub credentials_dir: PathBuf,
    /// PEM certificates of the storage's authority, if it is not a public one.
    #[arg(long = "s3-ca-file", env = "TSUJIBAN_S3_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// Name the bucket in the path of URLs instead of the host name.
    #[arg(long = "s3-path-style", env = "TSUJIBAN_S3_PATH_STYLE")]
    pub path_style: bool,
}

/// Why the service cannot be made of its settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("{path} cannot be read; mount it, or name another place")]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    S3(#[from] InvalidS3),
    #[error("the catalogue cannot be opened; is the volume mounted and writable?")]
    Catalogue(#[from] CatalogueError),
    #[error("a metric is there twice; this is a fault of the program")]
    Metrics(#[from] prometheus::Error),
}

impl ServeArgs {
    /// Reads keys and credentials, and opens the catalogue. Talks to nobody.
    pub async fn parts(&self, registry: &Registry) -> Result<Parts, SettingsError> {
        let master = files::master_key(&self.master_key_dir)?;
        let keyring = Keyring::new(master, &files::epoch_keys(&self.epoch_keys_dir)?)?;
        Ok(Parts {
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom::new()),
            store: Arc::new(self.s3.connect()?),
            catalogue: Catalogue::open(&self.data_dir.join(DATABASE)).await?,
            keyring: Arc::new(keyring),
            environment: self.environment.clone(),
            metrics: Metrics::new(registry)?,
        })
    }
}

impl S3Args {
    fn connect(&self) -> Result<S3, SettingsError> {
        let text = |name: &str| Ok::<_, SettingsError>(String::from_utf8_lossy(&read(&self.credentials_dir.join(name))?).trim().to_owned());
        let settings = S3Settings {
            endpoint: Some(self.endpoint.clone()).filter(|endpoint| !endpoint.is_empty()),
            region: self.region.clone(),
            bucket: self.bucket.clone(),
            path_style: self.path_style,
            ca: self.ca_file.as_deref().filter(|file| !file.as_os_str().is_empty()).map(read).transpose()?,
        };
        Ok(S3::new(settings, &text("access-key")?, &text("secret-key")?)?)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, SettingsError> {
    fs::read(path).map_err(|source| SettingsError::Read { path: path.to_owned(), source })
}
