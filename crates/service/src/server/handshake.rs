//! Connections with TLS on them. Handshakes run side by side, each with a deadline, so that a slow client delays nobody.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// How long a client has for its handshake.
const DEADLINE: Duration = Duration::from_secs(5);
/// How many handshakes run at the same time; further connections wait in the kernel's queue.
const CONCURRENT: usize = 1024;
/// How long accepting rests after it failed, such as for want of file descriptors.
const REST: Duration = Duration::from_millis(100);

/// Connections whose handshake succeeded, until `shutdown` is cancelled.
pub(super) fn accept(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    shutdown: CancellationToken,
) -> ReceiverStream<io::Result<TlsStream<TcpStream>>> {
    let (ready, connections) = mpsc::channel(64);
    tokio::spawn(async move {
        tokio::select! {
            () = accept_all(listener, TlsAcceptor::from(config), ready) => {}
            () = shutdown.cancelled() => {}
        }
    });
    ReceiverStream::new(connections)
}

async fn accept_all(listener: TcpListener, acceptor: TlsAcceptor, ready: mpsc::Sender<io::Result<TlsStream<TcpStream>>>) {
    let places = Arc::new(Semaphore::new(CONCURRENT));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                sleep(REST).await;
                continue;
            }
        };
        let (acceptor, ready) = (acceptor.clone(), ready.clone());
        tokio::spawn(async move {
            // small answers go out at once; without it they are merely slower
            let _ = stream.set_nodelay(true);
            let outcome = timeout(DEADLINE, acceptor.accept(stream)).await;
            drop(place);
            match outcome {
                // nothing accepts connections any more: the server is shutting down
                Ok(Ok(stream)) => drop(ready.send(Ok(stream)).await),
                Ok(Err(error)) => tracing::debug!(%peer, %error, "handshake failed"),
                Err(_) => tracing::debug!(%peer, seconds = DEADLINE.as_secs(), "handshake took too long"),
            }
        });
    }
}
