//! `GET /metrics` over plain HTTP, on a port of its own.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use prometheus::{Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::http::Serving;

/// Shows the registry's metrics until `shutdown` is cancelled.
pub(super) async fn serve(listener: TcpListener, registry: Registry, shutdown: CancellationToken) {
    let shown = move |request: Request<()>| std::future::ready(answer(&request, &registry));
    crate::http::serve(listener, None, Serving::briefly("metrics"), shutdown, shown).await;
}

fn answer<B>(request: &Request<B>, registry: &Registry) -> Response<Full<Bytes>> {
    let text = |status: StatusCode, body: String| {
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
        response
    };
    if request.method() != Method::GET || request.uri().path() != "/metrics" {
        return text(StatusCode::NOT_FOUND, "there is only GET /metrics\n".to_owned());
    }
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(body) => text(StatusCode::OK, body),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be written down");
            text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written down; see the log\n".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    fn status(method: Method, path: &str) -> StatusCode {
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        answer(&request, &Registry::new()).status()
    }

    #[test]
    fn nothing_but_the_metrics() {
        assert_eq!(status(Method::GET, "/metrics"), StatusCode::OK);
        assert_eq!(status(Method::GET, "/"), StatusCode::NOT_FOUND);
        assert_eq!(status(Method::POST, "/metrics"), StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn a_registered_figure_is_shown() {
        let registry = Registry::new();
        registry.register(Box::new(prometheus::IntCounter::new("something_total", "Something.").unwrap())).unwrap();
        let request = Request::builder().uri("/metrics").body(()).unwrap();
        let body = answer(&request, &registry).into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&body).contains("something_total 0"));
    }
}
