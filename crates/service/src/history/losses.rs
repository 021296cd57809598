//! Entries of the platform's own history that report operations lost from a spool, and the beginning of a new spool.

use std::collections::HashMap;

use jiff::Timestamp;
use ring::digest::{Context, SHA256};
use tsujiban_proto::access::v1::Operation as Verb;
use tsujiban_proto::audit::v1::{Actor, ActorKind, NewEntry, Operation, Phase, Result as AuditResult};
use tsujiban_proto::time::to_wire;

use super::operation::{self, ID_BYTES};
use super::spool::Loss;

/// The reasons in these entries.
pub const SPOOL_DAMAGED: &str = "SPOOL_DAMAGED";
pub const SPOOL_LOST: &str = "SPOOL_LOST";
pub const SPOOL_BEGUN: &str = "SPOOL_BEGUN";

/// A spool: of which service it is, and the id of its key, which no other spool has.
#[derive(Debug, Clone)]
pub(crate) struct Name {
    pub service: &'static str,
    pub spool: String,
}

/// Reports operations in the spool that cannot be read any more. The same loss has the same entry id, however often it is found.
pub(super) fn damaged(name: &Name, loss: Loss, now: Timestamp) -> NewEntry {
    let records = if loss.records == 0 { "unknown".to_owned() } else { loss.records.to_string() };
    let detail = [("records", records), ("first", loss.first.to_string())];
    entry(name, (SPOOL_DAMAGED, AuditResult::Failed, "DATA_LOSS"), detail, now)
}

/// Reports a new spool: the first one, or one in place of the spool `before`, which is lost with everything in it.
pub(super) fn begun(name: &Name, before: Option<&str>, now: Timestamp) -> NewEntry {
    match before {
        None => entry(name, (SPOOL_BEGUN, AuditResult::Allowed, "OK"), [], now),
        Some(before) => entry(name, (SPOOL_LOST, AuditResult::Failed, "DATA_LOSS"), [("before", before.to_owned())], now),
    }
}

fn entry<const N: usize>(
    name: &Name,
    (reason, result, code): (&str, AuditResult, &str),
    detail: [(&str, String); N],
    now: Timestamp,
) -> NewEntry {
    let mut detail: HashMap<String, String> = detail.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let mut id = Context::new(&SHA256);
    for part in ["history spool", &name.spool, reason, detail.get("first").map_or("", String::as_str)] {
        id.update(part.as_bytes());
        id.update(&[0]);
    }
    detail.insert("spool".to_owned(), name.spool.clone());
    let operation = Operation {
        id: id.finish().as_ref().iter().copied().take(ID_BYTES).collect(),
        phase: Phase::Observed.into(),
        time: Some(to_wire(now)),
        actor: Some(Actor { kind: ActorKind::Workload.into(), id: name.service.to_owned() }),
        function: "history".to_owned(),
        operation: Verb::Operate.into(),
        target: "spool".to_owned(),
        result: result.into(),
        code: code.to_owned(),
        reason: reason.to_owned(),
        detail,
        ..Operation::default()
    };
    operation::entry("", operation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_one_entry_however_often_it_is_found() {
        let name = Name { service: "tsujiban-backup", spool: "k1".into() };
        let (now, later) = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_hours(1));
        let loss = Loss { first: 7, records: 2 };
        let told = damaged(&name, loss, now);
        assert_eq!(told.id, damaged(&name, loss, later).id);
        let others = [
            damaged(&name, Loss { first: 8, records: 2 }, now),
            damaged(&Name { spool: "k2".into(), ..name.clone() }, loss, now),
            begun(&name, None, now),
            begun(&name, Some("k0"), now),
        ];
        assert!(others.iter().all(|other| other.id != told.id));
        let operation = told.operation.unwrap();
        assert_eq!((told.group.as_str(), operation.reason.as_str(), operation.result()), ("", "SPOOL_DAMAGED", AuditResult::Failed));
        assert_eq!((operation.detail["records"].as_str(), operation.detail["spool"].as_str()), ("2", "k1"));
    }
}
