//! The stand-in of the backup service, whose answers a power cut can hold back.

use std::future::pending;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use tsujiban_proto::lifecycle::v1::lifecycle_service_server::{LifecycleService, LifecycleServiceServer};
use tsujiban_proto::lifecycle::v1::{
    DetachRequest, DetachResponse, EraseRequest, EraseResponse, ExportRequest, ImportRequest, ImportResponse, PrepareRequest,
    PrepareResponse, ReportRequest, ReportResponse,
};

use super::Crash;
use crate::backup::Backup;

/// Serves a stand-in. What it does for a group counts as a write of that group.
#[derive(Clone)]
pub struct CrashableBackup {
    pub backup: Backup,
    pub crash: Crash,
}

impl CrashableBackup {
    /// Serves without TLS on a free port of loopback, and answers its address.
    pub async fn serve(&self) -> std::io::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = Server::builder().add_service(LifecycleServiceServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Ok(format!("http://{address}"))
    }

    async fn before(&self, group: &str) {
        if self.crash.is_dead(group) {
            pending::<()>().await;
        }
    }

    async fn after<T>(&self, group: &str, call: &str, answer: Result<T, Status>) -> Result<T, Status> {
        if answer.is_ok() && !self.crash.may_answer(group, call) {
            pending::<()>().await;
        }
        answer
    }
}

#[tonic::async_trait]
impl LifecycleService for CrashableBackup {
    type ExportStream = <Backup as LifecycleService>::ExportStream;

    async fn prepare(&self, request: Request<PrepareRequest>) -> Result<Response<PrepareResponse>, Status> {
        let group = request.get_ref().group.clone();
        self.before(&group).await;
        let answer = self.backup.prepare(request).await;
        self.after(&group, "CALL prepare", answer).await
    }

    async fn detach(&self, request: Request<DetachRequest>) -> Result<Response<DetachResponse>, Status> {
        let group = request.get_ref().group.clone();
        self.before(&group).await;
        let answer = self.backup.detach(request).await;
        self.after(&group, "CALL detach", answer).await
    }

    async fn erase(&self, request: Request<EraseRequest>) -> Result<Response<EraseResponse>, Status> {
        let group = request.get_ref().group.clone();
        let call = if request.get_ref().device_serial.is_empty() { "CALL erase group" } else { "CALL erase device" };
        self.before(&group).await;
        let answer = self.backup.erase(request).await;
        self.after(&group, call, answer).await
    }

    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        self.backup.report(request).await
    }

    async fn export(&self, request: Request<ExportRequest>) -> Result<Response<Self::ExportStream>, Status> {
        self.backup.export(request).await
    }

    async fn import(&self, request: Request<Streaming<ImportRequest>>) -> Result<Response<ImportResponse>, Status> {
        self.backup.import(request).await
    }
}
