//! The server as a client meets it: over TLS, on a socket.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test: what goes wrong here fails it

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::{self, Ready};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Code;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tower::Service;
use tsujiban_proto::backup::v1::ListSnapshotsRequest;
use tsujiban_proto::backup::v1::backup_service_client::BackupServiceClient;
use tsujiban_service::testing::{InProcess, KnownCallers, SERVER_NAME, serve_in_process, with_token};

/// Answers every method with an empty message.
#[derive(Clone)]
struct Empty;

impl NamedService for Empty {
    const NAME: &'static str = "tsujiban.backup.v1.BackupService";
}

impl Service<Request<Body>> for Empty {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let trailers = async {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            Some(Ok::<_, Infallible>(trailers))
        };
        let body = Full::new(Bytes::from_static(&[0; 5])).with_trailers(trailers).map_err(|never| match never {});
        let response = Response::builder().header("content-type", "application/grpc").body(Body::new(body));
        future::ready(Ok(response.unwrap()))
    }
}

async fn server() -> InProcess {
    let callers = KnownCallers::new().staff("hanako", "hanako", &[("snapshots", "list")]).staff("taro", "taro", &[]);
    serve_in_process(Routes::new(Empty), Arc::new(callers)).await
}

async fn list(client: &mut BackupServiceClient<tonic::transport::Channel>, token: &str) -> Code {
    match client.list_snapshots(with_token(token, ListSnapshotsRequest::default())).await {
        Ok(_) => Code::Ok,
        Err(status) => status.code(),
    }
}

/// The certificate that a new connection is shown.
async fn shown(server: &InProcess) -> CertificateDer<'static> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(server.ca_pem.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from(SERVER_NAME).unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

/// C22: what is sent is encrypted, and nobody is answered who may not ask.
#[tokio::test]
async fn calls_are_guarded_over_tls() {
    let server = server().await;
    let mut client = BackupServiceClient::new(server.channel());
    assert_eq!(list(&mut client, "hanako").await, Code::Ok);
    assert_eq!(list(&mut client, "taro").await, Code::PermissionDenied);
    assert_eq!(list(&mut client, "nobody").await, Code::Unauthenticated);
    let without = client.list_snapshots(ListSnapshotsRequest::default()).await.unwrap_err();
    assert_eq!(without.code(), Code::Unauthenticated);
}

/// C22: a client without TLS is not answered.
#[tokio::test]
async fn plain_text_is_not_spoken() {
    let server = server().await;
    let plain = tonic::transport::Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let mut client = BackupServiceClient::new(plain.connect_lazy());
    assert_ne!(list(&mut client, "hanako").await, Code::Ok);
}

#[tokio::test]
async fn a_new_certificate_is_served_and_open_connections_stay() {
    let server = server().await;
    let mut client = BackupServiceClient::new(server.endpoint().connect().await.unwrap());
    let old = shown(&server).await;
    assert!(!server.certificate.reload().await.unwrap(), "nothing has changed");

    server.ca().issue_into(server.tls_dir());
    assert!(server.certificate.reload().await.unwrap());
    assert_ne!(shown(&server).await, old);
    assert_eq!(list(&mut client, "hanako").await, Code::Ok);
}

#[tokio::test]
async fn a_broken_certificate_leaves_the_old_one() {
    let server = server().await;
    let old = shown(&server).await;
    let healthy = || {
        let family = server.registry.gather().into_iter().find(|family| family.name() == "tsujiban_tls_certificate_healthy").unwrap();
        family.get_metric()[0].get_gauge().get_value()
    };
    assert_eq!(healthy().to_string(), "1");

    let key = std::fs::read(server.tls_dir().join("tls.key")).unwrap();
    server.ca().issue_into(server.tls_dir());
    std::fs::write(server.tls_dir().join("tls.key"), key).unwrap();
    server.certificate.reload().await.unwrap_err();
    assert_eq!(shown(&server).await, old, "key and certificate do not belong together");
    assert_eq!(healthy().to_string(), "0");

    std::fs::write(server.tls_dir().join("tls.crt"), "nonsense").unwrap();
    server.certificate.reload().await.unwrap_err();
    assert_eq!(shown(&server).await, old);

    server.ca().issue_into(server.tls_dir());
    assert!(server.certificate.reload().await.unwrap());
    assert_ne!(shown(&server).await, old);
}

#[tokio::test]
async fn clients_that_never_finish_their_handshake_delay_nobody() {
    let server = server().await;
    let mut slow = Vec::new();
    for _ in 0..200 {
        slow.push(TcpStream::connect(server.address).await.unwrap());
    }
    let start = Instant::now();
    let mut client = BackupServiceClient::new(server.endpoint().connect().await.unwrap());
    assert_eq!(list(&mut client, "hanako").await, Code::Ok);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}
