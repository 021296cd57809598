//! Metrics and probes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// A client that has not sent its request by then is cut off.
const HEADERS: std::time::Duration = std::time::Duration::from_secs(5);

/// Serves for ever: `/metrics`, `/livez` (is the process any good), `/readyz` (has it started; a replica that waits for the lease
/// is ready, too).
pub async fn serve(listen: SocketAddr, metrics: Arc<Metrics>) -> std::io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    tracing::info!(listen = %listener.local_addr()?, "serving metrics and probes");
    loop {
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await; // out of descriptors: let some be closed
                continue;
            }
        };
        let metrics = Arc::clone(&metrics);
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let response = answer(&request, &metrics);
                async move { Ok::<_, Infallible>(response) }
            });
            let server =
                http1::Builder::new().timer(TokioTimer::new()).header_read_timeout(HEADERS).serve_connection(TokioIo::new(stream), service);
            if let Err(error) = server.await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
}

fn answer<B>(request: &Request<B>, metrics: &Metrics) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here\n");
    }
    match request.uri().path() {
        "/livez" if metrics.is_wedged() => text(StatusCode::INTERNAL_SERVER_ERROR, "no reconcile has ended for 10 minutes\n"),
        "/livez" | "/readyz" => text(StatusCode::OK, "ok\n"),
        "/metrics" => match metrics.text() {
            Ok(body) => {
                let mut response = Response::new(Full::from(body));
                response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("text/plain; version=0.0.4"));
                response
            }
            Err(error) => {
                tracing::error!(%error, "metrics could not be written down");
                text(StatusCode::INTERNAL_SERVER_ERROR, "metrics could not be written down; see the log\n")
            }
        },
        _ => text(StatusCode::NOT_FOUND, "served here: /metrics, /livez, /readyz\n"),
    }
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let metrics = Metrics::new().unwrap();
        let status = |method: Method, path: &str| answer(&Request::builder().method(method).uri(path).body(()).unwrap(), &metrics).status();
        for path in ["/metrics", "/livez", "/readyz"] {
            assert_eq!(status(Method::GET, path), StatusCode::OK, "{path}");
        }
        assert_eq!(status(Method::GET, "/"), StatusCode::NOT_FOUND);
        assert_eq!(status(Method::POST, "/metrics"), StatusCode::METHOD_NOT_ALLOWED);
    }
}
