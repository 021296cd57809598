//! The client of the audit service, for the services that write the history.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tsujiban_client::{Address, ClientError, Connection, Limits, TokenFile, read_ca, service_error};
use tsujiban_core::error::chain;
use tsujiban_proto::audit::v1::audit_service_client::AuditServiceClient;
use tsujiban_proto::audit::v1::{AppendRequest, CoveredRequest, CoveredResponse, NewEntry};
use tsujiban_proto::error::{Kind, ServiceError};

use super::Ledger;
use crate::trace;

const DEADLINE: Duration = Duration::from_secs(10);
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(3),
    answer: Some(DEADLINE),
    keep_alive: Some(Duration::from_secs(20)),
    keep_alive_while_idle: true,
};

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

/// A value of --audit-endpoint that is no usable URL.
#[derive(Debug, thiserror::Error)]
#[error("--audit-endpoint {endpoint:?} cannot be used; write a URL such as https://tsujiban-audit.tsujiban-system.svc:8443")]
pub struct InvalidClient {
    endpoint: String,
    source: ClientError,
}

/// Calls the audit service with this workload's token over one connection, which is made when it is first needed and anew when the
/// CA's certificates have changed.
#[derive(Debug)]
pub struct HistoryClient {
    connection: Connection,
    ca_file: PathBuf,
    token_file: TokenFile,
}

impl HistoryClient {
    /// Does not connect yet.
    pub fn new(args: &ClientArgs) -> Result<Self, InvalidClient> {
        let address = Address::new(args.endpoint.clone(), LIMITS);
        address.check().map_err(|source| InvalidClient { endpoint: args.endpoint.clone(), source })?;
        let token_file = TokenFile::new(args.token_file.clone(), trace::inject);
        Ok(Self { connection: Connection::to(address), ca_file: args.ca_file.clone(), token_file })
    }

    async fn client(&self) -> Result<AuditServiceClient<Channel>, ServiceError> {
        let ca = read_ca(&self.ca_file).await.map_err(|error| not_callable(&error))?;
        let channel = self.connection.channel(Some(&ca), |endpoint: Endpoint| endpoint.connect_lazy());
        Ok(AuditServiceClient::new(channel.map_err(|error| not_callable(&error))?))
    }

    async fn request<T>(&self, message: T) -> Result<Request<T>, ServiceError> {
        let login = self.token_file.login(DEADLINE).await.map_err(|error| not_callable(&error))?;
        Ok(login.request(message))
    }
}

#[async_trait]
impl Ledger for HistoryClient {
    async fn append(&self, entries: Vec<NewEntry>) -> Result<(), ServiceError> {
        let request = self.request(AppendRequest { entries }).await?;
        self.client().await?.append(request).await.map(drop).map_err(|status| failure(&status))
    }

    async fn covered(&self, request: CoveredRequest) -> Result<CoveredResponse, ServiceError> {
        let request = self.request(request).await?;
        self.client().await?.covered(request).await.map(Response::into_inner).map_err(|status| failure(&status))
    }
}

/// A file that calls need is missing or unusable. It may be replaced, so the call is tried again.
fn not_callable(error: &ClientError) -> ServiceError {
    let message = chain(error);
    match error {
        ClientError::CaFile { .. } | ClientError::TokenFile { .. } => ServiceError::new(Kind::Unavailable, "UNREADABLE", message),
        ClientError::NoToken { .. } => ServiceError::new(Kind::Unavailable, "BAD_TOKEN_FILE", message),
        ClientError::Address { .. } | ClientError::Certificates { .. } => ServiceError::new(Kind::Unavailable, "BAD_CA", message),
    }
}

fn failure(status: &Status) -> ServiceError {
    let mut error = service_error(status);
    // a request that is too large stays too large
    if status.code() == Code::OutOfRange {
        error.kind = Kind::Invalid;
    }
    error
}
