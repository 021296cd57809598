use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming};
use tsujiban_core::config::Secrets;
use tsujiban_proto::backup::v1::backup_service_server::BackupService;
use tsujiban_proto::backup::v1::get_snapshot_response::Part;
use tsujiban_proto::backup::v1::{
    AcknowledgeSnapshotRequest, AcknowledgeSnapshotResponse, DiffSnapshotsRequest, DiffSnapshotsResponse, GetHostKeyRequest,
    GetHostKeyResponse, GetSnapshotRequest, GetSnapshotResponse, ListAttemptsRequest, ListAttemptsResponse, ListSnapshotsRequest,
    ListSnapshotsResponse, PinHostKeyRequest, PinHostKeyResponse, PutSnapshotRequest, PutSnapshotResponse, RebuildCatalogueRequest,
    RebuildCatalogueResponse, RecordAttemptRequest, RecordAttemptResponse, ReplaceHostKeyRequest, ReplaceHostKeyResponse,
    VerifySnapshotRequest, VerifySnapshotResponse,
};
use tsujiban_proto::error::ServiceError;
use tsujiban_service::answers::{Answers, CHUNK, answers};
use tsujiban_service::caller::{Caller, Revealing};

use super::{parse, upload};
use crate::attempt::Failed;
use crate::error::Error;
use crate::intake::Fetched;
use crate::rebuild::{Progress, Reads, Rebuild};
use crate::service::Backup;
use crate::wire;

const ATTEMPTS: u32 = 1000;
const SNAPSHOTS: u32 = 100;

pub struct Api(pub Arc<Backup>);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl BackupService for Api {
    type GetSnapshotStream = tokio_stream::Iter<std::vec::IntoIter<Result<GetSnapshotResponse, Status>>>;
    type RebuildCatalogueStream = Answers<RebuildCatalogueResponse>;

    async fn put_snapshot(&self, request: Request<Streaming<PutSnapshotRequest>>) -> Answer<PutSnapshotResponse> {
        let caller = Caller::of(&request)?.clone();
        let mut stream = request.into_inner();
        let header = upload::header(&mut stream).await?;
        let (group, device) = parse::device(header.device.as_ref())?;
        let scope = caller.scope(group)?;
        let device = parse::declared(device)?;
        self.0.check_writing()?;
        self.0.admit(&scope, &device.life).await?;
        let fetched = Fetched {
            device,
            driver: parse::driver(&header.driver)?,
            idempotency_key: parse::idempotency_key(&header.idempotency_key)?,
            host_key: parse::host_key_or_none(&header.host_key)?,
            model: parse::label(&header.model)?,
            firmware: parse::label(&header.firmware)?,
            config: upload::config(&mut stream).await?,
        };
        // in a task of its own: a caller that disconnects must not leave an object that is in no catalogue
        let (backup, group) = (Arc::clone(&self.0), scope.group().clone());
        let taken_in = tokio::spawn(async move {
            let taken_in = backup.store_config(&scope, fetched).await;
            if let Err(error) = &taken_in {
                backup.note_failure(error);
            }
            taken_in
        });
        let stored = taken_in.await;
        let stored = stored.map_err(|_| Status::internal("the config could not be stored; the service's log says more"))??;
        let snapshot = wire::snapshot(&group, &stored.snapshot, Some(&stored.details));
        Ok(Response::new(PutSnapshotResponse { snapshot: Some(snapshot), changed: stored.changed }))
    }

    async fn record_attempt(&self, request: Request<RecordAttemptRequest>) -> Answer<RecordAttemptResponse> {
        let caller = Caller::of(&request)?.clone();
        let request = request.into_inner();
        let (group, device) = parse::device(request.device.as_ref())?;
        let scope = caller.scope(group)?;
        let failed = Failed {
            device: parse::declared(device)?,
            idempotency_key: parse::idempotency_key(&request.idempotency_key)?,
            reason: request
                .reason()
                .known()
                .ok_or_else(|| parse::invalid("the attempt has no reason; an attempt that stored needs no record"))?,
            message: parse::message(&request.message)?,
            host_key: parse::host_key_or_none(&request.host_key)?,
        };
        self.0.record_attempt(&scope, failed).await?;
        Ok(Response::new(RecordAttemptResponse {}))
    }

    async fn list_attempts(&self, request: Request<ListAttemptsRequest>) -> Answer<ListAttemptsResponse> {
        let request = request.into_inner();
        let (outcomes, cursor) = self.0.outcomes_after(request.cursor, parse::page_size(request.limit, ATTEMPTS)?).await?;
        Ok(Response::new(ListAttemptsResponse { attempts: outcomes.iter().map(wire::attempt).collect(), cursor }))
    }

    async fn get_host_key(&self, request: Request<GetHostKeyRequest>) -> Answer<GetHostKeyResponse> {
        let (group, device) = parse::device(request.get_ref().device.as_ref())?;
        let scope = Caller::of(&request)?.scope(group)?;
        let keys = self.0.host_keys(&scope, &parse::id(&device.serial)?).await?;
        Ok(Response::new(GetHostKeyResponse { pinned: keys.pinned, observed: keys.observed }))
    }

    async fn pin_host_key(&self, request: Request<PinHostKeyRequest>) -> Answer<PinHostKeyResponse> {
        let (group, device) = parse::device(request.get_ref().device.as_ref())?;
        let scope = Caller::of(&request)?.scope(group)?;
        self.0.pin_host_key(&scope, &parse::declared(device)?, &parse::host_key(&request.get_ref().host_key)?).await?;
        Ok(Response::new(PinHostKeyResponse {}))
    }

    async fn replace_host_key(&self, request: Request<ReplaceHostKeyRequest>) -> Answer<ReplaceHostKeyResponse> {
        let (group, device) = parse::device(request.get_ref().device.as_ref())?;
        let scope = Caller::of(&request)?.scope(group)?;
        let key = parse::host_key_or_none(&request.get_ref().host_key)?;
        self.0.replace_host_key(&scope, &parse::id(&device.serial)?, &request.get_ref().expected, &key).await?;
        Ok(Response::new(ReplaceHostKeyResponse {}))
    }

    async fn list_snapshots(&self, request: Request<ListSnapshotsRequest>) -> Answer<ListSnapshotsResponse> {
        let scope = Caller::of(&request)?.scope(&request.get_ref().group)?;
        let request = request.into_inner();
        let (size, before) = (parse::page_size(request.page_size, SNAPSHOTS)?, parse::id_or_none(&request.page_token)?);
        let listed = self.0.list(&scope, &request.device, before.as_ref(), size).await?;
        let full = u32::try_from(listed.len()).is_ok_and(|listed| listed == size);
        let next_page_token = listed.last().filter(|_| full).map(|last| last.row.id.to_string()).unwrap_or_default();
        let snapshots = listed.iter().map(|listed| wire::snapshot(scope.group(), &listed.row, listed.details.as_ref())).collect();
        Ok(Response::new(ListSnapshotsResponse { snapshots, next_page_token }))
    }

    async fn get_snapshot(&self, request: Request<GetSnapshotRequest>) -> Answer<Self::GetSnapshotStream> {
        let scope = Caller::of(&request)?.scope(&request.get_ref().group)?;
        let secrets = secrets(&request, request.get_ref().reveal)?;
        let (found, config) = self.0.config(&scope, &request.get_ref().id, secrets).await?;
        let snapshot = Part::Snapshot(wire::snapshot(scope.group(), &found.row, found.details.as_ref()));
        let chunks = config.chunks(CHUNK).map(|chunk| Part::Chunk(chunk.to_vec()));
        let parts: Vec<_> = std::iter::once(snapshot).chain(chunks).map(|part| Ok(GetSnapshotResponse { part: Some(part) })).collect();
        Ok(Response::new(tokio_stream::iter(parts)))
    }

    async fn diff_snapshots(&self, request: Request<DiffSnapshotsRequest>) -> Answer<DiffSnapshotsResponse> {
        let scope = Caller::of(&request)?.scope(&request.get_ref().group)?;
        let secrets = secrets(&request, request.get_ref().reveal)?;
        let request = request.into_inner();
        let diff = self.0.diff(&scope, &request.old_id, &request.new_id, secrets).await?;
        Ok(Response::new(DiffSnapshotsResponse { diff }))
    }

    async fn verify_snapshot(&self, request: Request<VerifySnapshotRequest>) -> Answer<VerifySnapshotResponse> {
        let scope = Caller::of(&request)?.scope(&request.get_ref().group)?;
        let (found, checks) = self.0.verify(&scope, &request.get_ref().id).await?;
        Ok(Response::new(VerifySnapshotResponse {
            snapshot: Some(wire::snapshot(scope.group(), &found.row, found.details.as_ref())),
            intact: checks.iter().all(|check| check.passed),
            checks: checks.into_iter().map(wire::check).collect(),
        }))
    }

    async fn acknowledge_snapshot(&self, request: Request<AcknowledgeSnapshotRequest>) -> Answer<AcknowledgeSnapshotResponse> {
        let scope = Caller::of(&request)?.scope(&request.get_ref().group)?;
        let found = self.0.acknowledge(&scope, &request.get_ref().id).await?;
        let snapshot = wire::snapshot(scope.group(), &found.row, found.details.as_ref());
        Ok(Response::new(AcknowledgeSnapshotResponse { snapshot: Some(snapshot) }))
    }

    async fn rebuild_catalogue(&self, _: Request<RebuildCatalogueRequest>) -> Answer<Self::RebuildCatalogueStream> {
        let (sender, stream) = answers();
        let backup = Arc::clone(&self.0);
        // it runs to its end even if the caller disconnects
        tokio::spawn(async move {
            let result = async {
                let mut rebuild = Rebuild::begin(&backup, Reads::Everything).await?;
                while rebuild.step(&backup).await? {
                    let _ = sender.send(Ok(progress(&rebuild.progress, false))).await;
                }
                Ok::<_, Error>(rebuild.progress)
            };
            let last = result.await.map(|done| progress(&done, true)).map_err(Status::from);
            let _ = sender.send(last).await;
        });
        Ok(Response::new(stream))
    }
}

/// Whether secrets are shown: only if the access layer allowed this call to reveal them.
fn secrets<T>(request: &Request<T>, reveal: bool) -> Result<Secrets, ServiceError> {
    if !reveal {
        return Ok(Secrets::Hidden);
    }
    Revealing::of(request).map(|_| Secrets::Revealed)
}

fn progress(progress: &Progress, done: bool) -> RebuildCatalogueResponse {
    let Progress { objects, snapshots, unreadable, damaged, damaged_names, .. } = progress.clone();
    RebuildCatalogueResponse { objects, snapshots, unreadable, done, damaged, damaged_names }
}
