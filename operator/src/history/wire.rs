//! An observation as an entry of the history. Pure.

use std::collections::HashMap;

use jiff::Timestamp;
use ring::digest::{Context, SHA256};
use tsujiban_proto::access::v1::Operation as Verb;
use tsujiban_proto::audit::v1::{Actor, ActorKind, NewEntry, Operation, Phase, Result};
use tsujiban_proto::time::to_wire;

use super::{Change, Observation};

/// The id of an actor who is not known.
pub const UNKNOWN: &str = "unknown, see the apiserver's audit log";
/// The longest name of a user that is recorded, in characters. An entry must never be too large to be accepted.
const LONGEST: usize = 1024;
/// The service that was called: the apiserver, for our kinds.
const SERVICE: &str = "tsujiban.dev/v1alpha1";

/// The id of an entry: the same for the same observation, whichever process makes it and however often.
pub fn id(observation: &Observation) -> Vec<u8> {
    let which = match &observation.what {
        Change::Created(after) | Change::Changed { after, .. } => after.generation.to_string(),
        Change::Deleted { .. } => "deleted".to_owned(),
    };
    let mut context = Context::new(&SHA256);
    // neither a kind nor a uid nor a generation holds a zero byte
    for part in ["tsujiban observation 1", observation.kind.as_str(), &observation.uid, &which] {
        context.update(part.as_bytes());
        context.update(&[0]);
    }
    context.finish().as_ref().iter().take(16).copied().collect()
}

/// The entry. `seen` is when it was observed first.
pub fn entry(observation: &Observation, seen: Timestamp) -> NewEntry {
    let id = id(observation);
    let mut detail = HashMap::from([("uid".to_owned(), observation.uid.clone())]);
    let mut note = |key: &str, value: String| detail.insert(key.to_owned(), value);
    let verb = match &observation.what {
        Change::Created(after) => {
            note("generations", range(1, after.generation));
            note("after", after.digest.clone());
            if let Some(created) = observation.created {
                note(
                    "created",
                    format!("{}+09:00", created.to_zoned(jiff::tz::Offset::constant(9).to_time_zone()).strftime("%Y-%m-%dT%H:%M:%S")),
                );
            }
            Verb::Create
        }
        Change::Changed { before, after } => {
            note("generations", range(before.generation + 1, after.generation));
            note("before", before.digest.clone());
            note("after", after.digest.clone());
            Verb::Operate
        }
        Change::Deleted { before } => {
            if let Some(before) = before {
                note("before", before.clone());
            }
            Verb::Delete
        }
    };
    let operation = Operation {
        id: id.clone(),
        phase: Phase::Observed.into(),
        time: Some(to_wire(seen)),
        actor: Some(actor(observation.changed_by.as_deref())),
        service: SERVICE.to_owned(),
        method: observation.kind.as_str().to_owned(),
        function: observation.kind.function().to_owned(),
        operation: verb.into(),
        target: observation.name.clone(),
        result: Result::Allowed.into(),
        code: "OK".to_owned(),
        detail,
        ..Operation::default()
    };
    NewEntry { group: observation.group.to_string(), id, operation: Some(operation) }
}

/// The actor of an entry: the user, if there is one that is trusted.
pub fn actor(user: Option<&str>) -> Actor {
    match user {
        Some(user) => Actor { kind: ActorKind::Kubernetes.into(), id: user.chars().take(LONGEST).collect() },
        None => Actor { kind: ActorKind::Unknown.into(), id: UNKNOWN.to_owned() },
    }
}

fn range(from: i64, to: i64) -> String {
    if from >= to { to.to_string() } else { format!("{from}-{to}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Kind;
    use tsujiban_api::Recorded;

    fn recorded(generation: i64, digest: &str) -> Recorded {
        Recorded { generation, digest: digest.into() }
    }

    fn observation(kind: Kind, uid: &str, what: Change) -> Observation {
        let created = "2026-11-23T15:00:00Z".parse().ok();
        Observation {
            kind,
            group: "acme".parse().unwrap(),
            name: "hq".into(),
            uid: uid.into(),
            what,
            changed_by: Some("hanako".into()),
            changed_at: None,
            created,
        }
    }

    /// A restart never doubles an entry: the id is the same for the same, and for nothing else.
    #[test]
    fn the_id_is_that_of_what_happened() {
        let of = |kind, uid: &str, what| id(&observation(kind, uid, what));
        let created = of(Kind::Site, "u1", Change::Created(recorded(1, "a")));
        assert_eq!((created.len(), created == of(Kind::Site, "u1", Change::Created(recorded(1, "b")))), (16, true));
        let changed = Change::Changed { before: recorded(1, "a"), after: recorded(3, "c") };
        let all = [
            created,
            of(Kind::Site, "u1", changed.clone()),
            of(Kind::Site, "u1", Change::Deleted { before: None }),
            of(Kind::Site, "u2", changed.clone()),
            of(Kind::Device, "u1", changed),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        // never another one in another version: what an older operator recorded is not recorded again
        assert_eq!(hex::encode(&all[0]), "9ff0c915e7e93544f38b6b7fc8ea232f");
    }

    #[test]
    fn an_entry_says_who_what_and_which_generations_and_no_contents() {
        let seen: Timestamp = "2026-11-24T00:00:00.123456Z".parse().unwrap();
        let what = Change::Changed { before: recorded(1, "aa"), after: recorded(4, "bb") };
        let made = entry(&observation(Kind::Device, "u1", what), seen);
        let operation = made.operation.unwrap();
        assert_eq!((made.group.as_str(), &made.id), ("acme", &operation.id));
        assert_eq!((operation.phase(), operation.operation(), operation.result()), (Phase::Observed, Verb::Operate, Result::Allowed));
        assert_eq!((operation.function.as_str(), operation.target.as_str(), operation.method.as_str()), ("devices", "hq", "Device"));
        let detail = |key: &str| operation.detail.get(key).map(String::as_str);
        assert_eq!((detail("generations"), detail("before"), detail("after")), (Some("2-4"), Some("aa"), Some("bb")));
        assert_eq!((detail("uid"), operation.time), (Some("u1"), Some(to_wire(seen))));
        assert_eq!(operation.actor, Some(Actor { kind: ActorKind::Kubernetes.into(), id: "hanako".into() }));
        let one = Change::Changed { before: recorded(3, "aa"), after: recorded(4, "bb") };
        assert_eq!(entry(&observation(Kind::Device, "u1", one), seen).operation.unwrap().detail["generations"], "4");
        let first = entry(&observation(Kind::Device, "u1", Change::Created(recorded(2, "aa"))), seen).operation.unwrap();
        assert_eq!((first.detail["generations"].as_str(), first.detail["created"].as_str()), ("1-2", "2026-11-24T00:00:00+09:00"));
    }

    #[test]
    fn who_deleted_something_is_not_known() {
        let deleted = Observation { changed_by: None, ..observation(Kind::Tenant, "u1", Change::Deleted { before: Some("aa".into()) }) };
        let operation = entry(&deleted, Timestamp::UNIX_EPOCH).operation.unwrap();
        assert_eq!((operation.operation(), operation.detail.get("generations")), (Verb::Delete, None));
        let actor = operation.actor.unwrap();
        assert_eq!((actor.kind(), actor.id.as_str()), (ActorKind::Unknown, "unknown, see the apiserver's audit log"));
    }
}
