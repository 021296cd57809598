//! Conversations with the backup service: gRPC over TLS, with a token that is read anew for each call.

mod config;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tonic::metadata::errors::InvalidMetadataValue;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Response, Status};
use tsujiban_core::id::GroupId;
use tsujiban_core::outcome::Reason;
use tsujiban_proto::backup::v1 as wire;
use tsujiban_proto::backup::v1::backup_service_client::BackupServiceClient;
use tsujiban_proto::error::{DEVICE_ERASED, Kind, ServiceError};
use tsujiban_service::trace;
use zeroize::Zeroizing;

use crate::driver::{About, Config};
use crate::outcome::{Failure, Step};
use crate::random::Random;
use crate::target::Target;

const CONNECT: Duration = Duration::from_secs(5);
/// A new pod's network may take some seconds until the policies let it through.
const PATIENCE: Duration = Duration::from_secs(45);
const ASK: Duration = Duration::from_secs(10);
/// The storage may be slow, and the answer comes after it holds the config.
const STORE: Duration = Duration::from_mins(1);
/// How often a call is made that the service cannot take, and how long the pause is, in milliseconds, to which up to as much is added.
const TRIES: u32 = 3;
const PAUSE_MILLIS: u64 = 500;
const ALIVE: Duration = Duration::from_secs(30);

/// Why the backup service cannot be talked to at all.
#[derive(Debug, thiserror::Error)]
pub enum NoBackup {
    #[error("the CA's certificates in {path} cannot be read; check the ConfigMap {}", tsujiban_api::names::CA_CONFIGMAP)]
    NoCa { path: PathBuf, source: std::io::Error },
    #[error("{endpoint} is no address of a backup service")]
    BadEndpoint { endpoint: String, source: tonic::transport::Error },
    #[error("the backup service at {endpoint} cannot be reached; check that it runs and that the network policies let it be reached")]
    Unreachable { endpoint: String, source: tonic::transport::Error },
    #[error("the backup service at {endpoint} takes no calls of this group; see its log")]
    Refuses { endpoint: String, source: BackupError },
}

/// A call of the backup service that failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("the token for the backup service in {path} cannot be read")]
    NoToken { path: PathBuf, source: std::io::Error },
    #[error("the token for the backup service in {path} is no token")]
    BadToken { path: PathBuf, source: InvalidMetadataValue },
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
    token_file: PathBuf,
    group: GroupId,
    random: Arc<Random>,
}

impl Backup {
    /// Connects, with patience for a service or a network that is just coming up.
    pub async fn connect(endpoint: &str, ca_file: &Path, token_file: &Path, group: GroupId, random: Arc<Random>) -> Result<Self, NoBackup> {
        let ca = tokio::fs::read(ca_file).await.map_err(|source| NoBackup::NoCa { path: ca_file.to_owned(), source })?;
        let bad = |source| NoBackup::BadEndpoint { endpoint: endpoint.to_owned(), source };
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
        let peer = Endpoint::from_shared(endpoint.to_owned()).map_err(bad)?.tls_config(tls).map_err(bad)?;
        let peer = peer.connect_timeout(CONNECT).http2_keep_alive_interval(ALIVE);
        let until = Instant::now() + PATIENCE;
        let channel = loop {
            match peer.connect().await {
                Ok(channel) => break channel,
                Err(source) if Instant::now() >= until => return Err(NoBackup::Unreachable { endpoint: endpoint.to_owned(), source }),
                Err(_) => sleep(Duration::from_millis(PAUSE_MILLIS + random.up_to(PAUSE_MILLIS))).await,
            }
        };
        Ok(Self { client: BackupServiceClient::new(channel), token_file: token_file.to_owned(), group, random })
    }

    /// The host key that is pinned for a device; empty when none is.
    pub async fn pinned(&self, target: &Target) -> Result<String, BackupError> {
        let request = wire::GetHostKeyRequest { device: Some(self.device(target)) };
        let answer = self.call(ASK, |mut client, login| {
            let request = login.with(request.clone());
            async move { client.get_host_key(request).await }
        });
        Ok(answer.await?.pinned)
    }

    /// Pins the host key of a first contact. [`Kind::Aborted`] when another one is pinned already.
    pub async fn pin(&self, target: &Target, host_key: &str) -> Result<(), BackupError> {
        let request = wire::PinHostKeyRequest { device: Some(self.device(target)), host_key: host_key.to_owned() };
        let answer = self.call(ASK, |mut client, login| {
            let request = login.with(request.clone());
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
            let request = login.with(config::stream(header.clone(), Arc::clone(&config)));
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
            let request = login.with(request.clone());
            async move { client.record_attempt(request).await }
        });
        answer.await.map(|_| ())
    }

    fn device(&self, target: &Target) -> wire::DeviceRef {
        let Target { serial, name, uid, .. } = target;
        wire::DeviceRef { group: self.group.to_string(), serial: serial.to_string(), name: name.to_string(), uid: uid.clone() }
    }

    /// Makes a call, and once or twice more when the service is away. Each try shows the token as it stands in its file then.
    async fn call<T, F>(&self, deadline: Duration, make: impl Fn(BackupServiceClient<Channel>, Login) -> F) -> Result<T, BackupError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut tried = 0;
        loop {
            tried += 1;
            let login = self.login(deadline).await?;
            let error = match timeout(deadline, make(self.client.clone(), login)).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => ServiceError::from(&status),
                Err(_) => return Err(BackupError::Silent(deadline)),
            };
            if error.kind != Kind::Unavailable || tried >= TRIES {
                return Err(BackupError::Service(error));
            }
            sleep(Duration::from_millis(PAUSE_MILLIS + self.random.up_to(PAUSE_MILLIS)) * tried).await;
        }
    }

    async fn login(&self, deadline: Duration) -> Result<Login, BackupError> {
        let path = || self.token_file.clone();
        let token = tokio::fs::read_to_string(&self.token_file).await.map_err(|source| BackupError::NoToken { path: path(), source })?;
        let bearer = Zeroizing::new(format!("Bearer {}", Zeroizing::new(token).trim()));
        let mut value = MetadataValue::try_from(bearer.as_str()).map_err(|source| BackupError::BadToken { path: path(), source })?;
        value.set_sensitive(true);
        Ok(Login { token: value, deadline })
    }
}

/// What goes with one call: who is calling, and how long they wait.
struct Login {
    token: MetadataValue<Ascii>,
    deadline: Duration,
}

impl Login {
    fn with<T>(self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.token);
        trace::inject(request.metadata_mut());
        request.set_timeout(self.deadline);
        request
    }
}
