use std::io;
use std::path::PathBuf;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};

use super::S3;

/// A connection, and each try of a call, and a call with all its tries take at most this long.
const CONNECT: Duration = Duration::from_secs(3);
const TRY: Duration = Duration::from_secs(15);
const CALL: Duration = Duration::from_secs(40);
const TRIES: u32 = 3;

/// Where the bucket is.
#[derive(Debug, Clone)]
pub struct S3Settings {
    /// `None` for AWS.
    pub endpoint: Option<String>,
    pub region: String,
    pub bucket: String,
    /// Puts the bucket's name into the path instead of the host name.
    pub path_style: bool,
    /// PEM certificates to trust instead of the public ones.
    pub ca: Option<Vec<u8>>,
}

/// Why the storage cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidS3 {
    #[error("the storage's CA certificates cannot be used; give a PEM file")]
    Ca(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("{path} cannot be read; mount it, or name another place")]
    Read { path: PathBuf, source: io::Error },
}

impl S3 {
    /// Connects to nothing yet: the first call does.
    pub fn new(settings: S3Settings, access_key: &str, secret_key: &str) -> Result<Self, InvalidS3> {
        let trust = match settings.ca {
            Some(pem) => TrustStore::empty().with_pem_certificate(pem),
            None => TrustStore::default(),
        };
        let tls = TlsContext::builder().with_trust_store(trust).build().map_err(|error| InvalidS3::Ca(error.into()))?;
        let http = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(tls).build_https();
        let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(TRY).operation_timeout(CALL).build();
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http)
            .region(Region::new(settings.region))
            .force_path_style(settings.path_style)
            .credentials_provider(Credentials::new(access_key, secret_key, None, None, "files"))
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(TRIES));
        config.set_endpoint_url(settings.endpoint);
        Ok(Self { client: Client::from_conf(config.build()), bucket: settings.bucket })
    }
}
