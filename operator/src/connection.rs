//! Connections to the apiserver.

use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, Uri, header};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt as _, retry::RetryPolicy};
use kube::{Client, Config};
use tower::retry::RetryLayer;
use tower::{BoxError, Service, ServiceBuilder};

use crate::fence::{Fence, Fenced, TRANSIT};

/// The apiserver works on a write for at most this long.
const PATIENCE: Duration = Duration::from_secs(20);
const CONNECT: Duration = Duration::from_secs(5);
/// A connection on which nothing arrives for this long is dead. Longer than a watch lasts, since a watch may have no events.
const SILENCE: Duration = Duration::from_secs(75);

/// Why the apiserver cannot be reached at all.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    #[error("the configuration of the way to the apiserver is not usable")]
    Config(#[source] kube::Error),
    #[error("{0:?} cannot stand in a request")]
    Name(String),
}

/// A request that was not answered.
#[derive(Debug, thiserror::Error)]
#[error("the apiserver did not answer in time")]
struct Unanswered;

/// Names the version and the replica in every request, so that they are in the apiserver's audit log.
pub fn named(mut config: Config, identity: &str) -> Result<Config, ConnectionError> {
    let agent = format!("tsujiban-operator/{} ({identity})", env!("CARGO_PKG_VERSION"));
    let agent = agent.parse().map_err(|_| ConnectionError::Name(agent))?;
    config.headers.push((header::USER_AGENT, agent));
    Ok(config)
}

/// The client of the lease. It has deadlines of its own and retries nothing by itself.
pub fn for_the_lease(mut config: Config) -> Result<Client, ConnectionError> {
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    Client::try_from(config).map_err(ConnectionError::Config)
}

/// The client for everything else: it writes only while the fence is open, and waits for no answer for ever.
pub fn behind(config: &Config, fence: &Fence) -> Result<Client, ConnectionError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_tcp_user_timeout(Some(TRANSIT));
    let https = config.rustls_https_connector_with_connector(Fenced::new(tcp, fence.clone())).map_err(ConnectionError::Config)?;
    let mut connector = TimeoutConnector::new(https);
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_read_timeout(Some(SILENCE));
    connector.set_write_timeout(Some(PATIENCE));
    connector.set_reset_reader_on_write(true);
    let http = legacy::Client::builder(TokioExecutor::new()).build::<_, Body>(connector);
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryPolicy::server_retry()))
        .layer_fn(|inner| Guarded { inner, fence: fence.clone() })
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(ConnectionError::Config)?)
        .layer(config.extra_headers_layer().map_err(ConnectionError::Config)?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace.clone()))
}

/// Passes writes through the fence, and gives the apiserver a deadline for each. [`deadline`](crate::deadline) limits how long to wait for
/// answers.
#[derive(Clone)]
struct Guarded<S> {
    inner: S,
    fence: Fence,
}

impl<S, B> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
            return Box::pin(self.inner.call(request));
        }
        let Some(pass) = self.fence.enter(PATIENCE) else {
            return Box::pin(std::future::pending()); // the process is about to end; returning an error would trigger reactions to it
        };
        if let Some(uri) = with_deadline(request.uri(), pass.deadline) {
            *request.uri_mut() = uri;
        }
        let answer = self.inner.call(request);
        Box::pin(async move { pass.answer(answer, is_final).await.ok_or(Unanswered)? })
    }
}

/// Whether the outcome is certain: the apiserver has answered, or the request was never sent.
fn is_final<T>(answer: &Result<T, BoxError>) -> bool {
    let never_asked = |error: &BoxError| error.downcast_ref::<legacy::Error>().is_some_and(legacy::Error::is_connect);
    answer.as_ref().map_or_else(never_asked, |_| true)
}

/// Whether a request is a watch, whose answer goes on until it is ended.
pub fn is_watch(uri: &Uri) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|part| part == "watch=true" || part == "watch=1"))
}

/// Asks the apiserver to carry out the request within this time or not at all.
fn with_deadline(uri: &Uri, deadline: Duration) -> Option<Uri> {
    let separator = if uri.query().is_some_and(|query| !query.is_empty()) { '&' } else { '?' };
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str).trim_end_matches('?');
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(format!("{path}{separator}timeout={}ms", deadline.as_millis()).parse().ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_carry_a_deadline() {
        for (uri, wanted) in [
            ("/apis/x/things/a", "/apis/x/things/a?timeout=1500ms"),
            ("/apis/x/things/a?", "/apis/x/things/a?timeout=1500ms"),
            ("/apis/x/things/a?force=true", "/apis/x/things/a?force=true&timeout=1500ms"),
        ] {
            assert_eq!(with_deadline(&uri.parse().unwrap(), Duration::from_millis(1500)).unwrap(), wanted);
        }
    }

    #[test]
    fn a_watch_is_told_by_its_query() {
        assert!(is_watch(&"/api/v1/pods?limit=1&watch=true".parse().unwrap()));
        assert!(!is_watch(&"/api/v1/pods?fieldSelector=watch%3Dtrue".parse().unwrap()));
    }
}
