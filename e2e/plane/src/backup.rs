//! A stand-in for the backup service. It stores the incarnations of groups by the same rules as the service, and the serial numbers of
//! erased devices, but no data; and it lists the calls that it received.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::digest::{SHA256, digest};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codegen::BoxStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};
use tsujiban_proto::error::{Kind, ServiceError};
use tsujiban_proto::lifecycle::v1::lifecycle_service_server::{LifecycleService, LifecycleServiceServer};
use tsujiban_proto::lifecycle::v1::{
    DetachRequest, DetachResponse, EraseRequest, EraseResponse, ExportRequest, ExportResponse, GroupReport, GroupState, ImportRequest,
    ImportResponse, PrepareRequest, PrepareResponse, ReportRequest, ReportResponse,
};

/// One incarnation of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    pub incarnation: String,
    pub state: GroupState,
    /// Serial number and Device uid of each device that was erased on its own, in that order.
    pub erased_devices: Vec<(String, String)>,
}

#[derive(Default)]
struct Held {
    groups: Vec<Group>,
    calls: Vec<String>,
    minted: u64,
    is_away: bool,
    /// Whether it adopts the incarnation that its caller names, as all services but the backup service do.
    is_told: bool,
}

/// The stand-in. Clones share what they hold.
#[derive(Clone, Default)]
pub struct Backup(Arc<Mutex<Held>>);

impl Backup {
    /// A service of another kind, which mints no incarnation but adopts the one that its caller names.
    pub(crate) fn told() -> Self {
        let backup = Self::default();
        backup.held().is_told = true;
        backup
    }

    /// Serves without TLS on a free port of loopback, and answers its address.
    pub async fn serve(&self) -> std::io::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = Server::builder().add_service(LifecycleServiceServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Ok(format!("http://{address}"))
    }

    /// Serves over TLS on a free port of loopback, and answers its address.
    pub async fn serve_tls(&self, certificate: &[u8], key: &[u8]) -> Result<String, Box<dyn std::error::Error>> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
        let server = Server::builder().tls_config(tls)?.add_service(LifecycleServiceServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Ok(format!("https://localhost:{port}"))
    }

    /// The calls since this function was called last.
    pub fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.held().calls)
    }

    /// Every incarnation of every group, in the order in which they began.
    pub fn groups(&self) -> Vec<Group> {
        self.held().groups.clone()
    }

    /// The newest incarnation of a group.
    pub fn group(&self, name: &str) -> Option<Group> {
        self.held().groups.iter().rev().find(|group| group.name == name).cloned()
    }

    /// Makes the service refuse everything as an unavailable service does, or makes it available again.
    pub fn set_away(&self, is_away: bool) {
        self.held().is_away = is_away;
    }

    /// Puts a group into a state, whatever it was.
    pub fn set(&self, name: &str, incarnation: &str, state: GroupState) {
        let mut held = self.held();
        if let Some(group) = held.groups.iter_mut().find(|group| group.incarnation == incarnation) {
            group.state = state;
            return;
        }
        held.groups.push(Group { name: name.to_owned(), incarnation: incarnation.to_owned(), state, erased_devices: Vec::new() });
    }

    /// Lets the id of an erased group be used again, as the service does after 35 days and more.
    pub fn free_id(&self, name: &str) {
        self.held().groups.retain(|group| !(group.name == name && group.state == GroupState::Erased));
    }

    pub fn report_now(&self) -> ReportResponse {
        let held = self.held();
        let newest: BTreeMap<&str, &Group> = held.groups.iter().map(|group| (group.incarnation.as_str(), group)).collect();
        let groups = newest.values().map(|group| GroupReport {
            group: group.name.clone(),
            incarnation: group.incarnation.clone(),
            state: group.state.into(),
            ..GroupReport::default()
        });
        let erased = held.groups.iter().flat_map(|group| &group.erased_devices).filter_map(|(_, uid)| digest_of(uid));
        ReportResponse { groups: groups.collect(), erased_devices: erased.collect(), ..ReportResponse::default() }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same for a stand-in that serves more methods than this one.
    pub(crate) fn note_call(&self, call: &str) -> Result<(), Status> {
        self.called(call).map(drop)
    }

    /// Notes a call, and refuses it while the service is away.
    fn called(&self, call: &str) -> Result<MutexGuard<'_, Held>, Status> {
        let mut held = self.held();
        if held.is_away {
            return Err(Status::unavailable("the service is away"));
        }
        held.calls.push(call.trim_end().to_owned());
        Ok(held)
    }
}

/// The log of a group's history: the one that is expected, else one of the incarnation.
fn log_of(incarnation: &str, expected: &str) -> String {
    if expected.is_empty() { format!("f{}", incarnation.get(1..).unwrap_or_default()) } else { expected.to_owned() }
}

/// An erased Device as a report names it.
fn digest_of(uid: &str) -> Option<Vec<u8>> {
    let bytes = hex::decode(uid.replace('-', "")).ok()?;
    Some(digest(&SHA256, &bytes).as_ref().to_vec())
}

fn refused(reason: &'static str, message: &str) -> Status {
    ServiceError::new(Kind::Precondition, reason, message).into()
}

#[tonic::async_trait]
impl LifecycleService for Backup {
    type ExportStream = BoxStream<ExportResponse>;

    async fn prepare(&self, request: Request<PrepareRequest>) -> Result<Response<PrepareResponse>, Status> {
        let PrepareRequest { group: name, expected_incarnation: expected, expected_log } = request.into_inner();
        let mut held = self.called(&format!("prepare {name} {expected} {expected_log}"))?;
        let is_told = held.is_told;
        let log = |incarnation: &str| if is_told { log_of(incarnation, &expected_log) } else { String::new() };
        if let Some(group) = held.groups.iter_mut().find(|group| group.name == name && group.state != GroupState::Erased) {
            if !(expected.is_empty() || expected == group.incarnation) {
                return Err(refused("OTHER_INCARNATION", "the namespace names another incarnation than the service has"));
            }
            group.state = GroupState::Living;
            let log = log(&group.incarnation);
            return Ok(Response::new(PrepareResponse { incarnation: group.incarnation.clone(), created: false, log }));
        }
        if held.groups.iter().any(|group| group.name == name && group.incarnation == expected) {
            return Err(refused("ERASED", "the incarnation that the namespace names was erased"));
        }
        if held.is_told {
            if expected.is_empty() {
                return Err(refused("NO_INCARNATION", "only the backup service mints incarnations"));
            }
            let group = Group { name, incarnation: expected.clone(), state: GroupState::Living, erased_devices: Vec::new() };
            held.groups.push(group);
            let log = log(&expected);
            return Ok(Response::new(PrepareResponse { incarnation: expected, created: true, log }));
        }
        if !expected.is_empty() {
            return Err(refused("OTHER_INCARNATION", "the namespace names an incarnation that the service does not have"));
        }
        if held.groups.iter().any(|group| group.name == name) {
            return Err(refused("ID_NOT_FREE", "the group was erased, and its data has not expired"));
        }
        held.minted += 1;
        let incarnation = format!("{:032x}", held.minted);
        held.groups.push(Group { name, incarnation: incarnation.clone(), state: GroupState::Living, erased_devices: Vec::new() });
        Ok(Response::new(PrepareResponse { incarnation, created: true, log: String::new() }))
    }

    async fn detach(&self, request: Request<DetachRequest>) -> Result<Response<DetachResponse>, Status> {
        let DetachRequest { group: name, incarnation } = request.into_inner();
        let mut held = self.called(&format!("detach {name} {incarnation}"))?;
        match held.groups.iter_mut().find(|group| group.name == name && group.incarnation == incarnation) {
            Some(group) if group.state == GroupState::Erased => Err(refused("ERASED", "the group was erased")),
            Some(group) => {
                group.state = GroupState::Retained;
                Ok(Response::new(DetachResponse {}))
            }
            None => Err(ServiceError::new(Kind::NotFound, "NO_INCARNATION", "there is no such incarnation").into()),
        }
    }

    async fn erase(&self, request: Request<EraseRequest>) -> Result<Response<EraseResponse>, Status> {
        let EraseRequest { group: name, incarnation, device_serial, device_uid } = request.into_inner();
        let mut held = self.called(&format!("erase {name} {incarnation} {device_serial} {device_uid}"))?;
        let Some(group) = held.groups.iter_mut().find(|group| group.name == name && group.incarnation == incarnation) else {
            return Err(ServiceError::new(Kind::NotFound, "NO_INCARNATION", "there is no such incarnation").into());
        };
        if device_serial.is_empty() {
            group.state = GroupState::Erased;
        } else if group.state != GroupState::Erased {
            group.erased_devices.push((device_serial, device_uid));
        }
        Ok(Response::new(EraseResponse::default()))
    }

    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or("nothing");
        let call = format!("report with {token}");
        drop(self.called(&call)?);
        Ok(Response::new(self.report_now()))
    }

    async fn export(&self, _request: Request<ExportRequest>) -> Result<Response<Self::ExportStream>, Status> {
        Err(Status::unimplemented("the operator does not export here"))
    }

    async fn import(&self, _request: Request<Streaming<ImportRequest>>) -> Result<Response<ImportResponse>, Status> {
        Err(Status::unimplemented("the operator does not import here"))
    }
}
