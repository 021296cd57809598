//! Those who are not let in.

use std::time::Instant;

use tonic::Code;
use tsujiban_proto::audit::v1::{ActorKind, Phase, Result as AuditResult};

use crate::stage::{Stage, message};

const LIST: &str = "/tsujiban.backup.v1.BackupService/ListSnapshots";

#[tokio::test]
async fn whoever_is_not_known_and_what_does_not_exist_is_recorded() {
    let stage = Stage::new().await;
    let bidi = "/no.such/\u{2066}";
    let encoded = "/no.such/%E2%81%A6";
    assert_eq!(stage.call(LIST, "forged", "acme").await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(stage.send(LIST, message(LIST, "acme"), &[]).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(stage.call(encoded, "hanako", "acme").await.unwrap_err().code(), Code::Unimplemented);
    let recorded = stage.recorded().await;
    let shown: Vec<_> =
        recorded.iter().map(|(group, o)| (group.as_str(), o.result(), o.code.as_str(), o.reason.as_str(), o.target.as_str())).collect();
    assert_eq!(
        shown,
        [
            ("", AuditResult::Denied, "UNAUTHENTICATED", "BAD_TOKEN", ""),
            ("", AuditResult::Denied, "UNAUTHENTICATED", "NO_TOKEN", ""),
            ("", AuditResult::Denied, "UNIMPLEMENTED", "", encoded),
        ],
        "{bidi:?} as it came"
    );
    assert!(recorded.iter().all(|(_, o)| o.actor.as_ref().unwrap().kind() == ActorKind::Unknown));
}

/// A flood of those who are not known leaves a few entries and says how many it left out; whoever is known is recorded all the same.
#[tokio::test]
async fn a_flood_does_not_fill_the_history() {
    let stage = Stage::new().await;
    let start = Instant::now();
    for _ in 0..500 {
        stage.call(LIST, "forged", "acme").await.unwrap_err();
    }
    stage.call(LIST, "taro", "acme").await.unwrap_err();
    stage.call(LIST, "hanako", "acme").await.unwrap();
    let recorded = stage.recorded().await;
    let of_nobody = recorded.iter().filter(|(_, o)| o.code == "UNAUTHENTICATED").count();
    // one more for each ten seconds that it took
    let most = 31 + usize::try_from(start.elapsed().as_secs() / 10).unwrap();
    assert!((30..=most).contains(&of_nobody), "{of_nobody} of at most {most}");
    let told: Vec<_> = recorded.iter().filter(|(_, o)| o.phase() == Phase::Observed).collect();
    assert!(!told.is_empty());
    assert_eq!(told[0].1.reason, "REFUSALS_LEFT_OUT");
    let left_out = usize::try_from(stage.metric("tsujiban_history_refusals_left_out_total")).unwrap();
    assert_eq!(of_nobody + left_out, 500);
    for (actor, came) in [("taro", AuditResult::Denied), ("hanako", AuditResult::Allowed)] {
        let is_there = recorded.iter().any(|(_, o)| o.actor.as_ref().unwrap().id == actor && o.result() == came);
        assert!(is_there, "{actor}");
    }
}
