//! Doubles for the tests of servers: an authenticator that needs no cluster, persons without accounts, a history that stores the entries
//! that it received, and a server over real TLS inside the test.

#![allow(clippy::expect_used, clippy::missing_panics_doc)] // compiled for tests only, where a set-up that fails is a failed test

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use prometheus::Registry;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::service::Routes;
use tonic::transport::{Certificate as Pem, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Response, Status};
use tsujiban_core::clock::{Clock, SystemClock};
use tsujiban_core::id::GroupId;
use tsujiban_core::workload::Service;
use tsujiban_proto::access::v1::Operation;
use tsujiban_proto::audit::v1::audit_service_server::{AuditService, AuditServiceServer};
use tsujiban_proto::audit::v1::{
    AppendRequest, AppendResponse, AppendedEntry, Coverage, CoveredRequest, CoveredResponse, DeclareGapRequest, DeclareGapResponse,
    ExportEntriesRequest, ExportEntriesResponse, GetCheckpointRequest, GetCheckpointResponse, GetProofRequest, GetProofResponse,
    ListEntriesRequest, ListEntriesResponse, LogCoverage, LogEntries, NewEntry,
};
use tsujiban_proto::error::{Kind, ServiceError};
use tsujiban_sealing::{Keyring, MasterKey, SealedEpochKey, SystemRandom};

use crate::access::{Access, Guard};
use crate::history::ClientArgs;
use crate::identity::{Authenticator, Identity, PermissionRequest, Person, Persons, Principal, User};
use crate::server::grpc;
use crate::tls::Certificate;

/// The name in the certificates of [`Ca`].
pub const SERVER_NAME: &str = "localhost";

/// Knows the tokens and rights that a test gave it, and nobody else.
#[derive(Debug, Default)]
pub struct KnownCallers(Mutex<BTreeMap<String, Known>>);

#[derive(Debug, Clone)]
struct Known {
    identity: Identity,
    rights: Vec<(String, String)>,
}

impl KnownCallers {
    pub fn new() -> Self {
        Self::default()
    }

    /// `token` is the operator's.
    #[must_use]
    pub fn operator(self, token: &str) -> Self {
        self.with(token, Principal::Operator, &[])
    }

    /// `token` is that of the collector of `group`.
    #[must_use]
    pub fn collector(self, token: &str, group: &GroupId) -> Self {
        self.with(token, Principal::Collector { group: group.clone() }, &[])
    }

    /// `token` is that of a person with rights: (function, verb).
    #[must_use]
    pub fn staff(self, token: &str, name: &str, rights: &[(&str, &str)]) -> Self {
        self.with(token, Principal::Staff { name: name.to_owned() }, rights)
    }

    /// `token` is that of a service of ours.
    #[must_use]
    pub fn service(self, token: &str, service: Service) -> Self {
        self.with(token, Principal::Service(service), &[])
    }

    /// Forgets a token.
    pub fn revoke(&self, token: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(token);
    }

    fn with(self, token: &str, principal: Principal, rights: &[(&str, &str)]) -> Self {
        let identity = Identity { principal, user: User { username: token.to_owned(), ..User::default() } };
        let rights = rights.iter().map(|(function, verb)| ((*function).to_owned(), (*verb).to_owned())).collect();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(token.to_owned(), Known { identity, rights });
        self
    }

    fn find(&self, token: &str) -> Option<Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(token).cloned()
    }
}

#[async_trait]
impl Authenticator for KnownCallers {
    async fn authenticate(&self, token: &str) -> Result<Identity, ServiceError> {
        let unknown = || ServiceError::new(Kind::Unauthenticated, "BAD_TOKEN", "the token is unknown to this test");
        self.find(token).map(|known| known.identity).ok_or_else(unknown)
    }

    async fn allowed(&self, identity: &Identity, function: &str, verb: &str) -> Result<bool, ServiceError> {
        let known = self.find(&identity.user.username);
        Ok(known.is_some_and(|known| known.rights.iter().any(|(f, v)| f == function && v == verb)))
    }
}

/// Knows persons by sessions `session-<account>`. Each may do everything in their groups that a test allows.
#[derive(Debug, Default)]
pub struct KnownPersons(BTreeMap<String, (Person, Vec<(String, Operation)>)>);

impl KnownPersons {
    pub fn new() -> Self {
        Self::default()
    }

    /// A member of groups who may do operations on functions.
    #[must_use]
    pub fn person(mut self, account: &str, groups: &[&str], permissions: &[(&str, Operation)]) -> Self {
        let groups = groups.iter().map(|group| group.parse().expect("a group")).collect();
        let permissions = permissions.iter().map(|(function, operation)| ((*function).to_owned(), *operation)).collect();
        self.0.insert(format!("session-{account}"), (Person { account: account.to_owned(), groups }, permissions));
        self
    }
}

#[async_trait]
impl Persons for KnownPersons {
    fn is_session(&self, token: &str) -> bool {
        token.starts_with("session-")
    }

    async fn authenticate(&self, token: &str) -> Result<Person, ServiceError> {
        let unknown = || ServiceError::new(Kind::Unauthenticated, "BAD_SESSION", "the session is unknown to this test");
        self.0.get(token).map(|(person, _)| person.clone()).ok_or_else(unknown)
    }

    async fn allowed(&self, person: &Person, permission: PermissionRequest<'_>) -> Result<bool, ServiceError> {
        let known = self.0.values().find(|(known, _)| known == person);
        Ok(known.is_some_and(|(_, permissions)| {
            permissions.iter().any(|(function, operation)| function == permission.function && *operation == permission.operation)
        }))
    }
}

/// Epoch keys that a test replaces as it likes.
#[derive(Debug)]
pub struct Epochs {
    master: MasterKey,
    pub keyring: Arc<Keyring>,
}

impl Epochs {
    pub fn new() -> Self {
        let master = MasterKey::generate(&SystemRandom::new()).expect("random bytes");
        let keyring = Keyring::new(master.clone(), &[epoch(&master)]).expect("its own key");
        Self { master, keyring: Arc::new(keyring) }
    }

    /// Keys that lie in a folder, for several processes. They are made if they are missing.
    pub fn in_folder(dir: &Path) -> Self {
        let (master_file, epoch_file) = (dir.join("master"), dir.join("epoch.json"));
        if !epoch_file.exists() {
            let master = MasterKey::generate(&SystemRandom::new()).expect("random bytes");
            std::fs::write(&master_file, master.expose()).expect("a folder");
            std::fs::write(&epoch_file, serde_json::to_vec(&epoch(&master)).expect("JSON")).expect("a folder");
        }
        let master = MasterKey::from_bytes(&std::fs::read(master_file).expect("a key")).expect("a key");
        let epoch = serde_json::from_slice(&std::fs::read(epoch_file).expect("a key")).expect("a key");
        let keyring = Keyring::new(master.clone(), &[epoch]).expect("its own key");
        Self { master, keyring: Arc::new(keyring) }
    }

    /// Replaces all mounted epoch keys by a new one.
    pub fn replace(&self) {
        self.keyring.replace_epochs(&[epoch(&self.master)]).expect("its own key");
    }
}

impl Default for Epochs {
    fn default() -> Self {
        Self::new()
    }
}

fn epoch(master: &MasterKey) -> SealedEpochKey {
    SealedEpochKey::generate(master, &SystemRandom::new(), SystemClock.now()).expect("random bytes")
}

/// The part of the audit service that writers of the history need, over real TLS. It stores the entries that it received.
pub struct FakeAudit {
    told: Arc<Told>,
    server: InProcess,
    dir: TempDir,
}

/// What the fake received, and how it answers.
#[derive(Default)]
struct Told {
    entries: Mutex<Vec<NewEntry>>,
    mood: Mutex<Mood>,
    /// How many of the entries a root list covers.
    covered: Mutex<usize>,
    erased: Mutex<BTreeSet<String>>,
}

/// How a [`FakeAudit`] answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mood {
    #[default]
    Good,
    /// It accepts nothing.
    Down,
    /// It accepts everything, and breaks the connection instead of answering.
    Mute,
    /// It waits this long before it accepts entries.
    Slow(Duration),
    /// It permanently rejects every call with an entry of this group.
    Against(&'static str),
    /// It does not know yet which log is this group's.
    Unclaimed(&'static str),
}

impl FakeAudit {
    /// The token that it accepts as the backup service's.
    pub const TOKEN: &str = "backup-for-audit";

    pub async fn start() -> Self {
        let told = Arc::new(Told::default());
        let routes = Routes::new(AuditServiceServer::from_arc(Arc::clone(&told)));
        let server = serve_in_process(routes, Arc::new(KnownCallers::new().service(Self::TOKEN, Service::Backup))).await;
        let dir = TempDir::new().expect("a folder");
        std::fs::write(dir.path().join("ca.crt"), &server.ca_pem).expect("ca.crt");
        std::fs::write(dir.path().join("token"), Self::TOKEN).expect("token");
        Self { told, server, dir }
    }

    /// How clients reach it.
    pub fn args(&self) -> ClientArgs {
        ClientArgs {
            endpoint: format!("https://{SERVER_NAME}:{}", self.server.address.port()),
            ca_file: self.dir.path().join("ca.crt"),
            token_file: self.dir.path().join("token"),
        }
    }

    pub fn is(&self, mood: Mood) {
        *self.told.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
    }

    /// From now on a root list covers all entries that it has stored.
    pub fn cover(&self) {
        *self.told.covered.lock().unwrap_or_else(PoisonError::into_inner) = self.entries().len();
    }

    /// It loses its newest entries, but none that is covered.
    pub fn lose(&self, count: usize) {
        let covered = *self.told.covered.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries = self.told.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let left = entries.len().saturating_sub(count).max(covered);
        entries.truncate(left);
    }

    /// Marks a group as erased.
    pub fn erase(&self, group: &str) {
        self.told.erased.lock().unwrap_or_else(PoisonError::into_inner).insert(group.to_owned());
    }

    /// The entries that it has stored, each once, in order.
    pub fn entries(&self) -> Vec<NewEntry> {
        self.told.entries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl AuditService for Told {
    async fn append(&self, request: Request<AppendRequest>) -> Result<Response<AppendResponse>, Status> {
        let mood = *self.mood.lock().unwrap_or_else(PoisonError::into_inner);
        let request = request.into_inner();
        match mood {
            Mood::Down => return Err(ServiceError::new(Kind::Unavailable, "DOWN", "the test took it down").into()),
            Mood::Slow(time) => tokio::time::sleep(time).await,
            Mood::Against(group) if request.entries.iter().any(|entry| entry.group == group) => {
                return Err(ServiceError::new(Kind::Invalid, "NEVER", "the test does not want it").into());
            }
            Mood::Unclaimed(group) if request.entries.iter().any(|entry| entry.group == group) => {
                return Err(ServiceError::new(Kind::Unavailable, "UNCLAIMED", "the operator has not said it yet").into());
            }
            Mood::Good | Mood::Mute | Mood::Against(_) | Mood::Unclaimed(_) => {}
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut answer = AppendResponse::default();
        for entry in request.entries {
            let is_duplicate = entries.iter().any(|known| known.id == entry.id);
            if !is_duplicate {
                entries.push(entry);
            }
            answer.entries.push(AppendedEntry { sequence: 0, is_duplicate });
        }
        if mood == Mood::Mute { Err(Status::unavailable("the connection broke")) } else { Ok(Response::new(answer)) }
    }

    async fn covered(&self, request: Request<CoveredRequest>) -> Result<Response<CoveredResponse>, Status> {
        if *self.mood.lock().unwrap_or_else(PoisonError::into_inner) == Mood::Down {
            return Err(ServiceError::new(Kind::Unavailable, "DOWN", "the test took it down").into());
        }
        let covered = *self.covered.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let places: HashMap<_, _> = entries.iter().enumerate().map(|(place, entry)| (entry.id.clone(), place)).collect();
        drop(entries);
        let erased = self.erased.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let coverage = |id: &Vec<u8>| match places.get(id) {
            Some(place) if *place < covered => Coverage::Covered.into(),
            Some(_) => Coverage::Pending.into(),
            None => Coverage::Unknown.into(),
        };
        let log =
            |LogEntries { group, ids }| LogCoverage { is_erased: erased.contains(&group), entries: ids.iter().map(coverage).collect() };
        Ok(Response::new(CoveredResponse { logs: request.into_inner().logs.into_iter().map(log).collect() }))
    }

    async fn list_entries(&self, _: Request<ListEntriesRequest>) -> Result<Response<ListEntriesResponse>, Status> {
        Err(Status::unimplemented("not of a fake"))
    }

    type ExportEntriesStream = tokio_stream::Empty<Result<ExportEntriesResponse, Status>>;

    async fn export_entries(&self, _: Request<ExportEntriesRequest>) -> Result<Response<Self::ExportEntriesStream>, Status> {
        Err(Status::unimplemented("not of a fake"))
    }

    async fn get_proof(&self, _: Request<GetProofRequest>) -> Result<Response<GetProofResponse>, Status> {
        Err(Status::unimplemented("not of a fake"))
    }

    async fn get_checkpoint(&self, _: Request<GetCheckpointRequest>) -> Result<Response<GetCheckpointResponse>, Status> {
        Err(Status::unimplemented("not of a fake"))
    }

    async fn declare_gap(&self, _: Request<DeclareGapRequest>) -> Result<Response<DeclareGapResponse>, Status> {
        Err(Status::unimplemented("not of a fake"))
    }
}

/// An authority that issues serving certificates for [`SERVER_NAME`].
pub struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "a test's authority");
        let key = KeyPair::generate().expect("a key pair");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    /// The authority's own certificate.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Writes a new certificate and its key to `tls.crt` and `tls.key` in `dir`.
    pub fn issue_into(&self, dir: &Path) {
        let key = KeyPair::generate().expect("a key pair");
        let params = CertificateParams::new([SERVER_NAME.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        std::fs::write(dir.join("tls.crt"), certificate.pem()).expect("tls.crt");
        std::fs::write(dir.join("tls.key"), key.serialize_pem()).expect("tls.key");
    }
}

impl Default for Ca {
    fn default() -> Self {
        Self::new()
    }
}

/// A server that runs inside the test until this is dropped.
pub struct InProcess {
    pub address: SocketAddr,
    /// The certificate of the authority that the server's certificate comes from.
    pub ca_pem: String,
    pub registry: Registry,
    /// The serving certificate; its files lie in [`Self::tls_dir`].
    pub certificate: Certificate,
    ca: Ca,
    tls: TempDir,
    _stop: DropGuard,
}

impl InProcess {
    /// Where the server's `tls.crt` and `tls.key` lie.
    pub fn tls_dir(&self) -> &Path {
        self.tls.path()
    }

    /// The authority that the server's certificate comes from.
    pub fn ca(&self) -> &Ca {
        &self.ca
    }

    /// How to reach the server.
    pub fn endpoint(&self) -> Endpoint {
        let tls = ClientTlsConfig::new().ca_certificate(Pem::from_pem(&self.ca_pem)).domain_name(SERVER_NAME);
        Endpoint::from_shared(format!("https://{}", self.address)).and_then(|endpoint| endpoint.tls_config(tls)).expect("an endpoint")
    }

    /// A connection to the server, made with the first call.
    pub fn channel(&self) -> Channel {
        self.endpoint().connect_lazy()
    }
}

/// Serves `routes` behind the access layer, over TLS on a free port of the loopback interface. No history is written.
pub async fn serve_in_process(routes: Routes, authenticator: Arc<dyn Authenticator>) -> InProcess {
    serve_guarded(routes, Guard::new(authenticator, Registry::new())).await
}

/// Serves `routes` behind an access layer of the test's own.
pub async fn serve_guarded(routes: Routes, guard: Guard) -> InProcess {
    let registry = guard.registry.clone();
    let access = Access::new(guard).expect("the access layer");
    let (ca, tls) = (Ca::new(), TempDir::new().expect("a folder"));
    ca.issue_into(tls.path());
    let certificate = Certificate::new(tls.path(), &registry).expect("metrics of the certificate");
    certificate.reload().await.expect("a sound certificate");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let shutdown = CancellationToken::new();
    let (serving, stop) = (certificate.clone(), shutdown.clone());
    tokio::spawn(async move { grpc::serve(listener, &serving, access, routes, stop).await });
    InProcess { address, ca_pem: ca.pem(), registry, certificate, ca, tls, _stop: shutdown.drop_guard() }
}

/// A message with a bearer token.
pub fn with_token<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("a token that metadata can carry"));
    request
}
