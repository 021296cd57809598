use std::sync::Arc;

use futures::stream;
use tonic::{Request, Response, Status, Streaming};
use tsujiban_core::id::IncarnationId;
use tsujiban_history::LogId;
use tsujiban_proto::error::{Kind, ServiceError};
use tsujiban_proto::lifecycle::v1 as wire;
use tsujiban_proto::lifecycle::v1::import_request::Part;
use tsujiban_proto::lifecycle::v1::lifecycle_service_server::LifecycleService;
use tsujiban_proto::lifecycle::v1::{
    DetachRequest, DetachResponse, EraseRequest, EraseResponse, ExportRequest, ExportResponse, ImportRequest, ImportResponse,
    PrepareRequest, PrepareResponse, ReportRequest, ReportResponse,
};
use tsujiban_proto::time::to_wire;
use tsujiban_service::answers::{Answers, in_chunks};
use tsujiban_service::caller::{Caller, GroupScope};

use crate::error::{Error, Result as Done};
use crate::lifecycle::{Eraser, Group, GroupState, Prepared};
use crate::scrub::Integrity;
use crate::service::Audit;
use crate::snapshot::{Import, Snapshot};
use crate::synchronised::Synchronisation;

pub struct Api(pub Arc<Audit>);

type Answer<T> = Result<Response<T>, Status>;

fn incarnation(text: &str) -> Done<IncarnationId> {
    text.parse().map_err(|error: tsujiban_core::id::InvalidId| Error::invalid(error.to_string()))
}

fn incarnation_or_none(text: &str) -> Done<Option<IncarnationId>> {
    if text.is_empty() { Ok(None) } else { incarnation(text).map(Some) }
}

fn log_or_none(text: &str) -> Done<Option<LogId>> {
    let invalid = |error: tsujiban_history::id::InvalidId| Error::invalid(error.to_string());
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(invalid) }
}

#[tonic::async_trait]
impl LifecycleService for Api {
    type ExportStream = Answers<ExportResponse>;

    async fn prepare(&self, request: Request<PrepareRequest>) -> Answer<PrepareResponse> {
        let scope = Caller::of(&request)?.scope(&request.get_ref().group)?;
        let expected = incarnation_or_none(&request.get_ref().expected_incarnation)?;
        let log = log_or_none(&request.get_ref().expected_log)?;
        let Prepared { incarnation, created, log } = self.0.prepare(&scope, expected.as_ref(), log).await?;
        Ok(Response::new(PrepareResponse { incarnation: incarnation.to_string(), created, log: log.to_string() }))
    }

    async fn detach(&self, request: Request<DetachRequest>) -> Answer<DetachResponse> {
        let scope = Caller::of(&request)?.scope(&request.get_ref().group)?;
        self.0.detach(&scope, &incarnation(&request.get_ref().incarnation)?).await?;
        Ok(Response::new(DetachResponse {}))
    }

    async fn export(&self, request: Request<ExportRequest>) -> Answer<Self::ExportStream> {
        let scope = Caller::of(&request)?.scope(&request.get_ref().group)?;
        let snapshot = Snapshot::begin(&self.0, &scope, &incarnation(&request.get_ref().incarnation)?).await?;
        let pieces = stream::try_unfold((Arc::clone(&self.0), snapshot), |(audit, mut snapshot)| async move {
            Ok::<_, Error>(snapshot.next(&audit).await?.map(|piece| (piece, (audit, snapshot))))
        });
        Ok(Response::new(in_chunks(pieces, |chunk| ExportResponse { chunk })))
    }

    async fn import(&self, request: Request<Streaming<ImportRequest>>) -> Answer<ImportResponse> {
        let caller = Caller::of(&request)?.clone();
        let mut stream = request.into_inner();
        let out_of_order = || ServiceError::new(Kind::Invalid, "OUT_OF_ORDER", "send a header, then what Export gave, and nothing else");
        let Some(ImportRequest { part: Some(Part::Header(header)) }) = stream.message().await? else { return Err(out_of_order().into()) };
        let scope = caller.scope(&header.group)?;
        let mut import = Import::begin(&self.0, &scope, &incarnation(&header.incarnation)?).await?;
        while let Some(message) = stream.message().await? {
            let Some(Part::Chunk(chunk)) = message.part else { return Err(out_of_order().into()) };
            import.push(&self.0, &chunk).await?;
        }
        Ok(Response::new(ImportResponse { records: import.end(&self.0).await? }))
    }

    async fn erase(&self, request: Request<EraseRequest>) -> Answer<EraseResponse> {
        let caller = Caller::of(&request)?.clone();
        let request = request.into_inner();
        let scope = caller.scope(&request.group)?;
        if !request.device_serial.is_empty() {
            // what was done with a device is the group's history, and goes day by day
            return match caller {
                Caller::Staff(_) => {
                    let message = "staff erase whole groups only; to erase a device, delete its Device";
                    Err(ServiceError::new(Kind::Denied, "OPERATOR_ONLY", message).into())
                }
                _ => Ok(Response::new(EraseResponse { snapshots: 0, last_object_until: None })),
            };
        }
        let by = if matches!(caller, Caller::Staff(_)) { Eraser::Staff } else { Eraser::Operator };
        let last = self.0.erase_group(&scope, &incarnation(&request.incarnation)?, by).await?;
        Ok(Response::new(EraseResponse { snapshots: 0, last_object_until: last.map(to_wire) }))
    }

    async fn report(&self, request: Request<ReportRequest>) -> Answer<ReportResponse> {
        let only = match request.get_ref().group.as_str() {
            "" => None,
            group => Some(Caller::of(&request)?.scope(group)?),
        };
        let reported = reported(&self.0, only.as_ref()).await;
        reported.map(Response::new).map_err(|error| self.0.writing.explain(error.into()).into())
    }
}

/// What is held, of one group or of all.
async fn reported(audit: &Audit, only: Option<&GroupScope>) -> Done<ReportResponse> {
    let groups = audit.groups(only.map(GroupScope::group)).await?;
    let known = audit.integrity().await?;
    let shared_integrity = match only {
        None => Some(integrity(audit.shared_integrity(&known).await?)),
        Some(_) => None,
    };
    let with_integrity = |group: &Group| {
        let known = known.get(&group.number).cloned().unwrap_or_default();
        let writing = audit.refusal_of(group.number);
        Some(wire::GroupReport { integrity: Some(integrity(known)), writing, ..report(group)? })
    };
    Ok(ReportResponse {
        groups: groups.iter().filter(|group| group.is_sealed).filter_map(with_integrity).collect(),
        canary: None,
        epochs_in_use: audit.epochs_in_use().await?,
        erased_devices: Vec::new(),
        clock_synchronised: Synchronisation::read().ok().map(|clock| clock.synchronised),
        writing: Some(audit.writing_report()),
        shared_integrity,
    })
}

fn integrity(integrity: Integrity) -> wire::Integrity {
    let state = match &integrity {
        Integrity { damaged_count: 1.., .. } => wire::IntegrityState::Damaged,
        Integrity { checked_at: Some(_), .. } => wire::IntegrityState::Intact,
        Integrity { checked_at: None, .. } => wire::IntegrityState::Unspecified,
    };
    wire::Integrity {
        state: state.into(),
        damaged: integrity.damaged,
        damaged_count: integrity.damaged_count,
        checked_at: integrity.checked_at.map(to_wire),
    }
}

/// Logs of groups that were never prepared are no incarnations yet.
fn report(group: &Group) -> Option<wire::GroupReport> {
    let state = match group.state {
        GroupState::Living => wire::GroupState::Living,
        GroupState::Retained => wire::GroupState::Retained,
        GroupState::Erased => wire::GroupState::Erased,
    };
    Some(wire::GroupReport {
        group: group.group.clone(),
        incarnation: group.incarnation.as_ref()?.to_string(),
        state: state.into(),
        prepared_at: Some(to_wire(group.made_at)),
        ended_at: group.ended_at.map(to_wire),
        id_free_at: group.last_until.filter(|_| group.state == GroupState::Erased).map(to_wire),
        devices: 0,
        snapshots: 0,
        stored_bytes: 0,
        integrity: None,
        writing: None,
    })
}
