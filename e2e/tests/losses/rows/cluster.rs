//! What the operator and the chart own.

use tsujiban_core::workload::Service;

use crate::row::{Loses, Row, Sign, Step};

const STORED: &[Sign] = &[Sign::Ready(Service::Backup), Sign::Condition("BackupsStored", "True", "")];
const RECORDED: &[Sign] = &[Sign::Ready(Service::Audit), Sign::Condition("HistoryRecorded", "True", ""), Sign::Verdict("intact")];
const IN_FORCE: &[Sign] = &[Sign::Condition("PoliciesInForce", "True", "")];
const NOT_IN_FORCE: &[Sign] = &[Sign::Condition("PoliciesInForce", "False", ""), Sign::Entry("ValidatingAdmissionPolicy", "OPERATE")];

const fn policy(id: &'static str, input: &'static str, steps: &'static [Step]) -> Row {
    Row {
        id,
        input,
        steps,
        seen: NOT_IN_FORCE,
        seen_within_s: 60,
        remedy: &[Step::Deploy],
        healed: IN_FORCE,
        healed_within_s: 120,
        loses: Loses::Nothing,
        is_short: false,
    }
}

pub const ROWS: &[Row] = &[
    Row {
        id: "backup-statefulset",
        input: "the StatefulSet of the backup service deleted",
        steps: &[Step::TakeAway("statefulset", "tsujiban-system", "tsujiban-backup")],
        seen: &[Sign::Condition("BackupsStored", "False", "")],
        seen_within_s: 60,
        remedy: &[Step::Deploy],
        healed: STORED,
        healed_within_s: 180,
        loses: Loses::Nothing,
        is_short: true,
    },
    Row {
        id: "audit-statefulset",
        input: "the StatefulSet of the audit service deleted",
        steps: &[Step::TakeAway("statefulset", "tsujiban-system", "tsujiban-audit")],
        seen: &[Sign::Condition("HistoryRecorded", "False", "")],
        seen_within_s: 60,
        remedy: &[Step::Deploy],
        healed: RECORDED,
        healed_within_s: 180,
        loses: Loses::Nothing,
        is_short: false,
    },
    policy(
        "changed-by-binding",
        "the binding of policy tsujiban-changed-by deleted",
        &[Step::TakeAway("mutatingadmissionpolicybinding", "", "tsujiban-changed-by")],
    ),
    policy(
        "devices-binding",
        "the binding of policy tsujiban-devices deleted",
        &[Step::TakeAway("validatingadmissionpolicybinding", "", "tsujiban-devices")],
    ),
    policy("devices-policy", "policy tsujiban-devices deleted", &[Step::TakeAway("validatingadmissionpolicy", "", "tsujiban-devices")]),
];
