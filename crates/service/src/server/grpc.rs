//! gRPC over TLS behind the access layer.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;

use super::{ServeError, handshake};
use crate::access::Access;
use crate::tls::Certificate;

/// How long running calls have to end after a shutdown began. Kubernetes kills after 30 seconds.
const DRAIN: Duration = Duration::from_secs(25);
/// How often an idle connection is checked, and how long the other side has to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// How many calls one connection may have open. A collector talks to at most 100 devices at once.
const STREAMS_PER_CONNECTION: u32 = 256;
/// The largest set of metadata in bytes, a token included.
const MAX_METADATA_BYTES: u32 = 16 * 1024;

/// Serves on `listener` until `shutdown` is cancelled, then drains.
pub(crate) async fn serve(
    listener: TcpListener,
    certificate: &Certificate,
    access: Access,
    routes: Routes,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let connections = handshake::accept(listener, certificate.server_config()?, shutdown.clone());
    let serving = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_max_header_list_size(MAX_METADATA_BYTES)
        .layer(access)
        .add_routes(routes)
        .serve_with_incoming_shutdown(connections, shutdown.clone().cancelled_owned());
    let overdue = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = serving => served.map_err(ServeError::Grpc),
        () = overdue => {
            tracing::warn!(seconds = DRAIN.as_secs(), "calls that still run are given up");
            Ok(())
        }
    }
}
