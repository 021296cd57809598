//! The audit service, as those who write the history call it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Response, Status};
use tsujiban_proto::audit::v1::audit_service_client::AuditServiceClient;
use tsujiban_proto::audit::v1::{AppendRequest, CoveredRequest, CoveredResponse, NewEntry};
use tsujiban_proto::error::{Kind, ServiceError};
use zeroize::Zeroizing;

use super::Ledger;
use crate::trace::Joined;

const CONNECT: Duration = Duration::from_secs(3);
const DEADLINE: Duration = Duration::from_secs(10);
/// A connection is tried this often, so that a dead one is noticed before a call waits for it.
const ALIVE: Duration = Duration::from_secs(20);

/// How the audit service is reached.
#[derive(Debug, Clone, clap::Args)]
pub struct ClientArgs {
    /// The URL of the audit service, such as https://tsujiban-audit.tsujiban-system.svc:8443. Empty: no history is written.
    #[arg(id = "audit-endpoint", long = "audit-endpoint", env = "TSUJIBAN_AUDIT_ENDPOINT", default_value = "")]
    pub endpoint: String,
    /// The certificates of the internal CA. Read again when they change.
    #[arg(id = "audit-ca-file", long = "audit-ca-file", env = "TSUJIBAN_AUDIT_CA_FILE", default_value = "/etc/tsujiban/ca/ca.crt")]
    pub ca_file: PathBuf,
    /// The token for the audit service. Read anew for each call.
    #[arg(
        id = "audit-token-file",
        long = "audit-token-file",
        env = "TSUJIBAN_AUDIT_TOKEN_FILE",
        default_value = "/var/run/secrets/tsujiban/audit/token"
    )]
    pub token_file: PathBuf,
}

/// An address that is none.
#[derive(Debug, thiserror::Error)]
#[error("--audit-endpoint {endpoint:?} cannot be used; write a URL such as https://tsujiban-audit.tsujiban-system.svc:8443")]
pub struct InvalidClient {
    endpoint: String,
    source: tonic::transport::Error,
}

/// Calls the audit service with this workload's token over one connection, which is made when it is first needed and anew when the
/// CA's certificates have changed.
#[derive(Debug)]
pub struct HistoryClient {
    endpoint: Endpoint,
    ca_file: PathBuf,
    token_file: PathBuf,
    connected: Mutex<Option<(Vec<u8>, Channel)>>,
}

impl HistoryClient {
    /// Connects to nobody yet.
    pub fn new(args: &ClientArgs) -> Result<Self, InvalidClient> {
        let endpoint = Endpoint::from_shared(args.endpoint.clone())
            .map_err(|source| InvalidClient { endpoint: args.endpoint.clone(), source })?
            .connect_timeout(CONNECT)
            .timeout(DEADLINE)
            .http2_keep_alive_interval(ALIVE)
            .keep_alive_while_idle(true);
        Ok(Self { endpoint, ca_file: args.ca_file.clone(), token_file: args.token_file.clone(), connected: Mutex::new(None) })
    }

    fn client(&self) -> Result<AuditServiceClient<InterceptedService<Channel, Joined>>, ServiceError> {
        let ca = fs::read(&self.ca_file).map_err(|error| unreadable(&self.ca_file, &error))?;
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = match &*connected {
            Some((known, channel)) if *known == ca => channel.clone(),
            _ => {
                let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&ca));
                let endpoint = self.endpoint.clone().tls_config(tls);
                let unusable = |error: tonic::transport::Error| {
                    ServiceError::new(Kind::Unavailable, "BAD_CA", format!("{} holds no certificates: {error}", self.ca_file.display()))
                };
                let channel = endpoint.map_err(unusable)?.connect_lazy();
                *connected = Some((ca, channel.clone()));
                channel
            }
        };
        Ok(AuditServiceClient::with_interceptor(channel, Joined))
    }

    fn request<T>(&self, message: T) -> Result<Request<T>, ServiceError> {
        let mut request = Request::new(message);
        request.set_timeout(DEADLINE);
        request.metadata_mut().insert("authorization", self.token()?);
        Ok(request)
    }

    fn token(&self) -> Result<MetadataValue<Ascii>, ServiceError> {
        let token = Zeroizing::new(fs::read_to_string(&self.token_file).map_err(|error| unreadable(&self.token_file, &error))?);
        let no_token = |_| ServiceError::new(Kind::Unavailable, "BAD_TOKEN_FILE", format!("{} holds no token", self.token_file.display()));
        let mut bearer: MetadataValue<_> = Zeroizing::new(format!("Bearer {}", token.trim())).parse().map_err(no_token)?;
        bearer.set_sensitive(true);
        Ok(bearer)
    }
}

#[async_trait]
impl Ledger for HistoryClient {
    async fn append(&self, entries: Vec<NewEntry>) -> Result<(), ServiceError> {
        let request = self.request(AppendRequest { entries })?;
        self.client()?.append(request).await.map(drop).map_err(|status| failure(&status))
    }

    async fn covered(&self, request: CoveredRequest) -> Result<CoveredResponse, ServiceError> {
        let request = self.request(request)?;
        self.client()?.covered(request).await.map(Response::into_inner).map_err(|status| failure(&status))
    }
}

fn unreadable(path: &Path, error: &io::Error) -> ServiceError {
    ServiceError::new(Kind::Unavailable, "UNREADABLE", format!("{} cannot be read: {error}", path.display()))
}

fn failure(status: &Status) -> ServiceError {
    let mut error = ServiceError::from(status);
    // of a broken transport, the status itself says next to nothing
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        error.message = format!("{}: {cause}", error.message);
        source = cause.source();
    }
    // too many bytes will always be too many
    if status.code() == Code::OutOfRange {
        error.kind = Kind::Invalid;
    }
    error
}
