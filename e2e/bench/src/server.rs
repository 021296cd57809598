//! A service as it is served: gRPC over TLS behind the access layer, on the loopback interface. Who calls is not asked of an apiserver.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use clap::Parser;
use prometheus::Registry;
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Request;
use tonic::metadata::MetadataValue;
use tonic::service::Routes;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tsujiban_proto::error::{Kind, ServiceError};
use tsujiban_service::access::Guard;
use tsujiban_service::health::Health;
use tsujiban_service::identity::{Authenticator, Identity, Principal, User};
use tsujiban_service::server::{ServerArgs, serve};

const NAME: &str = "localhost";
/// How long it may take until the server answers.
const SOON: Duration = Duration::from_secs(30);
const OPERATOR: &str = "operator";
const STAFF: &str = "staff";
const COLLECTOR: &str = "collector";
/// The group whose collector stores configs.
pub const GROUP: &str = "bench";

pub struct Server {
    address: SocketAddr,
    certificate: String,
    _tls: TempDir,
    _stop: DropGuard,
}

/// Knows three tokens.
struct Known;

#[async_trait]
impl Authenticator for Known {
    async fn authenticate(&self, token: &str) -> Result<Identity, ServiceError> {
        let principal = match token {
            OPERATOR => Principal::Operator,
            COLLECTOR => Principal::Collector { group: GROUP.parse().map_err(|_| unknown())? },
            STAFF => Principal::Staff { name: STAFF.to_owned() },
            _ => return Err(unknown()),
        };
        Ok(Identity { principal, user: User { username: token.to_owned(), ..User::default() } })
    }

    async fn allowed(&self, identity: &Identity, _: &str, _: &str) -> Result<bool, ServiceError> {
        Ok(identity.user.username == STAFF)
    }
}

fn unknown() -> ServiceError {
    ServiceError::new(Kind::Unauthenticated, "BAD_TOKEN", "the benchmark knows no such token")
}

/// The server's flags, which only a command line makes.
#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    server: ServerArgs,
}

impl Server {
    /// Serves these routes, which are those of these services.
    pub async fn start(routes: Routes, services: &[&'static str]) -> Result<Self> {
        let tls = TempDir::new()?;
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([NAME.to_owned()])?.self_signed(&key)?.pem();
        std::fs::write(tls.path().join("tls.crt"), &certificate)?;
        std::fs::write(tls.path().join("tls.key"), key.serialize_pem())?;
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let listen = address.to_string();
        let any = "127.0.0.1:0";
        let folder = tls.path().to_str().context("a folder whose name is no text")?;
        let flags = ["bench", "--listen", &listen, "--health-listen", any, "--metrics-listen", any, "--tls-dir", folder];
        let flags = Flags::try_parse_from(flags)?;
        let mut guard = Guard::new(Arc::new(Known), Registry::new());
        guard.services = services.to_vec();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let mut serving = tokio::spawn(async move { serve(&flags.server, routes, guard, Health::new(), stopped).await });
        let server = Self { address, certificate, _tls: tls, _stop: stop.drop_guard() };
        let begun = Instant::now();
        while server.connect().await.is_err() {
            ensure!(begun.elapsed() < SOON, "the server does not answer");
            if serving.is_finished() {
                (&mut serving).await??;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(server)
    }

    /// A connection of its own.
    pub async fn connect(&self) -> Result<Channel> {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.certificate)).domain_name(NAME);
        Ok(Endpoint::from_shared(format!("https://{}", self.address))?.tls_config(tls)?.connect().await?)
    }
}

/// A message of the operator, who writes the history and makes groups.
pub fn from_operator<T>(message: T) -> Request<T> {
    with("Bearer operator", message)
}

/// A message of a collector.
pub fn from_collector<T>(message: T) -> Request<T> {
    with("Bearer collector", message)
}

/// A message of whoever reads.
pub fn from_staff<T>(message: T) -> Request<T> {
    with("Bearer staff", message)
}

fn with<T>(authorization: &'static str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", MetadataValue::from_static(authorization));
    request
}
