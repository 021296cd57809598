//! A stand-in for the audit service. It stores entries in memory as the service does: each once, in one log a group, all of a call or none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codegen::BoxStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tsujiban_proto::audit::v1::audit_service_server::{AuditService, AuditServiceServer};
use tsujiban_proto::audit::v1::{
    AppendRequest, AppendResponse, AppendedEntry, Coverage, CoveredRequest, CoveredResponse, DeclareGapRequest, DeclareGapResponse,
    ExportEntriesRequest, ExportEntriesResponse, GetCheckpointRequest, GetCheckpointResponse, GetProofRequest, GetProofResponse,
    ListEntriesRequest, ListEntriesResponse, LogCoverage, LogEntries, NewEntry, Operation,
};
use tsujiban_proto::error::{Kind, ServiceError};
use tsujiban_proto::lifecycle::v1::lifecycle_service_server::LifecycleServiceServer;

use crate::backup::Backup;

#[derive(Default)]
struct Held {
    logs: BTreeMap<String, Vec<NewEntry>>,
    /// How often an entry arrived that was stored already.
    repeated: usize,
    appends: usize,
    refused: BTreeSet<String>,
    /// How many more appends are done, and then not answered.
    unanswered: usize,
}

/// The stand-in. Clones share what they hold.
#[derive(Clone)]
pub struct History {
    /// The incarnations of the groups that this service knows.
    pub lives: Backup,
    held: Arc<Mutex<Held>>,
}

impl Default for History {
    fn default() -> Self {
        Self { lives: Backup::told(), held: Arc::default() }
    }
}

impl History {
    /// Serves without TLS on a free port of loopback, and answers its address.
    pub async fn serve(&self) -> std::io::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = Server::builder()
            .add_service(LifecycleServiceServer::new(self.lives.clone()))
            .add_service(AuditServiceServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Ok(format!("http://{address}"))
    }

    /// Makes the service refuse everything as an unavailable service does, or makes it available again.
    pub fn set_away(&self, is_away: bool) {
        self.lives.set_away(is_away);
    }

    /// Makes the service refuse every entry of a group, or accept them again.
    pub fn set_refused(&self, group: &str, is_refused: bool) {
        let mut held = self.held();
        if is_refused {
            held.refused.insert(group.to_owned());
        } else {
            held.refused.remove(group);
        }
    }

    /// Stores the entries of the next `how_many` appends and does not answer: a connection that breaks before the answer.
    pub fn lose_answers(&self, how_many: usize) {
        self.held().unanswered = how_many;
    }

    /// Loses the newest entries of a group, as a service does whose database is replaced by an older one.
    pub fn lose(&self, group: &str, how_many: usize) {
        if let Some(log) = self.held().logs.get_mut(group) {
            log.truncate(log.len().saturating_sub(how_many));
        }
    }

    /// The operations in a group's log, in their order.
    pub fn operations(&self, group: &str) -> Vec<Operation> {
        self.held().logs.get(group).into_iter().flatten().filter_map(|entry| entry.operation.clone()).collect()
    }

    /// The groups that have a log.
    pub fn groups(&self) -> Vec<String> {
        self.held().logs.keys().cloned().collect()
    }

    /// A line for each operation of a group: function, operation, target, generations, who.
    pub fn lines(&self, group: &str) -> Vec<String> {
        let line = |operation: Operation| {
            let generations = operation.detail.get("generations").map_or("", String::as_str);
            let verb = operation.operation().as_str_name().trim_start_matches("OPERATION_").to_lowercase();
            let actor = operation.actor.unwrap_or_default().id;
            format!("{} {verb} {} {generations} by {actor}", operation.function, operation.target)
        };
        self.operations(group).into_iter().map(line).collect()
    }

    /// How often an entry arrived that was stored already.
    pub fn repeated(&self) -> usize {
        self.held().repeated
    }

    /// How often Append was called since this function was called last.
    pub fn appends(&self) -> usize {
        std::mem::take(&mut self.held().appends)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl AuditService for History {
    type ExportEntriesStream = BoxStream<ExportEntriesResponse>;

    async fn append(&self, request: Request<AppendRequest>) -> Result<Response<AppendResponse>, Status> {
        self.lives.note_call("append")?;
        let AppendRequest { entries } = request.into_inner();
        let mut held = self.held();
        held.appends += 1;
        if entries.is_empty() || entries.len() > 256 {
            return Err(ServiceError::new(Kind::Invalid, "ENTRIES", "1 to 256 entries are taken at a time").into());
        }
        if let Some(entry) = entries.iter().find(|entry| held.refused.contains(&entry.group)) {
            return Err(ServiceError::new(Kind::Precondition, "REFUSED", format!("nothing is taken for {}", entry.group)).into());
        }
        let mut answers = Vec::with_capacity(entries.len());
        for entry in entries {
            let log = held.logs.entry(entry.group.clone()).or_default();
            let known = log.iter().position(|known| known.id == entry.id);
            let sequence = u64::try_from(known.unwrap_or(log.len())).unwrap_or(u64::MAX);
            answers.push(AppendedEntry { sequence, is_duplicate: known.is_some() });
            if known.is_some() {
                held.repeated += 1;
            } else {
                log.push(entry);
            }
        }
        if held.unanswered > 0 {
            held.unanswered -= 1;
            return Err(Status::unavailable("the answer is lost"));
        }
        Ok(Response::new(AppendResponse { entries: answers }))
    }

    async fn covered(&self, request: Request<CoveredRequest>) -> Result<Response<CoveredResponse>, Status> {
        self.lives.note_call("covered")?;
        let held = self.held();
        let log = |LogEntries { group, ids }| {
            let is_there = |id: &Vec<u8>| held.logs.get(&group).is_some_and(|log| log.iter().any(|entry| entry.id == *id));
            let coverage = |id| if is_there(id) { Coverage::Pending } else { Coverage::Unknown };
            LogCoverage { is_erased: false, entries: ids.iter().map(|id| coverage(id).into()).collect() }
        };
        Ok(Response::new(CoveredResponse { logs: request.into_inner().logs.into_iter().map(log).collect() }))
    }

    async fn list_entries(&self, _request: Request<ListEntriesRequest>) -> Result<Response<ListEntriesResponse>, Status> {
        Err(Status::unimplemented("the operator does not list here"))
    }

    async fn export_entries(&self, _request: Request<ExportEntriesRequest>) -> Result<Response<Self::ExportEntriesStream>, Status> {
        Err(Status::unimplemented("the operator does not export here"))
    }

    async fn get_proof(&self, _request: Request<GetProofRequest>) -> Result<Response<GetProofResponse>, Status> {
        Err(Status::unimplemented("the operator proves nothing here"))
    }

    async fn get_checkpoint(&self, _request: Request<GetCheckpointRequest>) -> Result<Response<GetCheckpointResponse>, Status> {
        Err(Status::unimplemented("the operator proves nothing here"))
    }

    async fn declare_gap(&self, _request: Request<DeclareGapRequest>) -> Result<Response<DeclareGapResponse>, Status> {
        Err(Status::unimplemented("the operator declares nothing here"))
    }
}
