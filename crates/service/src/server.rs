//! A server from its first byte to its last: TLS and gRPC on one port, health and metrics on ports of their own.

pub(crate) mod grpc;
mod handshake;
mod metrics;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tsujiban_proto::DESCRIPTORS;

use crate::access::{Access, Guard, InvalidAccess};
use crate::health::Health;
use crate::telemetry::TelemetryArgs;
use crate::tls::{Certificate, TlsError};

/// Where a server listens and what it shows.
#[derive(Debug, Clone, clap::Args)]
pub struct ServerArgs {
    /// Where gRPC is answered, over TLS.
    #[arg(long, env = "TSUJIBAN_LISTEN", default_value = "0.0.0.0:8443")]
    pub listen: SocketAddr,
    /// Where probes are answered: gRPC health without TLS, service "" for alive and "readiness" for ready.
    #[arg(long, env = "TSUJIBAN_HEALTH_LISTEN", default_value = "0.0.0.0:8081")]
    pub health_listen: SocketAddr,
    /// Where metrics are shown: HTTP, /metrics.
    #[arg(long, env = "TSUJIBAN_METRICS_LISTEN", default_value = "0.0.0.0:9090")]
    pub metrics_listen: SocketAddr,
    /// The folder with the serving certificate: tls.crt and tls.key. Read again when they change.
    #[arg(long, env = "TSUJIBAN_TLS_DIR", default_value = "/etc/tsujiban/tls")]
    pub tls_dir: PathBuf,
    /// The proxies in front of this server, as networks in CIDR notation separated by commas. They, and nobody else, are believed what they
    /// say in x-forwarded-for.
    #[arg(long, env = "TSUJIBAN_TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Vec<IpNet>,
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// A server that cannot start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("access to the methods cannot be guarded")]
    Access(#[from] InvalidAccess),
    #[error("TLS cannot be served")]
    Tls(#[from] TlsError),
    #[error("the contracts cannot be shown to clients")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("cannot listen on {address}; another program may hold the port")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("the gRPC server stopped")]
    Grpc(#[source] tonic::transport::Error),
}

/// Serves `routes` until `shutdown` is cancelled, then lets running calls end for up to 25 seconds.
///
/// Every call goes through the access layer first. Before there is a certificate, only health and metrics are answered.
pub async fn serve(
    args: &ServerArgs,
    routes: Routes,
    mut guard: Guard,
    health: Health,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    guard.proxies.extend(&args.trusted_proxies);
    let routes = if guard.reflection { with_reflection(routes)? } else { routes };
    if guard.history.is_none() {
        tracing::warn!("NO OPERATION HISTORY IS WRITTEN: nothing will tell who did what; give --audit-endpoint once tsujiban-audit runs");
    }
    let registry = guard.registry.clone();
    let access = Access::new(guard)?;
    let certificate = Certificate::new(&args.tls_dir, &registry)?;

    // probes and metrics are answered to the very end, so that a drain can be watched
    let side = CancellationToken::new();
    let _end_of_side = side.clone().drop_guard();
    let health_listener = listen(args.health_listen).await?;
    let health_service = health.service().await;
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(health_service)
            .serve_with_incoming_shutdown(TcpListenerStream::new(health_listener), side.clone().cancelled_owned()),
    );
    tokio::spawn(metrics::serve(listen(args.metrics_listen).await?, registry, side));

    certificate.wait(&shutdown).await;
    let listener = listen(args.listen).await?;
    let following = certificate.clone();
    let stop = shutdown.clone();
    tokio::spawn(async move { following.follow(stop).await });
    health.set_accepting(true).await;
    tracing::info!(listen = %args.listen, health = %args.health_listen, metrics = %args.metrics_listen, "serving");
    let (unready, stop) = (health.clone(), shutdown.clone());
    tokio::spawn(async move {
        stop.cancelled().await;
        unready.set_accepting(false).await;
    });
    grpc::serve(listener, &certificate, access, routes, shutdown).await
}

/// Adds gRPC reflection, by which clients request the contracts.
fn with_reflection(routes: Routes) -> Result<Routes, ServeError> {
    let reflection = tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS).build_v1()?;
    Ok(routes.add_service(reflection))
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })
}
