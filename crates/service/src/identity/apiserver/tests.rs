//! Conversations with an apiserver that says what each scenario wants.

use std::pin::pin;

use http::{Request, Response};
use http_body_util::BodyExt;
use jiff::SignedDuration;
use kube::client::Body;
use serde_json::{Value, json};
use tower_test::mock::{self, Handle};
use tsujiban_core::clock::ManualClock;

use super::*;
use crate::identity::Principal;

type Apiserver = Handle<Request<Body>, Response<Body>>;

const AUDIENCE: &str = "backup.tsujiban.dev";

fn authenticator() -> (KubeAuthenticator, Apiserver, Arc<ManualClock>) {
    let (service, apiserver) = mock::pair();
    let clock = Arc::new(ManualClock::new("2026-11-23T00:00:00Z".parse().unwrap()));
    let client = Client::new(service, "default");
    (KubeAuthenticator::new(client, AUDIENCE, "tsujiban-system", Arc::clone(&clock)), apiserver, clock)
}

/// Takes the next request, answers it with `status`, and gives its path and its spec.
async fn answer(apiserver: &mut Apiserver, status: Value) -> (String, Value) {
    // a question that is not asked fails the test rather than stopping it
    let asked = timeout(DEADLINE, pin!(apiserver.next_request())).await.expect("no question was asked");
    let (request, send) = asked.expect("a request");
    let path = request.uri().path().to_owned();
    let mut review: Value = serde_json::from_slice(&request.into_body().collect().await.unwrap().to_bytes()).unwrap();
    let spec = review["spec"].clone();
    review["status"] = status;
    send.send_response(Response::new(Body::from(serde_json::to_vec(&review).unwrap())));
    (path, spec)
}

fn collector() -> Value {
    json!({"authenticated": true, "audiences": [AUDIENCE], "user": {
        "username": "system:serviceaccount:tn-acme:collector", "uid": "u1", "groups": ["system:serviceaccounts"], "extra": {"pod": ["p"]}}})
}

async fn authenticate_with(status: Value) -> Result<Identity, ServiceError> {
    let (authenticator, mut apiserver, _) = authenticator();
    let (outcome, _) = tokio::join!(authenticator.authenticate("token"), answer(&mut apiserver, status));
    outcome
}

#[tokio::test]
async fn a_token_is_reviewed_for_the_services_audience_and_no_other() {
    let (authenticator, mut apiserver, _) = authenticator();
    let (identity, (path, spec)) = tokio::join!(authenticator.authenticate("secret"), answer(&mut apiserver, collector()));
    assert_eq!(path, "/apis/authentication.k8s.io/v1/tokenreviews");
    assert_eq!(spec, json!({"token": "secret", "audiences": [AUDIENCE]}));
    let identity = identity.unwrap();
    assert_eq!(identity.principal, Principal::Collector { group: "acme".parse().unwrap() });
    assert_eq!((identity.user.uid.as_deref(), identity.user.groups.len(), identity.user.extra.len()), (Some("u1"), 1, 1));
}

#[tokio::test]
async fn an_answer_without_the_audience_is_refused() {
    for audiences in [json!(null), json!([]), json!(["https://kubernetes.default.svc"]), json!([AUDIENCE, "other"])] {
        let mut status = collector();
        status["audiences"] = audiences;
        assert_eq!(authenticate_with(status).await.unwrap_err().kind, Kind::Unauthenticated);
    }
}

#[tokio::test]
async fn a_refused_token_is_refused() {
    let status = json!({"error": "token has expired"});
    assert_eq!(authenticate_with(status).await.unwrap_err().kind, Kind::Unauthenticated);
}

#[tokio::test]
async fn an_account_that_is_none_of_ours_is_denied() {
    let mut status = collector();
    status["user"]["username"] = json!("system:serviceaccount:default:collector");
    assert_eq!(authenticate_with(status).await.unwrap_err().kind, Kind::Denied);
}

#[tokio::test]
async fn a_confirmed_token_is_asked_for_again_after_thirty_seconds() {
    let (authenticator, mut apiserver, clock) = authenticator();
    let (first, _) = tokio::join!(authenticator.authenticate("token"), answer(&mut apiserver, collector()));
    first.unwrap();
    clock.advance(SignedDuration::from_secs(29));
    authenticator.authenticate("token").await.unwrap();
    clock.advance(SignedDuration::from_secs(1));
    let (revoked, _) = tokio::join!(authenticator.authenticate("token"), answer(&mut apiserver, json!({"error": "revoked"})));
    assert_eq!(revoked.unwrap_err().kind, Kind::Unauthenticated);
}

#[tokio::test]
async fn a_refusal_is_not_remembered() {
    let (authenticator, mut apiserver, _) = authenticator();
    let (refused, _) = tokio::join!(authenticator.authenticate("token"), answer(&mut apiserver, json!({})));
    refused.unwrap_err();
    let (accepted, _) = tokio::join!(authenticator.authenticate("token"), answer(&mut apiserver, collector()));
    accepted.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_silent_apiserver_lets_nobody_in() {
    let (authenticator, apiserver, _) = authenticator();
    let error = authenticator.authenticate("token").await.unwrap_err();
    assert_eq!((error.kind, error.reason.as_str()), (Kind::Unavailable, "NO_APISERVER"));
    drop(apiserver);
}

#[tokio::test]
async fn a_right_is_asked_for_the_user_as_the_apiserver_knows_them() {
    let (authenticator, mut apiserver, _) = authenticator();
    let (identity, _) = tokio::join!(authenticator.authenticate("token"), answer(&mut apiserver, collector()));
    let identity = identity.unwrap();
    let (allowed, (path, spec)) =
        tokio::join!(authenticator.allowed(&identity, "snapshots", "reveal"), answer(&mut apiserver, json!({"allowed": true})));
    assert!(allowed.unwrap());
    assert_eq!(path, "/apis/authorization.k8s.io/v1/subjectaccessreviews");
    assert_eq!(
        spec,
        json!({"user": "system:serviceaccount:tn-acme:collector", "uid": "u1", "groups": ["system:serviceaccounts"], "extra": {"pod": ["p"]},
            "resourceAttributes": {"group": AUDIENCE, "resource": "snapshots", "verb": "reveal"}})
    );
}

#[tokio::test]
async fn only_a_plain_yes_is_a_right() {
    for status in [json!({"allowed": false}), json!({"allowed": true, "denied": true})] {
        let (authenticator, mut apiserver, _) = authenticator();
        let identity = Identity { principal: Principal::Operator, user: User::default() };
        let (allowed, _) = tokio::join!(authenticator.allowed(&identity, "snapshots", "get"), answer(&mut apiserver, status));
        assert!(!allowed.unwrap());
    }
}
