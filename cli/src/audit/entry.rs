//! An entry of the history, as it is shown.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use tsujiban_proto::audit::v1::{ActorKind, Entry};

use crate::output::view::time;
use crate::output::{Align, Table, jst, short_cell};

/// The greatest width of a cell with text from outside Tsujiban. The JSON has the whole text.
const COLUMNS: usize = 48;

/// An entry, in the words of the history itself and of its exports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EntryView {
    sequence: u64,
    appended_at: Option<Timestamp>,
    id: String,
    phase: &'static str,
    time: Option<Timestamp>,
    actor: ActorView,
    from: String,
    service: String,
    method: String,
    function: String,
    operation: &'static str,
    target: String,
    result: &'static str,
    code: String,
    reason: String,
    duration_us: u64,
    request_id: String,
    trace_id: String,
    detail: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct ActorView {
    kind: &'static str,
    id: String,
}

impl From<Entry> for EntryView {
    fn from(entry: Entry) -> Self {
        let operation = entry.operation.unwrap_or_default();
        let actor = operation.actor.clone().unwrap_or_default();
        Self {
            sequence: entry.sequence,
            appended_at: time(entry.appended_at),
            id: hex::encode(&operation.id),
            phase: operation.phase().as_str_name().trim_start_matches("PHASE_"),
            time: time(operation.time),
            actor: ActorView { kind: actor_kind(actor.kind()), id: actor.id },
            operation: operation.operation().as_str_name().trim_start_matches("OPERATION_"),
            result: operation.result().as_str_name().trim_start_matches("RESULT_"),
            from: operation.from,
            service: operation.service,
            method: operation.method,
            function: operation.function,
            target: operation.target,
            code: operation.code,
            reason: operation.reason,
            duration_us: operation.duration_us,
            request_id: operation.request_id,
            trace_id: operation.trace_id,
            detail: operation.detail.into_iter().collect(),
        }
    }
}

impl EntryView {
    pub fn time(&self) -> Option<Timestamp> {
        self.time
    }
}

const fn actor_kind(kind: ActorKind) -> &'static str {
    match kind {
        ActorKind::Workload => "workload",
        ActorKind::Staff => "staff",
        ActorKind::Person => "person",
        ActorKind::Kubernetes => "kubernetes",
        ActorKind::Unknown | ActorKind::Unspecified => "unknown",
    }
}

/// The fields that people look for first. An entry's origin, ids and details are in the JSON.
pub fn table(entries: &[EntryView]) -> String {
    let mut table = Table::new([
        ("TIME", Align::Left),
        ("ENTRY", Align::Right),
        ("ACTOR", Align::Left),
        ("FUNCTION", Align::Left),
        ("OPERATION", Align::Left),
        ("METHOD", Align::Left),
        ("TARGET", Align::Left),
        ("RESULT", Align::Left),
        ("REASON", Align::Left),
    ]);
    for entry in entries {
        let cell = |text: &str| short_cell(text, COLUMNS);
        let reason = if entry.reason.is_empty() && entry.code != "OK" { &entry.code } else { &entry.reason };
        table.row([
            jst(entry.time),
            entry.sequence.to_string(),
            cell(&format!("{} {}", entry.actor.kind, entry.actor.id)),
            cell(&entry.function),
            entry.operation.to_owned(),
            cell(&entry.method),
            cell(&entry.target),
            entry.result.to_owned(),
            cell(reason),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tsujiban_proto::access::v1::Operation as Does;
    use tsujiban_proto::audit::v1::{Actor, Operation, Phase, Result as AuditResult};
    use tsujiban_proto::time::to_wire;

    use super::*;

    fn entry(sequence: u64, target: &str, result: AuditResult) -> Entry {
        let time = Some(to_wire("2026-11-26T00:30:00.123456Z".parse().unwrap()));
        let operation = Operation {
            id: vec![0xab; 16],
            phase: Phase::Outcome.into(),
            time,
            actor: Some(Actor { kind: ActorKind::Staff.into(), id: "hanako".into() }),
            from: "192.0.2.1".into(),
            service: "tsujiban.backup.v1.BackupService".into(),
            method: "GetSnapshot".into(),
            function: "snapshots".into(),
            operation: Does::View.into(),
            target: target.into(),
            result: result.into(),
            code: if result == AuditResult::Allowed { "OK" } else { "PERMISSION_DENIED" }.into(),
            reason: if result == AuditResult::Denied { "MISSING_RIGHT" } else { "" }.into(),
            duration_us: 1200,
            request_id: "r-1".into(),
            trace_id: String::new(),
            detail: HashMap::from([("generation".to_owned(), "2".to_owned())]),
        };
        Entry { sequence, appended_at: time, operation: Some(operation) }
    }

    /// Targets are what callers wrote.
    #[test]
    fn what_callers_wrote_is_shown_and_not_obeyed() {
        let entries = [
            entry(12, "\x1b[2J\u{202e}core", AuditResult::Allowed),
            entry(9, &"東".repeat(40), AuditResult::Denied),
            entry(8, "", AuditResult::Failed),
        ];
        let entries = entries.map(EntryView::from);
        insta::assert_snapshot!(table(&entries), @r"
        TIME                       ENTRY  ACTOR         FUNCTION   OPERATION  METHOD       TARGET                                           RESULT   REASON
        2026-11-26T09:30:00+09:00     12  staff hanako  snapshots  VIEW       GetSnapshot  \u{1b}[2J\u{202e}core                            ALLOWED  -
        2026-11-26T09:30:00+09:00      9  staff hanako  snapshots  VIEW       GetSnapshot  東東東東東東東東東東東東東東東東東東東東東東東…  DENIED   MISSING_RIGHT
        2026-11-26T09:30:00+09:00      8  staff hanako  snapshots  VIEW       GetSnapshot  -                                                FAILED   PERMISSION_DENIED
        ");
    }

    #[test]
    fn programs_read_the_words_of_the_history() {
        insta::assert_json_snapshot!(EntryView::from(entry(12, "core-1", AuditResult::Unknown)), @r#"
        {
          "sequence": 12,
          "appendedAt": "2026-11-26T00:30:00.123456Z",
          "id": "abababababababababababababababab",
          "phase": "OUTCOME",
          "time": "2026-11-26T00:30:00.123456Z",
          "actor": {
            "kind": "staff",
            "id": "hanako"
          },
          "from": "192.0.2.1",
          "service": "tsujiban.backup.v1.BackupService",
          "method": "GetSnapshot",
          "function": "snapshots",
          "operation": "VIEW",
          "target": "core-1",
          "result": "UNKNOWN",
          "code": "PERMISSION_DENIED",
          "reason": "",
          "durationUs": 1200,
          "requestId": "r-1",
          "traceId": "",
          "detail": {
            "generation": "2"
          }
        }
        "#);
    }
}
