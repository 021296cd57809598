//! Services that cannot write.

use tsujiban_core::workload::{Service, Workload};

use crate::row::{Comparison, Loses, Row, Sign, Step, VolumeLoss};

const LIST: &[&str] = &["snapshots", "list", "GROUP"];
const HISTORY: &[&str] = &["audit", "list", "GROUP"];

/// Everything that waited has arrived, by itself.
const DRAINED: &[Sign] = &[
    Sign::Ready(Service::Audit),
    Sign::Condition("HistoryRecorded", "True", ""),
    Sign::Metric(Workload::Service(Service::Backup), "tsujiban_history_spool_entries", Comparison::Is(0.0)),
    Sign::Verdict("intact"),
];

pub const ROWS: &[Row] = &[
    Row {
        id: "backup-disk-full",
        input: "the backup service's volume full, then space",
        steps: &[Step::Volume(Service::Backup, VolumeLoss::Small(48)), Step::Volume(Service::Backup, VolumeLoss::Filled), Step::BackUp],
        seen: &[Sign::NotReady(Service::Backup), Sign::Condition("BackupsStored", "False", ""), Sign::Cli(LIST, 0, "")],
        seen_within_s: 60,
        remedy: &[Step::Volume(Service::Backup, VolumeLoss::Emptied)],
        healed: &[Sign::Ready(Service::Backup), Sign::Condition("BackupsStored", "True", "")],
        healed_within_s: 60,
        loses: Loses::Nothing,
        is_short: false,
    },
    Row {
        id: "audit-disk-full",
        input: "the audit service's volume full, then space",
        steps: &[Step::Volume(Service::Audit, VolumeLoss::Small(48)), Step::Volume(Service::Audit, VolumeLoss::Filled), Step::Declare(3)],
        seen: &[Sign::NotReady(Service::Audit), Sign::Condition("HistoryRecorded", "False", ""), Sign::Cli(HISTORY, 0, "")],
        seen_within_s: 60,
        remedy: &[Step::Volume(Service::Audit, VolumeLoss::Emptied)],
        healed: &[Sign::Ready(Service::Audit), Sign::Condition("HistoryRecorded", "True", ""), Sign::Verdict("intact")],
        healed_within_s: 120,
        loses: Loses::Nothing,
        is_short: true,
    },
    Row {
        id: "audit-away",
        input: "the audit service away while calls wait for it, as with every pod that moves",
        steps: &[Step::Stop(Service::Audit), Step::Declare(30), Step::BackUp, Step::Wait(60)],
        seen: &[
            Sign::Condition("HistoryRecorded", "False", ""),
            Sign::Cli(&["snapshots", "diff", "GROUP", "--device", "core-1", "--reveal"], 1, ""),
        ],
        seen_within_s: 60,
        remedy: &[Step::Start(Service::Audit)],
        healed: &[Sign::Condition("HistoryRecorded", "True", ""), Sign::Verdict("intact"), Sign::Ready(Service::Audit)],
        healed_within_s: 180,
        loses: Loses::Nothing,
        is_short: true,
    },
    Row {
        id: "audit-database-unlinked",
        input: "the history's database file removed under the running service",
        steps: &[Step::Export, Step::Volume(Service::Audit, VolumeLoss::Unlinked), Step::Declare(3)],
        seen: &[Sign::NotReady(Service::Audit), Sign::Condition("HistoryRecorded", "False", "")],
        seen_within_s: 60,
        remedy: &[Step::Kill(Workload::Service(Service::Audit))],
        healed: &[Sign::Ready(Service::Audit), Sign::Verdict("intact")],
        healed_within_s: 240,
        loses: Loses::Nothing,
        is_short: false,
    },
    Row {
        id: "audit-database-replaced",
        input: "a copy put in the place of the history's database file under the running service",
        steps: &[Step::Export, Step::Volume(Service::Audit, VolumeLoss::Replaced), Step::Declare(3)],
        seen: &[Sign::NotReady(Service::Audit), Sign::Condition("HistoryRecorded", "False", "")],
        seen_within_s: 60,
        remedy: &[Step::Kill(Workload::Service(Service::Audit))],
        healed: &[Sign::Ready(Service::Audit), Sign::Verdict("intact")],
        healed_within_s: 240,
        loses: Loses::Nothing,
        is_short: false,
    },
    Row {
        id: "stopped-well",
        input: "both services stopped in good order: a copy of each database's file is a copy",
        steps: &[Step::Declare(5), Step::Stop(Service::Audit), Step::Stop(Service::Backup)],
        seen: &[Sign::Checkpointed(Service::Audit), Sign::Checkpointed(Service::Backup)],
        seen_within_s: 10,
        remedy: &[Step::Start(Service::Audit), Step::Start(Service::Backup)],
        healed: &[Sign::Ready(Service::Audit), Sign::Ready(Service::Backup), Sign::Verdict("intact")],
        healed_within_s: 120,
        loses: Loses::Nothing,
        is_short: false,
    },
    Row {
        id: "backup-killed",
        input: "backup, audit and operator ended by signal 9 while a group is backed up",
        steps: &[
            Step::BackUp,
            Step::Kill(Workload::Service(Service::Backup)),
            Step::Kill(Workload::Operator),
            Step::Kill(Workload::Service(Service::Audit)),
            Step::BackUp,
        ],
        seen: &[Sign::Ready(Service::Backup), Sign::Ready(Service::Audit)],
        seen_within_s: 120,
        remedy: &[Step::BackUpAgain],
        healed: &[Sign::Device("BackupFresh", "True"), Sign::Verdict("intact")],
        healed_within_s: 120,
        loses: Loses::Nothing,
        is_short: false,
    },
];

/// The last ones: whoever reads all of a history again has much to read behind them.
pub const LONG: &[Row] = &[
    Row {
        id: "audit-away-long",
        input: "the audit service away for 5 minutes under load, with 50,000 entries in its database",
        steps: &[Step::Calls(50_000), Step::Stop(Service::Audit), Step::Calls(2_000), Step::BackUp, Step::Wait(300)],
        seen: &[Sign::Condition("HistoryRecorded", "False", "")],
        seen_within_s: 60,
        remedy: &[Step::Start(Service::Audit)],
        healed: DRAINED,
        healed_within_s: 300,
        loses: Loses::Nothing,
        is_short: false,
    },
    Row {
        id: "audit-full-long",
        input: "the same, and its volume full in between",
        steps: &[
            Step::Calls(50_000),
            Step::Volume(Service::Audit, VolumeLoss::Small(256)),
            Step::Volume(Service::Audit, VolumeLoss::Filled),
            Step::Calls(2_000),
            Step::BackUp,
            Step::Wait(300),
        ],
        seen: &[Sign::NotReady(Service::Audit), Sign::Condition("HistoryRecorded", "False", "")],
        seen_within_s: 60,
        remedy: &[Step::Volume(Service::Audit, VolumeLoss::Emptied)],
        healed: DRAINED,
        healed_within_s: 300,
        loses: Loses::Nothing,
        is_short: false,
    },
];
