//! Metrics and probes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tsujiban_service::http::Serving;

use crate::metrics::Metrics;

/// Serves for ever: `/metrics`, `/livez` (fails when a restart may help), `/readyz` (do reconciles make progress; a replica that waits for
/// the lease is ready, too).
pub async fn serve(listen: SocketAddr, metrics: Arc<Metrics>) -> std::io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    tracing::info!(listen = %listener.local_addr()?, "serving metrics and probes");
    let shown = move |request: Request<()>| std::future::ready(answer(&request, &metrics));
    tsujiban_service::http::serve(listener, None, Serving::briefly("metrics and probes"), CancellationToken::new(), shown).await;
    Ok(())
}

fn answer<B>(request: &Request<B>, metrics: &Metrics) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here\n");
    }
    match request.uri().path() {
        "/livez" if metrics.watchdog.liveness_failed(Instant::now()) => stalled(metrics),
        "/readyz" if !metrics.watchdog.reasons(Instant::now()).is_empty() => stalled(metrics),
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

/// Answers why reconciles are stalled.
fn stalled(metrics: &Metrics) -> Response<Full<Bytes>> {
    let mut reasons = metrics.watchdog.reasons(Instant::now()).join("\n");
    reasons.push('\n');
    text(StatusCode::SERVICE_UNAVAILABLE, reasons)
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stall::STALLED;

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

    #[test]
    fn a_leader_that_stands_still_is_not_ready_and_says_why() {
        let metrics = Metrics::new().unwrap();
        let long_ago = Instant::now().checked_sub(STALLED).unwrap();
        metrics.watchdog.lead(&["Device"], long_ago);
        let get = |path: &str| answer(&Request::builder().uri(path).body(()).unwrap(), &metrics);
        assert_eq!(get("/readyz").status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(get("/livez").status(), StatusCode::OK);
        assert!(metrics.watchdog.reasons(Instant::now()).iter().any(|reason| reason.contains("Device: the watch was not answered")));
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        assert!(
            text.contains("tsujiban_operator_stalled 1") && text.contains("tsujiban_operator_generation_lag_seconds{kind=\"Device\"} 0")
        );
        metrics.watchdog.lead(&["Device"], Instant::now());
        assert_eq!(get("/readyz").status(), StatusCode::OK);
    }
}
