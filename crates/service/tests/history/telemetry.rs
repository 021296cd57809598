//! Traces, at a receiver.

use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use tsujiban_service::telemetry::{TelemetryArgs, init};
use tsujiban_traces::{Span, receive_from};

use crate::stage::{Stage, message, until};

const PREPARE: &str = "/tsujiban.lifecycle.v1.LifecycleService/Prepare";
const TRACE: &str = "7c1c5b3e2f4a49d8b6a0e91d53f8a417";
const CALLER: &str = "00f067aa0ba902b7";

/// A call's span names the caller's as its parent, and what the service asks of the next one is part of the call.
#[tokio::test(flavor = "multi_thread")]
async fn a_trace_arrives_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let seen: Arc<Mutex<Vec<Span>>> = Arc::default();
    let taking = Arc::clone(&seen);
    tokio::spawn(receive_from(listener, move |span| taking.lock().unwrap().push(span)));
    let args = TelemetryArgs { log_level: "off,tsujiban_service::access=info".to_owned(), otlp_endpoint: Some(endpoint) };
    let _telemetry = init("tsujiban-test", &args).unwrap();

    let stage = Stage::new().await;
    let parent = format!("00-{TRACE}-{CALLER}-01");
    let metadata = [("authorization", "Bearer operator"), ("traceparent", parent.as_str())];
    stage.send(PREPARE, message(PREPARE, "acme"), &metadata).await.unwrap();

    // a call's span ends a moment after its caller has the answer, and spans are sent every few seconds
    let part = |name: &str| seen.lock().unwrap().iter().find(|span| span.trace == TRACE && span.name == name).cloned();
    let (call, append) = ("tsujiban.lifecycle.v1.LifecycleService/Prepare", "tsujiban.audit.v1.AuditService/Append");
    until(|| [call, append].into_iter().all(|name| part(name).is_some())).await;
    let (call, append) = (part(call).unwrap(), part(append).unwrap());
    assert_eq!((call.service.as_str(), call.parent.as_str()), ("tsujiban-test", CALLER));
    assert_eq!(append.parent, call.id);
}
