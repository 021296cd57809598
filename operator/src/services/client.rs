//! A service that holds customer data, as the operator calls it.

use std::path::PathBuf;
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tsujiban_client::{Address, ClientError, Connection, Limits, TokenFile, service_error};
use tsujiban_core::id::{GroupId, IncarnationId, InvalidId, SerialNumber};
use tsujiban_core::workload::Service;
use tsujiban_history::LogId;
use tsujiban_proto::audit::v1::audit_service_client::AuditServiceClient;
use tsujiban_proto::audit::v1::{AppendRequest, AppendResponse, CoveredRequest, CoveredResponse, NewEntry};
use tsujiban_proto::backup::v1::backup_service_client::BackupServiceClient;
use tsujiban_proto::backup::v1::{ListAttemptsRequest, ListAttemptsResponse};
use tsujiban_proto::error::{Kind, ServiceError};
use tsujiban_proto::lifecycle::v1::lifecycle_service_client::LifecycleServiceClient;
use tsujiban_proto::lifecycle::v1::{DetachRequest, EraseRequest, PrepareRequest, ReportRequest, ReportResponse};
use tsujiban_service::history::HISTORY_UNAVAILABLE;
use tsujiban_service::trace::inject;

use crate::fence::{Fence, Fenced, Pass, TRANSIT};

const DEADLINE: Duration = Duration::from_secs(10);
const LIMITS: Limits = Limits { connect: Duration::from_secs(3), answer: Some(DEADLINE), keep_alive: None, keep_alive_while_idle: false };

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("the {0} is not installed")]
    NotInstalled(Service),
    #[error("the internal CA is not made yet")]
    NoCa,
    #[error("the {service} cannot be called")]
    Client {
        service: Service,
        #[source]
        source: ClientError,
    },
    #[error("the {service}: {error}")]
    Service { service: Service, error: ServiceError },
    #[error("the {service} answered an incarnation that is none")]
    Answer {
        service: Service,
        #[source]
        source: InvalidId,
    },
    #[error("the {service} answered a log of the operation history that is none")]
    AnswerLog {
        service: Service,
        #[source]
        source: tsujiban_history::id::InvalidId,
    },
    #[error("the {service} keeps the group's operation history in log {answered}, and the group's namespace names log {expected}")]
    OtherLog { service: Service, answered: LogId, expected: LogId },
    #[error("the {service} keeps the group under incarnation {answered}, not under {expected}; it has data of another life of the group")]
    OtherIncarnation { service: Service, answered: IncarnationId, expected: IncarnationId },
}

impl CallError {
    /// The reason, if the service refused the call, and will refuse it again until something changes.
    pub fn refusal(&self) -> Option<String> {
        match self {
            Self::Service { error, .. } if matches!(error.kind, Kind::Precondition | Kind::Invalid | Kind::Denied) => {
                Some(error.message.clone())
            }
            Self::OtherIncarnation { .. } | Self::OtherLog { .. } => Some(self.to_string()),
            _ => None,
        }
    }

    /// Whether the service refused the call only because the history could not record it.
    pub fn lacks_history(&self) -> bool {
        matches!(self, Self::Service { error, .. } if error.reason == HISTORY_UNAVAILABLE)
    }

    /// Whether the service does not know the named object.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Service { error, .. } if error.kind == Kind::NotFound)
    }
}

/// Calls one service with the operator's token, over TLS by the internal CA. Connects when it is first needed, and again
/// when the CA's certificates have changed.
#[derive(Debug)]
pub struct ServiceClient {
    pub service: Service,
    ready: Connection,
    /// A connection that also reaches pods that are not ready, to ask them why. `None`: reports use `ready`.
    direct: Option<Connection>,
    token_file: TokenFile,
    ca_bundle: watch::Receiver<Option<String>>,
    fence: Fence,
}

/// How a service holds a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    pub incarnation: IncarnationId,
    /// The log of the group's operation history; from the audit service alone.
    pub log: Option<LogId>,
}

impl ServiceClient {
    pub fn new(service: Service, endpoint: String, token_file: PathBuf, ca_bundle: watch::Receiver<Option<String>>) -> Self {
        let ready = Connection::to(Address::new(endpoint, LIMITS));
        Self { service, ready, direct: None, token_file: TokenFile::new(token_file, inject), ca_bundle, fence: Fence::open() }
    }

    /// Asks for reports by an endpoint that leads to pods that are not ready, too.
    #[must_use]
    pub fn reporting_at(self, endpoint: Option<String>) -> Self {
        // both connections verify the same TLS name: older certificates lack the direct one
        let name = self.ready.address().host();
        let direct = endpoint.map(|url| Address::new(url, LIMITS).named(name.unwrap_or_default()));
        Self { direct: direct.map(Connection::to), ..self }
    }

    /// Sends nothing when the fence is shut.
    #[must_use]
    pub fn behind(self, fence: Fence) -> Self {
        Self { fence, ..self }
    }

    /// Makes the service ready for a group and returns its incarnation: the expected one; without one, the living one if there is one, else
    /// a new one. The same applies to the log of the group's history, which only the audit service has.
    pub async fn prepare(
        &self,
        group: &GroupId,
        expected: Option<&IncarnationId>,
        expected_log: Option<&LogId>,
    ) -> Result<Prepared, CallError> {
        let message = PrepareRequest {
            group: group.to_string(),
            expected_incarnation: expected.map(ToString::to_string).unwrap_or_default(),
            expected_log: expected_log.map(ToString::to_string).unwrap_or_default(),
        };
        let (mut client, (request, pass)) = (self.lifecycle()?, self.write(message).await?);
        let answer = self.written(pass, client.prepare(request)).await?;
        let service = self.service;
        let incarnation: IncarnationId = answer.incarnation.parse().map_err(|source| CallError::Answer { service, source })?;
        if let Some(expected) = expected.filter(|expected| **expected != incarnation) {
            return Err(CallError::OtherIncarnation { service, answered: incarnation, expected: expected.clone() });
        }
        let log = Some(answer.log).filter(|log| !log.is_empty()).map(|log| log.parse::<LogId>()).transpose();
        let log = log.map_err(|source| CallError::AnswerLog { service, source })?;
        match (log, expected_log) {
            (Some(answered), Some(expected)) if answered != *expected => {
                Err(CallError::OtherLog { service, answered, expected: *expected })
            }
            (log, _) => Ok(Prepared { incarnation, log }),
        }
    }

    /// Notes that the group's Tenant has gone and its data is kept.
    pub async fn detach(&self, group: &GroupId, incarnation: &IncarnationId) -> Result<(), CallError> {
        let message = DetachRequest { group: group.to_string(), incarnation: incarnation.to_string() };
        let (mut client, (request, pass)) = (self.lifecycle()?, self.write(message).await?);
        self.written(pass, client.detach(request)).await.map(|_| ())
    }

    /// Erases all data of a group, at once and for ever.
    pub async fn erase_group(&self, group: &GroupId, incarnation: &IncarnationId) -> Result<(), CallError> {
        let (group, incarnation) = (group.to_string(), incarnation.to_string());
        self.erase(EraseRequest { group, incarnation, ..EraseRequest::default() }).await
    }

    /// Erases all data of a device, at once and for ever. For the Device resource with this uid nothing is stored any more.
    pub async fn erase_device(
        &self,
        group: &GroupId,
        incarnation: &IncarnationId,
        serial: &SerialNumber,
        uid: String,
    ) -> Result<(), CallError> {
        let (group, incarnation) = (group.to_string(), incarnation.to_string());
        self.erase(EraseRequest { group, incarnation, device_serial: serial.to_string(), device_uid: uid }).await
    }

    async fn erase(&self, message: EraseRequest) -> Result<(), CallError> {
        let (mut client, (request, pass)) = (self.lifecycle()?, self.write(message).await?);
        self.written(pass, client.erase(request)).await.map(|_| ())
    }

    /// What the service holds of all groups.
    pub async fn report(&self) -> Result<ReportResponse, CallError> {
        let channel = self.channel(self.direct.as_ref().unwrap_or(&self.ready))?;
        let mut client = LifecycleServiceClient::new(channel).max_decoding_message_size(16 << 20);
        self.answered(client.report(self.request(ReportRequest::default()).await?).await)
    }

    /// The outcomes of attempts after a cursor. The backup service knows of them.
    pub async fn attempts(&self, cursor: u64) -> Result<ListAttemptsResponse, CallError> {
        let message = ListAttemptsRequest { cursor, limit: 0 };
        let mut client = BackupServiceClient::new(self.channel(&self.ready)?).max_decoding_message_size(16 << 20);
        self.answered(client.list_attempts(self.request(message).await?).await)
    }

    /// Adds entries to the operation history, all or none. The audit service keeps it.
    pub async fn append(&self, entries: Vec<NewEntry>) -> Result<AppendResponse, CallError> {
        let mut client = AuditServiceClient::new(self.channel(&self.ready)?);
        let (request, pass) = self.write(AppendRequest { entries }).await?;
        self.written(pass, client.append(request)).await
    }

    /// Whether root lists cover entries of the operation history, by their ids.
    pub async fn covered(&self, message: CoveredRequest) -> Result<CoveredResponse, CallError> {
        let mut client = AuditServiceClient::new(self.channel(&self.ready)?);
        self.answered(client.covered(self.request(message).await?).await)
    }

    fn lifecycle(&self) -> Result<LifecycleServiceClient<Channel>, CallError> {
        Ok(LifecycleServiceClient::new(self.channel(&self.ready)?).max_decoding_message_size(16 << 20))
    }

    /// A request that changes something, and the fence's pass for it.
    async fn write<T>(&self, message: T) -> Result<(Request<T>, Pass), CallError> {
        let mut request = self.request(message).await?;
        let Some(pass) = self.fence.enter(DEADLINE) else {
            return std::future::pending().await; // the process is about to end; returning an error would trigger reactions to it
        };
        request.set_timeout(pass.deadline);
        Ok((request, pass))
    }

    async fn request<T>(&self, message: T) -> Result<Request<T>, CallError> {
        let login = self.token_file.login(DEADLINE).await.map_err(|source| self.not_callable(source))?;
        Ok(login.request(message))
    }

    fn channel(&self, connection: &Connection) -> Result<Channel, CallError> {
        let encrypted = connection.address().is_encrypted();
        let bundle = if encrypted { Some(self.ca_bundle.borrow().clone().ok_or(CallError::NoCa)?) } else { None };
        let channel = connection.channel(bundle.as_deref().map(str::as_bytes), |endpoint| {
            let mut tcp = HttpConnector::new();
            tcp.enforce_http(false);
            tcp.set_nodelay(true);
            tcp.set_tcp_user_timeout(Some(TRANSIT));
            endpoint.connect_with_connector_lazy(Fenced::new(tcp, self.fence.clone()))
        });
        channel.map_err(|source| self.not_callable(source))
    }

    fn not_callable(&self, source: ClientError) -> CallError {
        CallError::Client { service: self.service, source }
    }

    async fn written<T>(&self, pass: Pass, answer: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, CallError> {
        let answer = pass.answer(answer, |answer| answer.as_ref().map_or_else(is_final, |_| true)).await;
        self.answered(answer.unwrap_or_else(|| Err(Status::deadline_exceeded("it did not answer in time"))))
    }

    fn answered<T>(&self, answer: Result<Response<T>, Status>) -> Result<T, CallError> {
        let failed = |status| CallError::Service { service: self.service, error: service_error(&status) };
        answer.map(Response::into_inner).map_err(failed)
    }
}

/// Whether the outcome is certain: the service has answered, or the request was never sent.
fn is_final(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    let broke = source.is_some();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    !broke
}
