use std::sync::Arc;

use futures::stream;
use tonic::{Request, Response, Status, Streaming};
use tsujiban_proto::error::{Kind, ServiceError};
use tsujiban_proto::lifecycle::v1::import_request::Part;
use tsujiban_proto::lifecycle::v1::lifecycle_service_server::LifecycleService;
use tsujiban_proto::lifecycle::v1::{
    DetachRequest, DetachResponse, EraseRequest, EraseResponse, ExportRequest, ExportResponse, ImportRequest, ImportResponse,
    PrepareRequest, PrepareResponse, ReportRequest, ReportResponse,
};
use tsujiban_service::answers::{Answers, in_chunks};
use tsujiban_service::caller::{Caller, GroupScope};

use super::{parse, wire};
use crate::catalogue::Erased;
use crate::error::{Error, Result as Done};
use crate::export::{Export, Import};
use crate::lifecycle::Eraser;
use crate::service::Backup;

pub struct Api(pub Arc<Backup>);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl LifecycleService for Api {
    type ExportStream = Answers<ExportResponse>;

    async fn prepare(&self, request: Request<PrepareRequest>) -> Answer<PrepareResponse> {
        let scope = Caller::of(&request)?.scope(&request.get_ref().group)?;
        let expected = parse::id_or_none(&request.get_ref().expected_incarnation)?;
        let (incarnation, created) = self.0.prepare(&scope, expected.as_ref()).await?;
        Ok(Response::new(PrepareResponse { incarnation: incarnation.to_string(), created, log: String::new() }))
    }

    async fn detach(&self, request: Request<DetachRequest>) -> Answer<DetachResponse> {
        let scope = Caller::of(&request)?.scope(&request.get_ref().group)?;
        self.0.detach(&scope, &parse::id(&request.get_ref().incarnation)?).await?;
        Ok(Response::new(DetachResponse {}))
    }

    async fn export(&self, request: Request<ExportRequest>) -> Answer<Self::ExportStream> {
        let scope = Caller::of(&request)?.scope(&request.get_ref().group)?;
        let export = Export::begin(&self.0, &scope, &parse::id(&request.get_ref().incarnation)?).await?;
        let pieces = stream::try_unfold((Arc::clone(&self.0), export), |(backup, mut export)| async move {
            Ok::<_, Error>(export.next(&backup).await?.map(|piece| (piece, (backup, export))))
        });
        Ok(Response::new(in_chunks(pieces, |chunk| ExportResponse { chunk })))
    }

    async fn import(&self, request: Request<Streaming<ImportRequest>>) -> Answer<ImportResponse> {
        let caller = Caller::of(&request)?.clone();
        let mut stream = request.into_inner();
        let out_of_order = || ServiceError::new(Kind::Invalid, "OUT_OF_ORDER", "send a header, then what Export gave, and nothing else");
        let Some(ImportRequest { part: Some(Part::Header(header)) }) = stream.message().await? else { return Err(out_of_order().into()) };
        let scope = caller.scope(&header.group)?;
        let mut import = Import::begin(&self.0, &scope, &parse::id(&header.incarnation)?).await?;
        while let Some(message) = stream.message().await? {
            let Some(Part::Chunk(chunk)) = message.part else { return Err(out_of_order().into()) };
            import.push(&self.0, &chunk).await?;
        }
        Ok(Response::new(ImportResponse { records: import.end()? }))
    }

    async fn erase(&self, request: Request<EraseRequest>) -> Answer<EraseResponse> {
        let caller = Caller::of(&request)?.clone();
        let request = request.into_inner();
        let scope = caller.scope(&request.group)?;
        let backup = Arc::clone(&self.0);
        // on its own: what was begun is finished, also when the caller hangs up
        let erased = tokio::spawn(async move { erase(&backup, &caller, &scope, &request).await }).await;
        let erased = erased.map_err(|_| Status::internal("the erasure could not be finished; the service's log says more"))??;
        Ok(Response::new(wire::erased(erased.snapshots, erased.last_object_until)))
    }

    async fn report(&self, request: Request<ReportRequest>) -> Answer<ReportResponse> {
        let only = match request.get_ref().group.as_str() {
            "" => None,
            group => Some(Caller::of(&request)?.scope(group)?),
        };
        let reported = report(&self.0, only.as_ref()).await;
        reported.map(Response::new).map_err(|error| self.0.writing.explain(error.into()).into())
    }
}

/// What is held, of one group or of all.
async fn report(backup: &Backup, only: Option<&GroupScope>) -> Done<ReportResponse> {
    let holdings = backup.holdings(only.map(GroupScope::group)).await?;
    let epochs = backup.epochs_in_use().await?;
    let whole = backup.whole_scrub().await?;
    let shared = if only.is_none() { Some(backup.shared_damage().await?) } else { None };
    let ended = if only.is_none() { backup.ended_lives().await? } else { Vec::new() };
    Ok(ReportResponse {
        groups: holdings.into_iter().map(|holding| wire::group(holding, whole)).collect(),
        canary: backup.canary().await?.map(wire::canary),
        epochs_in_use: epochs.into_iter().map(String::from).collect(),
        erased_devices: ended.iter().map(|life| life.as_bytes().to_vec()).collect(),
        clock_synchronised: None,
        writing: Some(backup.writing.report()),
        shared_integrity: shared.map(|damage| wire::integrity(damage, whole)),
    })
}

async fn erase(backup: &Backup, caller: &Caller, scope: &GroupScope, request: &EraseRequest) -> Done<Erased> {
    let by = match caller {
        Caller::Operator => Eraser::Operator,
        // nobody else erases what lives
        _ => Eraser::Staff,
    };
    let life = parse::life_or_none(&request.device_uid)?;
    if request.device_serial.is_empty() {
        if life.is_some() {
            return Err(parse::invalid("a device_uid without device_serial; name both for a device, and neither for a whole group").into());
        }
        return backup.erase_group(scope, &parse::id(&request.incarnation)?, by).await;
    }
    if by == Eraser::Staff {
        let message = "staff erase whole groups only; to erase a device, delete its Device";
        return Err(ServiceError::new(Kind::Denied, "OPERATOR_ONLY", message).into());
    }
    let incarnation = parse::id_or_none(&request.incarnation)?;
    backup.erase_device(scope, incarnation.as_ref(), &parse::id(&request.device_serial)?, life.as_ref()).await
}
