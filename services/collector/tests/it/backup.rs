//! A backup service in memory, over TLS. It checks what the contract demands of a collector.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::stream::Empty;
use ring::digest::{SHA256, digest};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming, async_trait};
use tsujiban_proto::backup::v1::backup_service_server::{BackupService, BackupServiceServer};
use tsujiban_proto::backup::v1::put_snapshot_request::Part;
use tsujiban_proto::backup::v1::*;
use tsujiban_proto::error::{DEVICE_ERASED, Kind, ServiceError};

/// What the service holds, by the name of the device.
#[derive(Debug, Default)]
pub struct Held {
    /// The token that callers must show.
    pub token: String,
    pub pinned: BTreeMap<String, String>,
    pub stored: BTreeMap<String, (PutSnapshotHeader, Vec<u8>)>,
    pub attempts: Vec<RecordAttemptRequest>,
    /// Idempotency keys of calls, refused ones included.
    pub keys: Vec<String>,
    /// How many more calls are refused as unavailable.
    pub refuse: u32,
    /// Every PutSnapshot fails like this.
    pub broken: Option<Kind>,
    /// How long the storage takes.
    pub slow: Duration,
    /// The uids of Devices that were erased.
    pub erased: BTreeSet<String>,
    /// How often a call for an erased Device was refused.
    pub refused: u32,
    /// Pinning finds that somebody else has just pinned this.
    pub raced: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub struct Fake(Arc<Mutex<Held>>);

impl Fake {
    pub fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap()
    }

    /// The reason and the message with which a device's last attempt was recorded.
    pub fn recorded(&self, device: &str) -> Option<(Reason, String)> {
        let held = self.held();
        let attempt = held.attempts.iter().rev().find(|attempt| attempt.device.as_ref().unwrap().name == device)?;
        Some((attempt.reason(), attempt.message.clone()))
    }

    /// Serves on a free local port. Answers the endpoint and the CA's certificate.
    pub async fn listen(&self) -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let ca = made.cert.pem();
        let identity = Identity::from_pem(&ca, made.signing_key.serialize_pem());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let tls = ServerTlsConfig::new().identity(identity);
        let server = Server::builder().tls_config(tls).unwrap().add_service(BackupServiceServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (format!("https://localhost:{port}"), ca)
    }

    fn admit<T>(&self, request: &Request<T>, key: Option<&str>) -> Result<(), Status> {
        let mut held = self.held();
        held.keys.extend(key.map(str::to_owned));
        if held.refuse > 0 {
            held.refuse -= 1;
            return Err(ServiceError::new(Kind::Unavailable, "STARTING", "the service is starting").into());
        }
        let shown = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        if shown != Some(&format!("Bearer {}", held.token)) {
            return Err(ServiceError::new(Kind::Unauthenticated, "NO_TOKEN", "the token is not known").into());
        }
        assert!(request.metadata().contains_key("grpc-timeout"), "a call without a deadline");
        Ok(())
    }
}

fn name(device: Option<&DeviceRef>) -> String {
    let device = device.unwrap();
    assert_eq!((device.group.as_str(), device.serial.as_str()), ("acme", format!("SN-{}", device.name).as_str()));
    assert_eq!(device.uid, format!("uid-of-{}", device.name));
    device.name.clone()
}

#[async_trait]
impl BackupService for Fake {
    async fn put_snapshot(&self, request: Request<Streaming<PutSnapshotRequest>>) -> Result<Response<PutSnapshotResponse>, Status> {
        self.admit(&request, None)?;
        let mut parts = request.into_inner();
        let Some(Part::Header(header)) = parts.message().await?.and_then(|part| part.part) else { panic!("no header") };
        let mut config = Vec::new();
        let trailer = loop {
            match parts.message().await?.and_then(|part| part.part) {
                Some(Part::Chunk(chunk)) => {
                    assert!(chunk.len() <= 64 << 10);
                    config.extend(chunk);
                }
                Some(Part::Trailer(trailer)) => break trailer,
                _ => panic!("no trailer"),
            }
        };
        assert_eq!((trailer.bytes, trailer.sha256.as_slice()), (u64::try_from(config.len()).unwrap(), digest(&SHA256, &config).as_ref()));
        let slow = self.held().slow;
        sleep(slow).await;
        let mut held = self.held();
        held.keys.push(header.idempotency_key.clone());
        if let Some(kind) = held.broken {
            return Err(ServiceError::new(kind, "BROKEN", "the storage is away").into());
        }
        held.check_alive(header.device.as_ref())?;
        let device = name(header.device.as_ref());
        let changed = held.stored.get(&device).is_none_or(|(_, last)| *last != config);
        held.stored.insert(device, (header, config));
        Ok(Response::new(PutSnapshotResponse { snapshot: Some(Snapshot::default()), changed }))
    }

    async fn record_attempt(&self, request: Request<RecordAttemptRequest>) -> Result<Response<RecordAttemptResponse>, Status> {
        self.admit(&request, Some(&request.get_ref().idempotency_key))?;
        let attempt = request.into_inner();
        name(attempt.device.as_ref());
        self.held().check_alive(attempt.device.as_ref())?;
        assert!(attempt.message.chars().count() <= 512 && !attempt.message.is_empty());
        self.held().attempts.push(attempt);
        Ok(Response::new(RecordAttemptResponse {}))
    }

    async fn get_host_key(&self, request: Request<GetHostKeyRequest>) -> Result<Response<GetHostKeyResponse>, Status> {
        self.admit(&request, None)?;
        let pinned = self.held().pinned.get(&name(request.get_ref().device.as_ref())).cloned().unwrap_or_default();
        Ok(Response::new(GetHostKeyResponse { pinned, observed: String::new() }))
    }

    async fn pin_host_key(&self, request: Request<PinHostKeyRequest>) -> Result<Response<PinHostKeyResponse>, Status> {
        self.admit(&request, None)?;
        let request = request.into_inner();
        let mut held = self.held();
        held.check_alive(request.device.as_ref())?;
        let raced = held.raced.take();
        let pinned = held.pinned.entry(name(request.device.as_ref())).or_insert_with(|| raced.unwrap_or_else(|| request.host_key.clone()));
        if *pinned != request.host_key {
            return Err(ServiceError::new(Kind::Aborted, "OTHER_KEY", "another key is pinned").into());
        }
        Ok(Response::new(PinHostKeyResponse {}))
    }

    async fn list_attempts(&self, _: Request<ListAttemptsRequest>) -> Result<Response<ListAttemptsResponse>, Status> {
        Err(not_a_collectors())
    }

    async fn replace_host_key(&self, _: Request<ReplaceHostKeyRequest>) -> Result<Response<ReplaceHostKeyResponse>, Status> {
        Err(not_a_collectors())
    }

    async fn list_snapshots(&self, _: Request<ListSnapshotsRequest>) -> Result<Response<ListSnapshotsResponse>, Status> {
        Err(not_a_collectors())
    }

    type GetSnapshotStream = Empty<Result<GetSnapshotResponse, Status>>;

    async fn get_snapshot(&self, _: Request<GetSnapshotRequest>) -> Result<Response<Self::GetSnapshotStream>, Status> {
        Err(not_a_collectors())
    }

    async fn diff_snapshots(&self, _: Request<DiffSnapshotsRequest>) -> Result<Response<DiffSnapshotsResponse>, Status> {
        Err(not_a_collectors())
    }

    async fn verify_snapshot(&self, _: Request<VerifySnapshotRequest>) -> Result<Response<VerifySnapshotResponse>, Status> {
        Err(not_a_collectors())
    }

    async fn acknowledge_snapshot(&self, _: Request<AcknowledgeSnapshotRequest>) -> Result<Response<AcknowledgeSnapshotResponse>, Status> {
        Err(not_a_collectors())
    }

    type RebuildCatalogueStream = Empty<Result<RebuildCatalogueResponse, Status>>;

    async fn rebuild_catalogue(&self, _: Request<RebuildCatalogueRequest>) -> Result<Response<Self::RebuildCatalogueStream>, Status> {
        Err(not_a_collectors())
    }
}

fn not_a_collectors() -> Status {
    ServiceError::new(Kind::Denied, "DENIED", "a collector never calls this").into()
}

impl Held {
    fn check_alive(&mut self, device: Option<&DeviceRef>) -> Result<(), Status> {
        if !self.erased.contains(&device.unwrap().uid) {
            return Ok(());
        }
        self.refused += 1;
        Err(ServiceError::new(Kind::Precondition, DEVICE_ERASED, "the Device was deleted and its data erased").into())
    }

    /// How many different idempotency keys were shown.
    pub fn distinct_keys(&self) -> usize {
        self.keys.iter().collect::<BTreeSet<_>>().len()
    }
}
