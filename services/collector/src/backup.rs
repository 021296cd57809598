//! Calls of the backup service: gRPC over TLS, with a token that is read anew for each call.

mod config;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tonic::transport::Channel;
use tonic::{Response, Status};
use tsujiban_client::{Address, ClientError, Limits, Login, TokenFile, read_ca, service_error};
use tsujiban_core::backoff::Backoff;
use tsujiban_core::id::GroupId;
use tsujiban_core::outcome::Reason;
use tsujiban_proto::backup::v1 as wire;
use tsujiban_proto::backup::v1::backup_service_client::BackupServiceClient;
use tsujiban_proto::error::{DEVICE_ERASED, Kind, ServiceError};
use tsujiban_service::retry::Retry;
use tsujiban_service::trace;

use crate::driver::{About, Config};
use crate::outcome::{Failure, Step};
use crate::random::Random;
use crate::target::Target;

const LIMITS: Limits =
    Limits { connect: Duration::from_secs(5), answer: None, keep_alive: Some(Duration::from_secs(30)), keep_alive_while_idle: false };
/// A new pod's network may take some seconds until the policies let it through.
const PATIENCE: Duration = Duration::from_secs(45);
const ASK: Duration = Duration::from_secs(10);
/// The storage may be slow, and the answer comes after it holds the config.
const STORE: Duration = Duration::from_mins(1);
/// How often a call is tried when the service is unavailable, and the wait before a retry, to which up to as much jitter is added.
const TRIES: u32 = 3;
const SHORTEST: Duration = Duration::from_millis(500);
const BACKOFF: Backoff = Backoff::new(SHORTEST, Duration::from_secs(1));
/// The same between tries to connect.
const PAUSE: Backoff = Backoff::constant(SHORTEST);

/// Why the backup service cannot be talked to at all.
#[derive(Debug, thiserror::Error)]
pub enum NoBackup {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the backup service at {endpoint} cannot be reached; check that it runs and that the network policies let it be reached")]
    Unreachable { endpoint: String, source: tonic::transport::Error },
    #[error("the backup service at {endpoint} takes no calls of this group; see its log")]
    Refuses { endpoint: String, source: BackupError },
}

/// A call of the backup service that failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("the backup service cannot be called")]
    Client(#[from] ClientError),
    #[error("the backup service does not answer within {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the backup service refuses the call")]
    Service(#[source] ServiceError),
}

impl Step for BackupError {
    fn reason(&self) -> Reason {
        Reason::Store
    }
}

impl BackupError {
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::Service(error) => Some(error.kind),
            _ => None,
        }
    }

    /// Whether the Device was erased since it was listed.
    pub fn is_erased(&self) -> bool {
        matches!(self, Self::Service(error) if error.kind == Kind::Precondition && error.reason == DEVICE_ERASED)
    }
}

/// A stored config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    pub changed: bool,
}

/// The backup service, on behalf of one group.
#[derive(Clone)]
pub struct Backup {
    client: BackupServiceClient<Channel>,
    token_file: TokenFile,
    group: GroupId,
    random: Arc<Random>,
}

impl Backup {
    /// Connects, with patience for a service or a network that is just coming up.
    pub async fn connect(endpoint: &str, ca_file: &Path, token_file: &Path, group: GroupId, random: Arc<Random>) -> Result<Self, NoBackup> {
        let ca = read_ca(ca_file).await?;
        let peer = Address::new(endpoint.to_owned(), LIMITS).endpoint(Some(&ca))?;
        let unreachable = |source| NoBackup::Unreachable { endpoint: endpoint.to_owned(), source };
        let attempt = async || peer.connect().await;
        let channel = Retry::until(Instant::now() + PATIENCE, PAUSE).run(|most| random.up_to(most), attempt, |_| true).await;
        let client = BackupServiceClient::new(channel.map_err(unreachable)?);
        let token_file = TokenFile::new(token_file.to_owned(), trace::inject);
        Ok(Self { client, token_file, group, random })
    }

    /// The host key that is pinned for a device; empty when none is.
    pub async fn pinned(&self, target: &Target) -> Result<String, BackupError> {
        let request = wire::GetHostKeyRequest { device: Some(self.device(target)) };
        let answer = self.call(ASK, |mut client, login| {
            let request = login.request(request.clone());
            async move { client.get_host_key(request).await }
        });
        Ok(answer.await?.pinned)
    }

    /// Pins the host key of a first contact. [`Kind::Aborted`] when another one is pinned already.
    pub async fn pin(&self, target: &Target, host_key: &str) -> Result<(), BackupError> {
        let request = wire::PinHostKeyRequest { device: Some(self.device(target)), host_key: host_key.to_owned() };
        let answer = self.call(ASK, |mut client, login| {
            let request = login.request(request.clone());
            async move { client.pin_host_key(request).await }
        });
        answer.await.map(|_| ())
    }

    /// Stores a config. The answer means that the storage holds it.
    pub async fn put(&self, target: &Target, host_key: &str, about: About, config: Config) -> Result<Stored, BackupError> {
        let header = wire::PutSnapshotHeader {
            device: Some(self.device(target)),
            driver: target.driver.as_str().to_owned(),
            idempotency_key: self.random.uuid().to_string(),
            host_key: host_key.to_owned(),
            model: about.model,
            firmware: about.firmware,
        };
        let config = Arc::new(config);
        let answer = self.call(STORE, |mut client, login| {
            let request = login.request(config::stream(header.clone(), Arc::clone(&config)));
            async move { client.put_snapshot(request).await }
        });
        Ok(Stored { changed: answer.await?.changed })
    }

    /// Records an attempt that stored nothing.
    pub async fn record(&self, target: &Target, host_key: &str, failure: &Failure) -> Result<(), BackupError> {
        let request = wire::RecordAttemptRequest {
            device: Some(self.device(target)),
            idempotency_key: self.random.uuid().to_string(),
            reason: wire::Reason::from(failure.reason).into(),
            message: failure.message.clone(),
            host_key: host_key.to_owned(),
        };
        let answer = self.call(ASK, |mut client, login| {
            let request = login.request(request.clone());
            async move { client.record_attempt(request).await }
        });
        answer.await.map(|_| ())
    }

    fn device(&self, target: &Target) -> wire::DeviceRef {
        let Target { serial, name, uid, .. } = target;
        wire::DeviceRef { group: self.group.to_string(), serial: serial.to_string(), name: name.to_string(), uid: uid.clone() }
    }

    /// Makes a call, and up to two retries while the service is unavailable. Each try reads the token from its file.
    async fn call<T, F>(&self, deadline: Duration, make: impl Fn(BackupServiceClient<Channel>, Login) -> F) -> Result<T, BackupError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let attempt = async || {
            let login = self.token_file.login(deadline).await?;
            match timeout(deadline, make(self.client.clone(), login)).await {
                Ok(answer) => answer.map(Response::into_inner).map_err(|status| BackupError::Service(service_error(&status))),
                Err(_) => Err(BackupError::Silent(deadline)),
            }
        };
        let is_away = |error: &BackupError| error.kind() == Some(Kind::Unavailable);
        Retry::times(TRIES, BACKOFF).run(|most| self.random.up_to(most), attempt, is_away).await
    }
}
