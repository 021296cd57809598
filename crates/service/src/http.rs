//! A small HTTP/1 server for public data: metrics, probes, tiles of logs. It limits the number of connections and how long each lasts, so
//! that a client that sends nothing costs little.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// How long a client has for its handshake, and for each request.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long accepting rests after it failed, so that some connections can be closed when descriptors have run out.
const REST: Duration = Duration::from_millis(100);

/// The answer to a request. The request's body is not read.
pub type Answer = Response<Full<Bytes>>;

/// What is served, and to whom.
#[derive(Debug, Clone, Copy)]
pub struct Serving {
    /// The name of what is served, for the log.
    pub what: &'static str,
    /// Whether a connection may have several requests.
    pub keep_alive: bool,
    /// How long a connection lasts.
    pub lifetime: Duration,
    /// How many connections may be open at the same time.
    pub places: usize,
}

impl Serving {
    /// One request for each connection, for scrapers and probes. A client holds its place for seconds, and there are many places, since
    /// Kubernetes kills a process whose probes find none.
    pub const fn briefly(what: &'static str) -> Self {
        Self { what, keep_alive: false, lifetime: DEADLINE.saturating_mul(2), places: 2048 }
    }

    /// Many small files, for auditors.
    pub const fn files(what: &'static str) -> Self {
        Self { what, keep_alive: true, lifetime: Duration::from_mins(5), places: 256 }
    }
}

/// Answers requests until `shutdown` is cancelled, over TLS where there is an acceptor.
pub async fn serve<F, A>(listener: TcpListener, tls: Option<TlsAcceptor>, serving: Serving, shutdown: CancellationToken, answer: F)
where
    F: Fn(Request<()>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(serving.places));
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            () = shutdown.cancelled() => return,
        };
        let Ok(place) = place else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, what = serving.what, "a connection cannot be accepted");
                sleep(REST).await;
                continue;
            }
        };
        let (tls, answer) = (tls.clone(), answer.clone());
        tokio::spawn(async move {
            let _place = place;
            let served = timeout(serving.lifetime, connection(stream, tls, serving.keep_alive, answer)).await;
            if let Err(error) = served.unwrap_or(Ok(())) {
                tracing::debug!(%error, what = serving.what, "a connection ended early");
            }
        });
    }
}

async fn connection<F, A>(stream: TcpStream, tls: Option<TlsAcceptor>, keep_alive: bool, answer: F) -> io::Result<()>
where
    F: Fn(Request<()>) -> A,
    A: Future<Output = Answer>,
{
    match tls {
        Some(tls) => {
            let stream = timeout(DEADLINE, tls.accept(stream)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            requests(stream, keep_alive, answer).await
        }
        None => requests(stream, keep_alive, answer).await,
    }
}

async fn requests<F, A>(stream: impl AsyncRead + AsyncWrite + Unpin, keep_alive: bool, answer: F) -> io::Result<()>
where
    F: Fn(Request<()>) -> A,
    A: Future<Output = Answer>,
{
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(request.map(drop));
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(DEADLINE)
        .keep_alive(keep_alive)
        .serve_connection(TokioIo::new(stream), service);
    served.await.map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn requests_are_answered_until_the_end() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let answer = |request: Request<()>| async move { Response::new(Full::from(request.uri().path().to_owned())) };
        let served = tokio::spawn(serve(listener, None, Serving::briefly("a test"), stop.clone(), answer));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /here HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        assert!(said.starts_with("HTTP/1.1 200 OK") && said.ends_with("/here"), "{said}");
        stop.cancel();
        served.await.unwrap();
    }

    /// Whoever holds all places does not keep the process from ending.
    #[tokio::test]
    async fn the_end_does_not_wait_for_a_place() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let answer = |_: Request<()>| async { Response::new(Full::default()) };
        let served = tokio::spawn(serve(listener, None, Serving { places: 4, ..Serving::briefly("a test") }, stop.clone(), answer));
        let mut silent = Vec::new();
        for _ in 0..8 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        stop.cancel();
        timeout(Duration::from_secs(5), served).await.unwrap().unwrap();
    }
}
