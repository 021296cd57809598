//! The layer around a handler that answers every call, without a connection: the cheapest way to see every refusal.

use std::convert::Infallible;
use std::future::pending;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use prometheus::{Registry, TextEncoder};
use tonic::Code;
use tower::{ServiceExt, service_fn};

use super::*;
use crate::testing::KnownCallers;

const PUT: &str = "/tsujiban.backup.v1.BackupService/PutSnapshot";
const GET: &str = "/tsujiban.backup.v1.BackupService/GetSnapshot";
const LIST: &str = "/tsujiban.backup.v1.BackupService/ListSnapshots";
const HOST_KEY: &str = "/tsujiban.backup.v1.BackupService/GetHostKey";
const REPORT: &str = "/tsujiban.lifecycle.v1.LifecycleService/Report";

fn callers() -> Arc<dyn Authenticator> {
    let known = KnownCallers::new().operator("operator").collector("acme", &"acme".parse().unwrap());
    Arc::new(known.staff("hanako", "hanako", &[("snapshots", "list"), ("snapshots", "reveal")]))
}

fn access(registry: &Registry) -> Access {
    let guard = Guard::new(callers(), registry.clone());
    Access::new(Guard { concurrent_calls: 1, unary_timeout: Duration::from_millis(50), ..guard }).unwrap()
}

fn call(path: &str, token: Option<&str>) -> Request<Body> {
    let mut request = Request::builder().uri(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(Body::empty()).unwrap()
}

/// What the handler answers: a message, and trailers that say OK.
fn ok() -> Response<Body> {
    let trailers = async {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        Some(Ok::<_, Infallible>(trailers))
    };
    Response::new(Body::new(Full::new(Bytes::from_static(&[0; 5])).with_trailers(trailers).map_err(|never| match never {})))
}

/// A call of a handler that asks for a scope of group acme.
async fn code_of(path: &str, token: Option<&str>) -> Code {
    let handler = service_fn(|request: Request<Body>| async move {
        let caller = request.extensions().get::<Caller>().unwrap();
        Ok::<_, Infallible>(caller.scope("acme").map_or_else(|error| Status::from(error).into_http(), |_| ok()))
    });
    let response = access(&Registry::new()).layer(handler).oneshot(call(path, token)).await.unwrap();
    code(response).await
}

async fn code(response: Response<Body>) -> Code {
    let (head, body) = response.into_parts();
    let trailers = body.collect().await.unwrap().trailers().cloned().unwrap_or_default();
    let status = head.headers.get("grpc-status").or_else(|| trailers.get("grpc-status")).unwrap();
    Code::from_bytes(status.as_bytes())
}

#[tokio::test]
async fn nobody_gets_in_without_a_known_token() {
    assert_eq!(code_of(LIST, None).await, Code::Unauthenticated);
    assert_eq!(code_of(LIST, Some("forged")).await, Code::Unauthenticated);
}

#[tokio::test]
async fn a_method_that_does_not_exist_is_unimplemented() {
    assert_eq!(code_of("/tsujiban.backup.v1.BackupService/Nothing", Some("operator")).await, Code::Unimplemented);
    assert_eq!(code_of("/", None).await, Code::Unimplemented);
}

#[tokio::test]
async fn workloads_call_what_the_rules_name_them_for() {
    assert_eq!(code_of(PUT, Some("acme")).await, Code::Ok);
    assert_eq!(code_of(PUT, Some("operator")).await, Code::PermissionDenied);
    assert_eq!(code_of(REPORT, Some("operator")).await, Code::Ok);
    assert_eq!(code_of(REPORT, Some("acme")).await, Code::PermissionDenied);
    assert_eq!(code_of(HOST_KEY, Some("operator")).await, Code::Ok);
    assert_eq!(code_of(HOST_KEY, Some("acme")).await, Code::Ok);
    assert_eq!(code_of(LIST, Some("operator")).await, Code::PermissionDenied);
}

#[tokio::test]
async fn staff_need_the_right_of_the_rule() {
    assert_eq!(code_of(LIST, Some("hanako")).await, Code::Ok);
    assert_eq!(code_of(GET, Some("hanako")).await, Code::PermissionDenied);
    assert_eq!(code_of(PUT, Some("hanako")).await, Code::PermissionDenied, "staff never call it");
}

/// C7: a collector's call that names another group is refused by the scope that its handler has to ask for.
#[tokio::test]
async fn a_collector_gets_no_scope_of_another_group() {
    let known = KnownCallers::new().collector("other", &"other".parse().unwrap());
    let access = Access::new(Guard::new(Arc::new(known), Registry::new())).unwrap();
    let handler = service_fn(|request: Request<Body>| async move {
        let refused = request.extensions().get::<Caller>().unwrap().scope("acme").unwrap_err();
        Ok::<_, Infallible>(Status::from(refused).into_http())
    });
    let response = access.layer(handler).oneshot(call(HOST_KEY, Some("other"))).await.unwrap();
    assert_eq!(code(response).await, Code::PermissionDenied);
}

#[tokio::test]
async fn staff_need_a_right_of_its_own_for_more() {
    let handler = service_fn(|request: Request<Body>| async move {
        let caller = request.extensions().get::<Caller>().unwrap().clone();
        caller.require("snapshots", "reveal").await.unwrap();
        assert_eq!(caller.require("snapshots", "erase").await.unwrap_err().kind, Kind::Denied);
        Ok::<_, Infallible>(ok())
    });
    let response = access(&Registry::new()).layer(handler).oneshot(call(LIST, Some("hanako"))).await.unwrap();
    assert_eq!(code(response).await, Code::Ok);
}

#[tokio::test]
async fn a_unary_call_has_a_deadline() {
    let handler = service_fn(|_: Request<Body>| async { pending::<Result<Response<Body>, Infallible>>().await });
    let response = access(&Registry::new()).layer(handler).oneshot(call(LIST, Some("hanako"))).await.unwrap();
    assert_eq!(code(response).await, Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_stream_has_none() {
    let handler = service_fn(|_: Request<Body>| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok::<_, Infallible>(ok())
    });
    let response = access(&Registry::new()).layer(handler).oneshot(call(PUT, Some("acme"))).await.unwrap();
    assert_eq!(code(response).await, Code::Ok);
}

#[tokio::test]
async fn what_is_too_much_is_refused_until_an_answer_has_gone_out() {
    let handler = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(ok()) });
    let guarded = access(&Registry::new()).layer(handler);
    let first = guarded.clone().oneshot(call(LIST, Some("hanako"))).await.unwrap();
    let second = guarded.clone().oneshot(call(LIST, Some("hanako"))).await.unwrap();
    assert_eq!(code(second).await, Code::ResourceExhausted);
    assert_eq!(code(first).await, Code::Ok);
    let third = guarded.oneshot(call(LIST, Some("hanako"))).await.unwrap();
    assert_eq!(code(third).await, Code::Ok);
}

#[tokio::test]
async fn every_call_is_counted_once_under_its_code() {
    let registry = Registry::new();
    let handler = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(ok()) });
    let guarded = access(&registry).layer(handler);
    for token in [Some("hanako"), None] {
        code(guarded.clone().oneshot(call(LIST, token)).await.unwrap()).await;
    }
    drop(guarded.clone().oneshot(call(LIST, Some("hanako"))).await.unwrap());
    code(guarded.oneshot(call("/made/up", None)).await.unwrap()).await;
    let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let counted = |service: &str, method: &str, code: &str, times: u32| {
        let line = format!(
            "grpc_server_handled_total{{grpc_code=\"{code}\",grpc_method=\"{method}\",grpc_service=\"{service}\",plan=\"none\"}} {times}\n"
        );
        assert!(text.contains(&line), "{line}{text}");
    };
    let backup = "tsujiban.backup.v1.BackupService";
    counted(backup, "ListSnapshots", "OK", 1);
    counted(backup, "ListSnapshots", "Unauthenticated", 1);
    counted(backup, "ListSnapshots", "Canceled", 1);
    counted(backup, "VerifySnapshot", "OK", 0);
    counted("unknown", "unknown", "Unimplemented", 1);
}
