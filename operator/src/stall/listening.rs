//! A client that notes when a watch is answered.
//!
//! A watch without events looks the same as one whose connection is dead. But every watch restarts each half minute, and this client sees
//! whether the apiserver answers that.

use std::sync::Arc;
use std::time::Instant;

use http::Request;
use kube::Client;
use kube::client::Body;

use crate::connection::is_watch;
use crate::metrics::Metrics;

/// A client for the watch of one kind.
pub fn listening(client: &Client, kind: &'static str, metrics: &Arc<Metrics>) -> Client {
    let (inner, metrics) = (client.clone(), Arc::clone(metrics));
    let service = tower::service_fn(move |request: Request<Body>| {
        let (client, metrics) = (inner.clone(), Arc::clone(&metrics));
        async move {
            let is_watch = is_watch(request.uri());
            let answer = client.send(request).await?;
            if is_watch && answer.status().is_success() {
                metrics.watchdog.observe(kind, Instant::now());
            }
            Ok::<_, kube::Error>(answer)
        }
    });
    Client::new(service, client.default_namespace())
}
