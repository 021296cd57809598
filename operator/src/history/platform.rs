//! What the operator observes of the platform itself, as entries of the platform's own log.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use ring::digest::{Context as Digest, SHA256};
use tsujiban_core::clock::Clock;
use tsujiban_core::workload::Service;
use tsujiban_proto::access::v1::Operation as Verb;
use tsujiban_proto::audit::v1::{NewEntry, Operation, Phase, Result as Outcome};
use tsujiban_proto::time::to_wire;

use super::Acknowledged;
use super::wire::actor;
use crate::services::Services;
use crate::services::client::CallError;

/// Who was called: Kubernetes, and no service of ours.
const SERVICE: &str = "kubernetes";

/// Something that happened to the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformEvent {
    /// The function of the history that it belongs to.
    pub function: &'static str,
    pub verb: Verb,
    /// The kind that it happened to.
    pub kind: &'static str,
    pub target: String,
    /// When it was first observed.
    pub seen: Timestamp,
    /// The Kubernetes user, if it is trusted.
    pub user: Option<String>,
    pub detail: BTreeMap<String, String>,
}

/// The platform's own log. Clones share it.
#[derive(Clone)]
pub struct PlatformLog {
    pub services: Arc<Services>,
    /// Keeps an entry until a root list covers it.
    pub kept: Acknowledged,
    pub clock: Arc<dyn Clock>,
}

impl PlatformLog {
    /// Records an event, and returns when it is durable. Does nothing without a history. The same event is one entry, however often it is
    /// recorded.
    pub async fn record(&self, event: &PlatformEvent) -> Result<(), CallError> {
        let Some(audit) = self.services.find(Service::Audit) else { return Ok(()) };
        let entry = entry(event);
        audit.append(vec![entry.clone()]).await?;
        self.kept.keep(vec![entry], self.clock.now()).await;
        Ok(())
    }
}

fn entry(event: &PlatformEvent) -> NewEntry {
    let id = id(event);
    let operation = Operation {
        id: id.clone(),
        phase: Phase::Observed.into(),
        time: Some(to_wire(event.seen)),
        actor: Some(actor(event.user.as_deref())),
        service: SERVICE.to_owned(),
        method: event.kind.to_owned(),
        function: event.function.to_owned(),
        operation: event.verb.into(),
        target: event.target.clone(),
        result: Outcome::Allowed.into(),
        code: "OK".to_owned(),
        detail: event.detail.clone().into_iter().collect::<HashMap<_, _>>(),
        ..Operation::default()
    };
    NewEntry { group: String::new(), id, operation: Some(operation) }
}

/// The id of an entry: equal for equal events only.
fn id(event: &PlatformEvent) -> Vec<u8> {
    let seen = event.seen.to_string();
    let parts = ["tsujiban platform event 1", event.function, event.kind, &event.target, &seen];
    let detail = event.detail.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]);
    let mut digest = Digest::new(&SHA256);
    for part in parts.into_iter().chain(detail) {
        digest.update(part.as_bytes());
        digest.update(&[0]);
    }
    digest.finish().as_ref().iter().take(16).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tsujiban_proto::audit::v1::ActorKind;

    fn event(second: i64, missing: &str) -> PlatformEvent {
        PlatformEvent {
            function: "policies",
            verb: Verb::Operate,
            kind: "ValidatingAdmissionPolicy",
            target: "admission policies".into(),
            seen: Timestamp::from_second(second).unwrap(),
            user: None,
            detail: [("missing".to_owned(), missing.to_owned())].into(),
        }
    }

    #[test]
    fn an_event_is_one_entry_of_the_platforms_own_log() {
        let made = entry(&event(1, "a"));
        assert_eq!((made.group.as_str(), &made.id), ("", &entry(&event(1, "a")).id));
        assert!(made.id != entry(&event(2, "a")).id && made.id != entry(&event(1, "b")).id);
        let operation = made.operation.unwrap();
        assert_eq!((operation.phase(), operation.detail["missing"].as_str()), (Phase::Observed, "a"));
        assert_eq!(operation.actor.unwrap().kind(), ActorKind::Unknown);
        let by = PlatformEvent { user: Some("hanako".into()), ..event(1, "a") };
        assert_eq!(entry(&by).operation.unwrap().actor.unwrap().id, "hanako");
    }
}
