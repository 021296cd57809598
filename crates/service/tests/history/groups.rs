//! The group comes from the identity.

use tonic::Code;
use tsujiban_proto::audit::v1::Result as AuditResult;

use crate::stage::{Stage, methods, path};

/// C7: every method, found by its descriptor, called by somebody of group A with every field naming group B: denied, recorded, and never
/// seen by a handler.
#[tokio::test]
async fn whoever_names_another_group_is_denied_and_recorded() {
    let stage = Stage::new().await;
    for token in ["collector", "session-a1"] {
        let before = stage.recorded().await.len();
        for method in methods() {
            let status = stage.call(&path(&method), token, "other").await.unwrap_err();
            assert_eq!(status.code(), Code::PermissionDenied, "{}", method.full_name());
        }
        let new = stage.recorded().await.split_off(before);
        for method in methods() {
            let found = new
                .iter()
                .find(|(_, operation)| operation.service == method.parent_service().full_name() && operation.method == method.name());
            let (group, operation) = found.unwrap_or_else(|| panic!("{token} {}", method.full_name()));
            assert_eq!((operation.result(), operation.code.as_str()), (AuditResult::Denied, "PERMISSION_DENIED"));
            assert_ne!(group, "other", "nobody is told what others try");
            if operation.reason == "OTHER_GROUP" {
                assert_eq!(group, "", "the platform's own history tells of it");
            }
        }
        assert!(new.iter().any(|(_, operation)| operation.reason == "OTHER_GROUP"), "{token}");
    }
    assert_eq!(stage.seen(), Vec::<String>::new());
}

/// What somebody may not do in their own group, their own group's history tells.
#[tokio::test]
async fn a_missing_permission_is_told_to_the_own_group() {
    let stage = Stage::new().await;
    let verify = "/tsujiban.backup.v1.BackupService/VerifySnapshot";
    let erase = "/tsujiban.lifecycle.v1.LifecycleService/Erase";
    stage.call(verify, "session-a1", "acme").await.unwrap();
    for (path, token) in [(erase, "session-a1"), (erase, "collector"), (erase, "taro")] {
        assert_eq!(stage.call(path, token, "acme").await.unwrap_err().code(), Code::PermissionDenied, "{path} {token}");
    }
    let shown: Vec<_> = stage.outcomes().await.into_iter().map(|(group, o)| (group, o.reason, o.actor.unwrap().id)).collect();
    let of = |group: &str, reason: &str, actor: &str| (group.to_owned(), reason.to_owned(), actor.to_owned());
    assert_eq!(
        shown,
        [
            of("acme", "", "a1"),
            of("acme", "MISSING_PERMISSION", "a1"),
            of("acme", "NOT_ALLOWED", "collector/acme"),
            of("", "MISSING_RIGHT", "taro"),
        ]
    );
}
