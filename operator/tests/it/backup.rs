//! A backup service that keeps nothing but the groups' states, and a list of what it was asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

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

#[derive(Clone, Default)]
pub struct Backup {
    groups: Arc<Mutex<BTreeMap<String, (String, GroupState)>>>,
    calls: Arc<Mutex<Vec<String>>>,
}

impl Backup {
    /// Serves without TLS on a free port, and answers its address.
    pub async fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::builder().add_service(LifecycleServiceServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        format!("http://{address}")
    }

    /// Serves over TLS on a free port, and answers its address.
    pub async fn serve_tls(&self, certificate: &[u8], key: &[u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
        let server = Server::builder().tls_config(tls).unwrap().add_service(LifecycleServiceServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        format!("https://localhost:{port}")
    }

    /// The calls since this was asked last.
    pub fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    pub fn set(&self, group: &str, incarnation: &str, state: GroupState) {
        self.groups.lock().unwrap().insert(group.to_owned(), (incarnation.to_owned(), state));
    }

    pub fn report_now(&self) -> ReportResponse {
        let groups = self.groups.lock().unwrap();
        let groups = groups.iter().map(|(group, (incarnation, state))| GroupReport {
            group: group.clone(),
            incarnation: incarnation.clone(),
            state: (*state).into(),
            ..GroupReport::default()
        });
        ReportResponse { groups: groups.collect(), ..ReportResponse::default() }
    }

    fn called(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }
}

#[tonic::async_trait]
impl LifecycleService for Backup {
    type ExportStream = BoxStream<ExportResponse>;

    async fn prepare(&self, request: Request<PrepareRequest>) -> Result<Response<PrepareResponse>, Status> {
        let request = request.into_inner();
        self.called(format!("prepare {} {}", request.group, request.expected_incarnation));
        let mut groups = self.groups.lock().unwrap();
        let fresh = format!("{:032x}", groups.len() + 1);
        let (incarnation, state) = groups.entry(request.group).or_insert((fresh, GroupState::Living));
        let expected = &request.expected_incarnation;
        if *state == GroupState::Erased || !(expected.is_empty() || expected == incarnation) {
            return Err(ServiceError::new(Kind::Precondition, "ERASED", "the group was erased").into());
        }
        *state = GroupState::Living;
        Ok(Response::new(PrepareResponse { incarnation: incarnation.clone(), created: false }))
    }

    async fn detach(&self, request: Request<DetachRequest>) -> Result<Response<DetachResponse>, Status> {
        let request = request.into_inner();
        self.called(format!("detach {} {}", request.group, request.incarnation));
        self.set(&request.group, &request.incarnation, GroupState::Retained);
        Ok(Response::new(DetachResponse {}))
    }

    async fn erase(&self, request: Request<EraseRequest>) -> Result<Response<EraseResponse>, Status> {
        let request = request.into_inner();
        let EraseRequest { group, incarnation, device_serial, device_uid } = &request;
        self.called(format!("erase {group} {incarnation} {device_serial} {device_uid}").trim_end().to_owned());
        if request.device_serial.is_empty() {
            self.set(&request.group, &request.incarnation, GroupState::Erased);
        }
        Ok(Response::new(EraseResponse::default()))
    }

    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        self.called(format!("report with {}", request.metadata().get("authorization").unwrap().to_str().unwrap()));
        Ok(Response::new(self.report_now()))
    }

    async fn export(&self, _request: Request<ExportRequest>) -> Result<Response<Self::ExportStream>, Status> {
        Err(Status::unimplemented("the operator does not export here"))
    }

    async fn import(&self, _request: Request<Streaming<ImportRequest>>) -> Result<Response<ImportResponse>, Status> {
        Err(Status::unimplemented("the operator does not import here"))
    }
}
