//! Every method leaves what came of it.

use tonic::{Code, Status};
use tsujiban_core::workload::Workload;
use tsujiban_proto::access::v1::History;
use tsujiban_proto::audit::v1::{ActorKind, Phase, Result as AuditResult};
use tsujiban_proto::rules::{self, Rules};

use crate::stage::{Options, Stage, methods, path};

/// Somebody who may call a method, and who that is to the history.
fn somebody(rule: &tsujiban_proto::access::v1::Rule) -> (&'static str, ActorKind, &'static str) {
    match rule.workloads().next().and_then(|named| rules::workloads(named).first().copied()) {
        Some(Workload::Collector) => ("collector", ActorKind::Workload, "collector/acme"),
        Some(Workload::Operator) => ("operator", ActorKind::Workload, "tsujiban-operator"),
        Some(Workload::Service(service)) => (service.row().name, ActorKind::Workload, service.row().host),
        None => ("hanako", ActorKind::Staff, "hanako"),
    }
}

/// C5: every method of every contract, found by its descriptor, leaves its operation: in the group's history when it is about one.
#[tokio::test]
async fn every_method_leaves_what_came_of_it() {
    let stage = Stage::new().await;
    let rules = Rules::load().unwrap();
    let mut all = 0;
    for method in methods() {
        let path = path(&method);
        let rule = rules.of(&path).unwrap();
        let (token, kind, id) = somebody(rule);
        let before = stage.recorded().await.len();
        stage.call(&path, token, "acme").await.unwrap();
        let new = stage.recorded().await.split_off(before);
        let phases: Vec<_> = new.iter().map(|(_, operation)| operation.phase()).collect();
        let wanted: &[Phase] = match rule.history() {
            History::Strict => &[Phase::Intent, Phase::Outcome],
            History::None => &[],
            _ => &[Phase::Outcome],
        };
        assert_eq!(phases, wanted, "{path}");
        let Some((group, outcome)) = new.last() else { continue };
        let is_about_a_group = !["ListAttempts", "RebuildCatalogue"].contains(&method.name());
        assert_eq!(group, if is_about_a_group { "acme" } else { "" }, "{path}");
        let actor = outcome.actor.as_ref().unwrap();
        assert_eq!((actor.kind(), actor.id.as_str()), (kind, id), "{path}");
        assert_eq!((outcome.result(), outcome.code.as_str()), (AuditResult::Allowed, "OK"), "{path}");
        assert_eq!((outcome.service.as_str(), outcome.method.as_str()), (method.parent_service().full_name(), method.name()));
        assert_eq!((outcome.function.as_str(), outcome.operation()), (rule.function.as_str(), rule.operation()), "{path}");
        assert_eq!(outcome.from, "127.0.0.1", "{path}");
        assert!(outcome.time.is_some() && outcome.duration_us > 0 && outcome.id.len() == 16 && outcome.request_id.len() == 32, "{path}");
        all += 1;
    }
    assert!(all >= 23, "{all}");
    assert_eq!(stage.seen().len(), all + 2, "each was called, those that are not recorded as well");
}

/// What a handler refuses or fails of is in the history, with its code and its reason, and the target that the request named.
#[tokio::test]
async fn what_failed_says_why() {
    let answer = |path: String| -> futures::future::BoxFuture<'static, Result<(), Status>> {
        Box::pin(async move {
            use tsujiban_proto::error::{Kind, ServiceError};
            let kind = if path.ends_with("GetHostKey") { Kind::NotFound } else { Kind::Denied };
            Err(ServiceError::new(kind, "SOME_REASON", "by the test").into())
        })
    };
    let stage = Stage::with(Options { answer: std::sync::Arc::new(answer), ..Options::default() }).await;
    let path = "/tsujiban.backup.v1.BackupService/GetHostKey";
    assert_eq!(stage.call(path, "collector", "acme").await.unwrap_err().code(), Code::NotFound);
    let path = "/tsujiban.backup.v1.BackupService/GetSnapshot";
    assert_eq!(stage.call(path, "hanako", "acme").await.unwrap_err().code(), Code::PermissionDenied);
    let outcomes = stage.outcomes().await;
    let shown: Vec<_> = outcomes.iter().map(|(_, o)| (o.result(), o.code.as_str(), o.reason.as_str(), o.target.as_str())).collect();
    assert_eq!(
        shown,
        [(AuditResult::Failed, "NOT_FOUND", "SOME_REASON", "SN9"), (AuditResult::Denied, "PERMISSION_DENIED", "SOME_REASON", "")]
    );
}

/// A caller who goes away does not take the operation with them. Of a write, nobody knows whether it was done.
#[tokio::test]
async fn a_caller_who_goes_away_leaves_the_operation() {
    let answer = |_: String| -> futures::future::BoxFuture<'static, Result<(), Status>> { Box::pin(std::future::pending()) };
    let stage = Stage::with(Options { answer: std::sync::Arc::new(answer), ..Options::default() }).await;
    for (path, token) in
        [("/tsujiban.lifecycle.v1.LifecycleService/Prepare", "operator"), ("/tsujiban.backup.v1.BackupService/GetHostKey", "collector")]
    {
        let seen = stage.seen().len();
        tokio::select! {
            _ = stage.call(path, token, "acme") => panic!("it never answers"),
            () = crate::stage::until(|| stage.seen().len() > seen) => {}
        }
    }
    crate::stage::until(|| stage.taken().len() == 3).await;
    let outcomes = stage.outcomes().await;
    let shown: Vec<_> = outcomes.iter().map(|(_, o)| (o.method.as_str(), o.result(), o.code.as_str())).collect();
    assert_eq!(shown, [("Prepare", AuditResult::Unknown, "CANCELLED"), ("GetHostKey", AuditResult::Failed, "CANCELLED")]);
}
