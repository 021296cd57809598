//! Doubles for the tests of servers: an authenticator that needs no cluster, persons without accounts, a history that remembers what it
//! was told, and a server over real TLS inside the test.

#![allow(clippy::expect_used, clippy::missing_panics_doc)] // compiled for tests only, where a set-up that fails is a failed test

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use prometheus::Registry;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Request;
use tonic::service::Routes;
use tonic::transport::{Certificate as Pem, Channel, ClientTlsConfig, Endpoint};
use tsujiban_core::clock::{Clock, SystemClock};
use tsujiban_core::id::{GroupId, KeyId};
use tsujiban_proto::access::v1::Operation;
use tsujiban_proto::error::{Kind, ServiceError};
use tsujiban_sealing::{EpochKey, MasterKey, SealedEpochKey, SystemRandom};

use crate::access::{Access, Guard};
use crate::history::spool::EpochKeys;
use crate::identity::{Authenticator, Identity, Person, Persons, Principal, User, Wish};
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

    /// `token` is the backup service's.
    #[must_use]
    pub fn backup(self, token: &str) -> Self {
        self.with(token, Principal::Backup, &[])
    }

    /// `token` is the audit service's.
    #[must_use]
    pub fn audit(self, token: &str) -> Self {
        self.with(token, Principal::Audit, &[])
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

    async fn allowed(&self, person: &Person, wish: Wish<'_>) -> Result<bool, ServiceError> {
        let known = self.0.values().find(|(known, _)| known == person);
        Ok(known.is_some_and(|(_, permissions)| {
            permissions.iter().any(|(function, operation)| function == wish.function && *operation == wish.operation)
        }))
    }
}

/// Epoch keys that a test rotates as it likes.
#[derive(Debug)]
pub struct Epochs {
    master: MasterKey,
    keys: Mutex<Vec<EpochKey>>,
}

impl Epochs {
    pub fn new() -> Self {
        let master = MasterKey::generate(&SystemRandom::new()).expect("random bytes");
        let epochs = Self { master, keys: Mutex::default() };
        epochs.rotate();
        epochs
    }

    /// A new key wraps what is new; the others still open.
    pub fn rotate(&self) {
        let sealed = SealedEpochKey::generate(&self.master, &SystemRandom::new(), SystemClock.now()).expect("random bytes");
        let key = sealed.open(&self.master).expect("its own key");
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).push(key);
    }

    /// A key is destroyed.
    pub fn forget(&self, id: &KeyId) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).retain(|key| key.id() != id);
    }
}

impl Default for Epochs {
    fn default() -> Self {
        Self::new()
    }
}

impl EpochKeys for Epochs {
    fn live(&self) -> Vec<EpochKey> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).last().cloned().into_iter().collect()
    }

    fn find(&self, id: &KeyId) -> Option<EpochKey> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).iter().find(|key| key.id() == id).cloned()
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
