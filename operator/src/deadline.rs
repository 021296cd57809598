//! A deadline for every request to the apiserver. A connection can die silently, and a request on it would hang: until the deadline of the
//! reconcile at best, or for ever where there is none, as for the start of a watch.

use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use tokio::time::timeout;

use crate::connection::is_watch;

/// How long a whole answer may take, including the client's own retries; for a watch, how long its start may take.
pub const ANSWER: Duration = Duration::from_secs(15);

/// The apiserver did not answer.
#[derive(Debug, thiserror::Error)]
#[error("the apiserver did not answer within 15 s")]
struct Late;

/// The same client, with a deadline for every request.
pub fn bounded(client: Client) -> Client {
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |request| {
        let client = client.clone();
        async move { timeout(ANSWER, answer(&client, request)).await.unwrap_or_else(|_| Err(kube::Error::Service(Late.into()))) }
    });
    Client::new(service, namespace)
}

async fn answer(client: &Client, request: Request<Body>) -> Result<Response<Body>, kube::Error> {
    let is_watch = is_watch(request.uri());
    let answer = client.send(request).await?;
    if is_watch {
        return Ok(answer);
    }
    let (parts, body) = answer.into_parts();
    Ok(Response::from_parts(parts, Body::from(body.collect().await?.to_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(uri: &'static str, silent: bool) -> Result<String, kube::Error> {
        let service = tower::service_fn(move |_: Request<Body>| async move {
            if silent {
                std::future::pending::<()>().await;
            }
            Ok::<_, std::convert::Infallible>(Response::new(Body::from(b"{}".to_vec())))
        });
        let client = bounded(Client::new(service, "default"));
        let answer = client.send(Request::get(uri).body(Body::empty()).unwrap()).await?;
        Ok(String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_answered_is_given_up() {
        for uri in ["/api/v1/namespaces/x", "/api/v1/namespaces?&watch=true&timeoutSeconds=60"] {
            assert_eq!(asked(uri, false).await.unwrap(), "{}");
            let begin = tokio::time::Instant::now();
            let error = asked(uri, true).await.unwrap_err();
            assert!(tsujiban_core::error::chain(&error).contains("did not answer"), "{error}");
            assert_eq!(begin.elapsed(), ANSWER);
        }
    }
}
