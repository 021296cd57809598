//! The layer around a handler that answers every call, without a connection: the cheapest way to see every refusal.

mod revealing;

use std::convert::Infallible;
use std::future::pending;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use prometheus::{Registry, TextEncoder};
use tonic::Code;
use tower::{ServiceExt, service_fn};
use tsujiban_proto::access::v1::Operation;

use super::*;
use crate::identity::WithPersons;
use crate::plan::Plan;
use crate::testing::{KnownCallers, KnownPersons};

const PUT: &str = "/tsujiban.backup.v1.BackupService/PutSnapshot";
const GET: &str = "/tsujiban.backup.v1.BackupService/GetSnapshot";
const LIST: &str = "/tsujiban.backup.v1.BackupService/ListSnapshots";
const HOST_KEY: &str = "/tsujiban.backup.v1.BackupService/GetHostKey";
const ATTEMPTS: &str = "/tsujiban.backup.v1.BackupService/ListAttempts";
const REPORT: &str = "/tsujiban.lifecycle.v1.LifecycleService/Report";

fn callers() -> Arc<dyn Authenticator> {
    let known = KnownCallers::new().operator("operator").collector("acme", &"acme".parse().unwrap());
    Arc::new(known.staff("hanako", "hanako", &[("snapshots", "list")]))
}

fn access(registry: &Registry) -> Access {
    let guard = Guard::new(callers(), registry.clone());
    Access::new(Guard { concurrent_calls: 1, unary_timeout: Duration::from_millis(50), ..guard }).unwrap()
}

fn call(path: &str, token: Option<&str>) -> Request<Body> {
    call_of("acme", path, token)
}

/// A call whose request names a group.
fn call_of(group: &str, path: &str, token: Option<&str>) -> Request<Body> {
    // the group is the first field, of the first field, of the first field
    let depth = match path {
        PUT => 3,
        HOST_KEY => 2,
        _ => 1,
    };
    let message = (0..depth).fold(group.as_bytes().to_vec(), |inner, _| [&[10, u8::try_from(inner.len()).unwrap()], &inner[..]].concat());
    let frame = [&[0, 0, 0, 0, u8::try_from(message.len()).unwrap()], &message[..]].concat();
    let mut request = Request::builder().uri(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(Body::new(Full::new(Bytes::from(frame)).map_err(|never| match never {}))).unwrap()
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

/// C7: a collector's call that names another group, or none, never reaches its handler.
#[tokio::test]
async fn a_collector_gets_into_no_other_group() {
    let handler = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(ok()) });
    let access = access(&Registry::new());
    for (group, wanted) in
        [("acme", Code::Ok), ("other", Code::PermissionDenied), ("", Code::InvalidArgument), ("A", Code::PermissionDenied)]
    {
        for path in [PUT, HOST_KEY] {
            let response = access.layer(handler).oneshot(call_of(group, path, Some("acme"))).await.unwrap();
            assert_eq!(code(response).await, wanted, "{group:?} {path}");
        }
    }
}

/// A person needs a group of theirs, and a role in it that lets them.
#[tokio::test]
async fn a_person_needs_a_group_and_a_role_in_it() {
    let persons = KnownPersons::new().person("a1", &["acme", "beta"], &[("snapshots", Operation::View)]);
    let known = WithPersons::new(callers(), persons);
    let access = Access::new(Guard::new(Arc::new(known), Registry::new())).unwrap();
    let handler = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(ok()) });
    let code_of = async |group: &str, path: &str, token: &str| {
        code(access.layer(handler).oneshot(call_of(group, path, Some(token))).await.unwrap()).await
    };
    for group in ["acme", "beta"] {
        assert_eq!(code_of(group, LIST, "session-a1").await, Code::Ok);
    }
    for group in ["other", ""] {
        assert_eq!(code_of(group, LIST, "session-a1").await, Code::PermissionDenied, "{group:?}");
    }
    assert_eq!(code_of("acme", REPORT, "session-a1").await, Code::PermissionDenied, "no role lets them");
    assert_eq!(code_of("acme", PUT, "session-a1").await, Code::PermissionDenied, "no role lets them");
    assert_eq!(code_of("acme", ATTEMPTS, "session-a1").await, Code::PermissionDenied, "it is about no group");
    assert_eq!(code_of("acme", LIST, "session-a2").await, Code::Unauthenticated);
    assert_eq!(code_of("acme", LIST, "hanako").await, Code::Ok, "staff are staff");
}

#[tokio::test]
async fn a_request_that_is_no_message_of_the_method_is_refused() {
    let handler = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(ok()) });
    let mut request = call(LIST, Some("hanako"));
    *request.body_mut() = Body::new(Full::new(Bytes::from_static(b"\0\0\0\0\x02\x0a\x09")).map_err(|never| match never {}));
    let response = access(&Registry::new()).layer(handler).oneshot(request).await.unwrap();
    assert_eq!(code(response).await, Code::InvalidArgument);
}

/// Clients may ask for the contracts where it is wanted, and only those who are known.
#[tokio::test]
async fn the_contracts_are_shown_only_where_it_is_wanted() {
    let handler = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(ok()) });
    for (reflection, token, wanted) in [
        (false, Some("hanako"), Code::Unimplemented),
        (true, Some("hanako"), Code::Ok),
        (true, Some("forged"), Code::Unimplemented),
        (true, None, Code::Unimplemented),
    ] {
        let guard = Guard { reflection, ..Guard::new(callers(), Registry::new()) };
        let request = call("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", token);
        let response = Access::new(guard).unwrap().layer(handler).oneshot(request).await.unwrap();
        assert_eq!(code(response).await, wanted, "{reflection} {token:?}");
    }
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

/// C19: the SLO is Prime's, so figures tell the plans apart, and nothing else of a group.
#[tokio::test]
async fn calls_are_counted_by_plan() {
    struct Known;
    impl Plans for Known {
        fn plan(&self, group: &str) -> Option<Plan> {
            match group {
                "acme" => Some(Plan::Prime),
                "beta" => Some(Plan::Free),
                _ => None,
            }
        }
    }
    let registry = Registry::new();
    let guard = Guard { plans: Arc::new(Known), ..Guard::new(callers(), registry.clone()) };
    let access = Access::new(guard).unwrap();
    let handler = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(ok()) });
    for group in ["acme", "acme", "beta", "other", ""] {
        code(access.layer(handler).oneshot(call_of(group, LIST, Some("hanako"))).await.unwrap()).await;
    }
    let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    for (plan, times) in [("prime", 2), ("free", 1), ("none", 2)] {
        let line = format!(
            "grpc_server_handled_total{{grpc_code=\"OK\",grpc_method=\"ListSnapshots\",grpc_service=\"tsujiban.backup.v1.BackupService\",plan=\"{plan}\"}} {times}\n"
        );
        assert!(text.contains(&line), "{line}{text}");
    }
    assert!(!text.contains("acme"));
}
