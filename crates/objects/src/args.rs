use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::{InvalidS3, S3, S3Settings};

/// Where a service's objects lie.
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

impl S3Args {
    /// Reads the credentials. Connects to nothing yet: the first call does.
    pub fn connect(&self) -> Result<S3, InvalidS3> {
        let text = |name: &str| Ok::<_, InvalidS3>(String::from_utf8_lossy(&read(&self.credentials_dir.join(name))?).trim().to_owned());
        let settings = S3Settings {
            endpoint: Some(self.endpoint.clone()).filter(|endpoint| !endpoint.is_empty()),
            region: self.region.clone(),
            bucket: self.bucket.clone(),
            path_style: self.path_style,
            ca: self.ca_file.as_deref().filter(|file| !file.as_os_str().is_empty()).map(read).transpose()?,
        };
        S3::new(settings, &text("access-key")?, &text("secret-key")?)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, InvalidS3> {
    fs::read(path).map_err(|source| InvalidS3::Read { path: path.to_owned(), source })
}
