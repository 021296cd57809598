//! Calls that reveal secrets, found by the contracts.

use tsujiban_proto::audit::v1::Phase;
use tsujiban_proto::error::ServiceError;
use tsujiban_proto::rules::Rules;
use tsujiban_service::history::HISTORY_UNAVAILABLE;
use tsujiban_service::testing::Mood;

use crate::stage::{Stage, message, methods, path};

/// C5, C22: every method of every contract that can reveal secrets is strict when it does; a new one is called here without anybody writing it
/// down.
#[tokio::test]
async fn every_method_that_can_reveal_is_strict_when_it_does() {
    let stage = Stage::new().await;
    let rules = Rules::load().unwrap();
    let token = [("authorization", "Bearer hanako")];
    let mut all = 0;
    for method in methods() {
        let path = path(&method);
        let Some(field) = rules.fields_of(&path).unwrap().revealing() else { continue };
        let number = method.input().get_field_by_name(field).unwrap().number();
        let revealing = [message(&path, "acme"), vec![u8::try_from(number << 3).unwrap(), 1]].concat();

        stage.audit().is(Mood::Down);
        let seen = stage.seen().len();
        let refused = stage.send(&path, revealing.clone(), &token).await.unwrap_err();
        assert_eq!(ServiceError::from(&refused).reason, HISTORY_UNAVAILABLE, "{path}");
        assert_eq!(stage.seen().len(), seen, "no handler saw it: {path}");

        stage.audit().is(Mood::Good);
        let before = stage.recorded().await.len();
        stage.send(&path, revealing, &token).await.unwrap();
        let new = stage.recorded().await.split_off(before);
        let phases: Vec<_> = new.iter().map(|(group, operation)| (group.as_str(), operation.phase())).collect();
        assert_eq!(phases, [("acme", Phase::Intent), ("acme", Phase::Outcome)], "{path}");
        assert!(new.iter().all(|(_, operation)| operation.detail["reveals"] == "true"), "{path}");
        all += 1;
    }
    assert_eq!(all, 2);
}
