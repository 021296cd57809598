//! A stand-in for the backup service at the edge of the collector: it takes configs over TLS, checks them as the contract says, and
//! has each on the disk before it answers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use futures::stream::Empty;
use ring::digest::{SHA256, digest};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming, async_trait};
use tsujiban_proto::backup::v1::backup_service_server::{BackupService, BackupServiceServer};
use tsujiban_proto::backup::v1::put_snapshot_request::Part;
use tsujiban_proto::backup::v1::{
    AcknowledgeSnapshotRequest, AcknowledgeSnapshotResponse, DeviceRef, DiffSnapshotsRequest, DiffSnapshotsResponse, GetHostKeyRequest,
    GetHostKeyResponse, GetSnapshotRequest, GetSnapshotResponse, ListAttemptsRequest, ListAttemptsResponse, ListSnapshotsRequest,
    ListSnapshotsResponse, PinHostKeyRequest, PinHostKeyResponse, PutSnapshotRequest, PutSnapshotResponse, RebuildCatalogueRequest,
    RebuildCatalogueResponse, RecordAttemptRequest, RecordAttemptResponse, ReplaceHostKeyRequest, ReplaceHostKeyResponse, Snapshot,
    VerifySnapshotRequest, VerifySnapshotResponse,
};

pub const GROUP: &str = "bench";
pub const TOKEN: &str = "token-of-the-collector";

pub fn serial(device: &str) -> String {
    format!("SN-{device}")
}

pub fn uid(device: &str) -> String {
    format!("uid-of-{device}")
}

/// What came of the devices since the last [`Store::forget`].
#[derive(Debug, Default)]
pub struct Held {
    pub stored: BTreeMap<String, Vec<u8>>,
    /// Devices whose attempt failed, with the reason given.
    pub failed: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Store {
    held: Arc<Mutex<Held>>,
    folder: Arc<PathBuf>,
}

/// Where the store listens, and the CA's certificate to trust there.
pub struct Endpoint {
    pub url: String,
    pub ca: String,
}

impl Store {
    pub fn new(folder: &Path) -> Self {
        Self { held: Arc::default(), folder: Arc::new(folder.to_owned()) }
    }

    pub fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn forget(&self) {
        *self.held() = Held::default();
    }

    /// Serves on a free local port until the runtime ends.
    pub async fn listen(&self) -> Result<Endpoint> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let ca = made.cert.pem();
        let identity = Identity::from_pem(&ca, made.signing_key.serialize_pem());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("https://localhost:{}", listener.local_addr()?.port());
        let tls = ServerTlsConfig::new().identity(identity);
        let server = Server::builder().tls_config(tls)?.add_service(BackupServiceServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Ok(Endpoint { url, ca })
    }

    async fn keep(&self, device: String, config: Vec<u8>) -> std::io::Result<bool> {
        let mut file = File::create(self.folder.join(&device)).await?;
        file.write_all(&config).await?;
        file.sync_all().await?;
        Ok(self.held().stored.insert(device, config.clone()).is_none_or(|last| last != config))
    }
}

fn admit<T>(request: &Request<T>) -> Result<(), Status> {
    let shown = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
    if shown == Some(&format!("Bearer {TOKEN}")) { Ok(()) } else { Err(Status::unauthenticated("the token is not known")) }
}

/// The name of the device, when all that identifies it fits together.
fn name(device: Option<DeviceRef>) -> Result<String, Status> {
    let device = device.ok_or_else(|| Status::invalid_argument("no device"))?;
    if device.group == GROUP && device.serial == serial(&device.name) && device.uid == uid(&device.name) && !device.name.contains('/') {
        Ok(device.name)
    } else {
        Err(Status::invalid_argument("not a device of this fleet"))
    }
}

#[async_trait]
impl BackupService for Store {
    async fn put_snapshot(&self, request: Request<Streaming<PutSnapshotRequest>>) -> Result<Response<PutSnapshotResponse>, Status> {
        admit(&request)?;
        let mut parts = request.into_inner();
        let Some(Part::Header(header)) = parts.message().await?.and_then(|part| part.part) else {
            return Err(Status::invalid_argument("no header"));
        };
        let device = name(header.device)?;
        let mut config = Vec::new();
        let trailer = loop {
            match parts.message().await?.and_then(|part| part.part) {
                Some(Part::Chunk(chunk)) => config.extend(chunk),
                Some(Part::Trailer(trailer)) => break trailer,
                _ => return Err(Status::invalid_argument("no trailer")),
            }
        };
        if u64::try_from(config.len()) != Ok(trailer.bytes) || digest(&SHA256, &config).as_ref() != trailer.sha256 {
            return Err(Status::invalid_argument("the trailer is that of another config"));
        }
        let changed = self.keep(device, config).await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(PutSnapshotResponse { snapshot: Some(Snapshot::default()), changed }))
    }

    async fn record_attempt(&self, request: Request<RecordAttemptRequest>) -> Result<Response<RecordAttemptResponse>, Status> {
        admit(&request)?;
        let attempt = request.into_inner();
        let failed = format!("{}: {}", name(attempt.device)?, attempt.message);
        self.held().failed.push(failed);
        Ok(Response::new(RecordAttemptResponse {}))
    }

    async fn get_host_key(&self, request: Request<GetHostKeyRequest>) -> Result<Response<GetHostKeyResponse>, Status> {
        admit(&request)?;
        name(request.into_inner().device)?;
        Ok(Response::new(GetHostKeyResponse::default())) // each Device names its host key in its spec
    }

    async fn pin_host_key(&self, _: Request<PinHostKeyRequest>) -> Result<Response<PinHostKeyResponse>, Status> {
        Err(not_needed())
    }

    async fn list_attempts(&self, _: Request<ListAttemptsRequest>) -> Result<Response<ListAttemptsResponse>, Status> {
        Err(not_needed())
    }

    async fn replace_host_key(&self, _: Request<ReplaceHostKeyRequest>) -> Result<Response<ReplaceHostKeyResponse>, Status> {
        Err(not_needed())
    }

    async fn list_snapshots(&self, _: Request<ListSnapshotsRequest>) -> Result<Response<ListSnapshotsResponse>, Status> {
        Err(not_needed())
    }

    type GetSnapshotStream = Empty<Result<GetSnapshotResponse, Status>>;

    async fn get_snapshot(&self, _: Request<GetSnapshotRequest>) -> Result<Response<Self::GetSnapshotStream>, Status> {
        Err(not_needed())
    }

    async fn diff_snapshots(&self, _: Request<DiffSnapshotsRequest>) -> Result<Response<DiffSnapshotsResponse>, Status> {
        Err(not_needed())
    }

    async fn verify_snapshot(&self, _: Request<VerifySnapshotRequest>) -> Result<Response<VerifySnapshotResponse>, Status> {
        Err(not_needed())
    }

    async fn acknowledge_snapshot(&self, _: Request<AcknowledgeSnapshotRequest>) -> Result<Response<AcknowledgeSnapshotResponse>, Status> {
        Err(not_needed())
    }

    type RebuildCatalogueStream = Empty<Result<RebuildCatalogueResponse, Status>>;

    async fn rebuild_catalogue(&self, _: Request<RebuildCatalogueRequest>) -> Result<Response<Self::RebuildCatalogueStream>, Status> {
        Err(not_needed())
    }
}

fn not_needed() -> Status {
    Status::unimplemented("a collector whose Devices name their host keys never calls this")
}
