//! The contract of a group's life (`tsujiban.lifecycle.v1`), served once for all services: requests are checked here, and a [`Holder`] does
//! what they ask for.

use std::future::Future;
use std::sync::Arc;

use futures::stream;
use jiff::Timestamp;
use tonic::{Request, Response, Status, Streaming};
use tsujiban_core::id::{GroupId, IncarnationId, SerialNumber};
use tsujiban_core::workload::Service;
use tsujiban_proto::error::{Kind, ServiceError};
use tsujiban_proto::lifecycle::v1::import_request::Part;
use tsujiban_proto::lifecycle::v1::lifecycle_service_server::{LifecycleService, LifecycleServiceServer};
use tsujiban_proto::lifecycle::v1::{
    DetachRequest, DetachResponse, EraseRequest, EraseResponse, ExportRequest, ExportResponse, ImportRequest, ImportResponse,
    PrepareRequest, PrepareResponse, ReportRequest, ReportResponse,
};
use tsujiban_proto::time::to_wire;
use uuid::Uuid;

use crate::answers::{Answers, in_chunks};
use crate::caller::{Caller, GroupScope};
use crate::parse::{device_uid_or_none, id, id_or_none, invalid};

/// Who wants a group erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eraser {
    /// On the intent recorded in a Tenant.
    Operator,
    /// Only what is retained.
    Staff,
}

/// A group that a service is ready for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    pub incarnation: IncarnationId,
    pub created: bool,
    /// The id of its log; empty from services that have none.
    pub log: String,
}

/// What an erasure leaves behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Left {
    pub snapshots: u64,
    /// Until when the last object is locked. It is unreadable already.
    pub last_object_until: Option<Timestamp>,
}

/// A Device whose data is to be erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErasedDevice {
    /// `None`: the group's living incarnation.
    pub incarnation: Option<IncarnationId>,
    pub serial: SerialNumber,
    /// From now on the service stores nothing for the Device resource with this uid.
    pub uid: Option<Uuid>,
}

/// A service that holds groups' data.
pub trait Holder: Send + Sync + Sized + 'static {
    type Error: Into<Status> + From<ServiceError> + Send;
    /// A running export of a group's data.
    type Export: Send;
    /// A running import of a group's data.
    type Import: Send;

    /// Makes the service ready for a group. `expected_log` is the log that the group's namespace names, for the service that keeps logs.
    fn prepare(
        &self,
        scope: &GroupScope,
        expected: Option<&IncarnationId>,
        expected_log: &str,
    ) -> impl Future<Output = Result<Prepared, Self::Error>> + Send;

    /// Notes that the group's Tenant is deleted and its data is retained.
    fn detach(&self, scope: &GroupScope, incarnation: &IncarnationId) -> impl Future<Output = Result<(), Self::Error>> + Send;

    fn begin_export(
        &self,
        scope: &GroupScope,
        incarnation: &IncarnationId,
    ) -> impl Future<Output = Result<Self::Export, Self::Error>> + Send;

    /// The next piece; `None` after the last.
    fn export(&self, export: &mut Self::Export) -> impl Future<Output = Result<Option<Vec<u8>>, Self::Error>> + Send;

    fn begin_import(
        &self,
        scope: &GroupScope,
        incarnation: &IncarnationId,
    ) -> impl Future<Output = Result<Self::Import, Self::Error>> + Send;

    fn import(&self, import: &mut Self::Import, piece: &[u8]) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Returns how many records were imported.
    fn end_import(&self, import: Self::Import) -> impl Future<Output = Result<u64, Self::Error>> + Send;

    /// Erases all data of a group, so that it is unreadable when this answers.
    fn erase_group(
        &self,
        scope: &GroupScope,
        incarnation: &IncarnationId,
        by: Eraser,
    ) -> impl Future<Output = Result<Left, Self::Error>> + Send;

    /// Erases all data of a device. By default nothing: the service has no data of single devices.
    fn erase_device(&self, _scope: &GroupScope, _device: &ErasedDevice) -> impl Future<Output = Result<Left, Self::Error>> + Send {
        async { Ok(Left::default()) }
    }

    /// Reports the data that the service holds, of one group or of all.
    fn report(&self, only: Option<&GroupId>) -> impl Future<Output = Result<ReportResponse, Self::Error>> + Send;

    /// The status of a failed report.
    fn explain(&self, error: Self::Error) -> Status {
        error.into()
    }
}

/// The gRPC service over a holder.
pub fn server<H: Holder>(holder: &Arc<H>) -> LifecycleServiceServer<Adapter<H>> {
    LifecycleServiceServer::new(Adapter(Arc::clone(holder)))
}

/// Serves the contract.
#[derive(Debug)]
pub struct Adapter<H>(Arc<H>);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl<H: Holder> LifecycleService for Adapter<H> {
    type ExportStream = Answers<ExportResponse>;

    async fn prepare(&self, request: Request<PrepareRequest>) -> Answer<PrepareResponse> {
        let PrepareRequest { group, expected_incarnation, expected_log } = request.get_ref();
        let scope = Caller::of(&request)?.scope(group)?;
        let expected = id_or_none(expected_incarnation)?;
        let prepared = self.0.prepare(&scope, expected.as_ref(), expected_log).await.map_err(Into::into)?;
        let Prepared { incarnation, created, log } = prepared;
        Ok(Response::new(PrepareResponse { incarnation: incarnation.to_string(), created, log }))
    }

    async fn detach(&self, request: Request<DetachRequest>) -> Answer<DetachResponse> {
        let scope = Caller::of(&request)?.scope(&request.get_ref().group)?;
        self.0.detach(&scope, &id(&request.get_ref().incarnation)?).await.map_err(Into::into)?;
        Ok(Response::new(DetachResponse {}))
    }

    async fn export(&self, request: Request<ExportRequest>) -> Answer<Self::ExportStream> {
        let scope = Caller::of(&request)?.scope(&request.get_ref().group)?;
        let export = self.0.begin_export(&scope, &id(&request.get_ref().incarnation)?).await.map_err(Into::into)?;
        let pieces = stream::try_unfold((Arc::clone(&self.0), export), |(holder, mut export)| async move {
            Ok::<_, H::Error>(holder.export(&mut export).await?.map(|piece| (piece, (holder, export))))
        });
        Ok(Response::new(in_chunks(pieces, |chunk| ExportResponse { chunk })))
    }

    async fn import(&self, request: Request<Streaming<ImportRequest>>) -> Answer<ImportResponse> {
        let caller = Caller::of(&request)?.clone();
        let mut stream = request.into_inner();
        let out_of_order = || ServiceError::new(Kind::Invalid, "OUT_OF_ORDER", "send a header, then what Export gave, and nothing else");
        let Some(ImportRequest { part: Some(Part::Header(header)) }) = stream.message().await? else { return Err(out_of_order().into()) };
        let scope = caller.scope(&header.group)?;
        let mut import = self.0.begin_import(&scope, &id(&header.incarnation)?).await.map_err(Into::into)?;
        while let Some(message) = stream.message().await? {
            let Some(Part::Chunk(chunk)) = message.part else { return Err(out_of_order().into()) };
            self.0.import(&mut import, &chunk).await.map_err(Into::into)?;
        }
        let records = self.0.end_import(import).await.map_err(Into::into)?;
        Ok(Response::new(ImportResponse { records }))
    }

    async fn erase(&self, request: Request<EraseRequest>) -> Answer<EraseResponse> {
        let caller = Caller::of(&request)?.clone();
        let request = request.into_inner();
        let scope = caller.scope(&request.group)?;
        // only the operator may erase a living group
        let by = if matches!(caller, Caller::Operator) { Eraser::Operator } else { Eraser::Staff };
        let what = Erasure::of(&request, by)?;
        let holder = Arc::clone(&self.0);
        // in a task of its own: an erasure that has begun is finished, even when the caller disconnects
        let erased = tokio::spawn(async move {
            match what {
                Erasure::Group(incarnation) => holder.erase_group(&scope, &incarnation, by).await,
                Erasure::Device(device) => holder.erase_device(&scope, &device).await,
            }
            .map_err(Into::<Status>::into)
        });
        let unfinished = |_| Status::internal("the erasure could not be finished; the service's log says more");
        let Left { snapshots, last_object_until } = erased.await.map_err(unfinished)??;
        Ok(Response::new(EraseResponse { snapshots, last_object_until: last_object_until.map(to_wire) }))
    }

    async fn report(&self, request: Request<ReportRequest>) -> Answer<ReportResponse> {
        let only = match request.get_ref().group.as_str() {
            "" => None,
            group => Some(Caller::of(&request)?.scope(group)?),
        };
        let reported = self.0.report(only.as_ref().map(GroupScope::group)).await;
        reported.map(Response::new).map_err(|error| self.0.explain(error))
    }
}

/// What a request asks to erase.
#[derive(Debug, PartialEq, Eq)]
enum Erasure {
    Group(IncarnationId),
    Device(ErasedDevice),
}

impl Erasure {
    fn of(request: &EraseRequest, by: Eraser) -> Result<Self, ServiceError> {
        let uid = device_uid_or_none(&request.device_uid)?;
        if request.device_serial.is_empty() {
            if uid.is_some() {
                return Err(invalid("a device_uid without device_serial; name both for a device, and neither for a whole group"));
            }
            return Ok(Self::Group(id(&request.incarnation)?));
        }
        if by == Eraser::Staff {
            let message = "staff erase whole groups only; to erase a device, delete its Device";
            return Err(ServiceError::new(Kind::Denied, "OPERATOR_ONLY", message));
        }
        Ok(Self::Device(ErasedDevice { incarnation: id_or_none(&request.incarnation)?, serial: id(&request.device_serial)?, uid }))
    }
}

/// The namespace of a group names an incarnation that the service does not have.
pub fn other_incarnation(service: Service, group: &GroupId, expected: &IncarnationId, present: Option<&IncarnationId>) -> ServiceError {
    let there = present.map_or_else(|| "no incarnation with data".to_owned(), |present| format!("incarnation {present}"));
    let message = format!(
        "the namespace of group {group} names incarnation {expected}, but the {service} has {there}; \
         restore the service's data, or remove the annotation tsujiban.dev/incarnation to go on without what it named"
    );
    ServiceError::new(Kind::Precondition, "OTHER_INCARNATION", message)
}

/// The namespace of a group names an incarnation that was erased.
pub fn erased(group: &GroupId, expected: &IncarnationId) -> ServiceError {
    let message = format!(
        "incarnation {expected}, which the namespace of group {group} names, was erased: a cluster that was restored to a copy from \
         before has brought namespace and Tenant back, but not the data; delete the Tenant, and what is left of it goes, too"
    );
    ServiceError::new(Kind::Precondition, "ERASED", message)
}

/// A request to retain the data of a group that was erased.
pub fn nothing_to_keep(group: &GroupId, incarnation: &IncarnationId) -> ServiceError {
    let message = format!("incarnation {incarnation} of group {group} was erased; there is nothing to keep");
    ServiceError::new(Kind::Precondition, "ERASED", message)
}

/// An id whose last owner's data has not gone yet.
pub fn id_not_free(group: &GroupId, free_at: Timestamp) -> ServiceError {
    let message = format!("data of an erased group {group} has not expired; use the id again after {free_at}, or choose another one");
    ServiceError::new(Kind::Precondition, "ID_NOT_FREE", message)
}

/// Staff want a group erased whose Tenant lives.
pub fn group_lives(group: &GroupId) -> ServiceError {
    let message = format!("the Tenant of group {group} lives; delete it with deletionPolicy Erase instead");
    ServiceError::new(Kind::Precondition, "GROUP_LIVES", message)
}

/// An incarnation that the group never had here.
pub fn no_incarnation(group: &GroupId, incarnation: &IncarnationId) -> ServiceError {
    let message = format!("group {group} has no incarnation {incarnation}; ask for a report of those there are");
    ServiceError::new(Kind::NotFound, "NO_INCARNATION", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INCARNATION: &str = "00000000000000000000000000000000";

    fn erasure(serial: &str, uid: &str, by: Eraser) -> Result<Erasure, String> {
        let request =
            EraseRequest { group: "acme".into(), incarnation: INCARNATION.into(), device_serial: serial.into(), device_uid: uid.into() };
        Erasure::of(&request, by).map_err(|error| error.reason)
    }

    /// C24: staff erase groups that are retained, and devices go with their Devices.
    #[test]
    fn only_the_operator_erases_devices() {
        let uid = "8c2f6b0e-8f4b-4a51-9a76-0d7f7b1f2a11";
        assert!(matches!(erasure("", "", Eraser::Staff), Ok(Erasure::Group(_))));
        assert!(matches!(erasure("SN1", uid, Eraser::Operator), Ok(Erasure::Device(ErasedDevice { uid: Some(_), .. }))));
        assert_eq!(erasure("SN1", uid, Eraser::Staff), Err("OPERATOR_ONLY".into()));
        assert_eq!(erasure("", uid, Eraser::Operator), Err("INVALID".into()), "a uid alone names no device");
        assert_eq!(erasure("SN1", "x", Eraser::Operator), Err("INVALID".into()));
    }
}
