//! The operation history: its database, its volume, its root lists, its spool.

use tsujiban_core::workload::{Service, Workload};

use crate::row::{Comparison, Damage, Loses, Pick, Row, Sign, Step, VolumeLoss};

const LIST: &[&str] = &["audit", "list", "GROUP"];
const DECLARE: &[&str] = &["audit", "declare-gap", "--all", "--reason", "a test lost entries on purpose", "--yes"];
const GOES_ON: &[Sign] = &[Sign::Ready(Service::Audit), Sign::Condition("HistoryRecorded", "True", ""), Sign::Verdict("intact")];
const LISTED_AGAIN: &[Sign] = &[
    Sign::Ready(Service::Audit),
    Sign::Condition("HistoryRecorded", "True", ""),
    Sign::Condition("StorageIntact", "True", ""),
    Sign::Verdict("intact"),
];
const READ_ONLY: &[Sign] = &[
    Sign::NotReady(Service::Audit),
    Sign::Condition("HistoryRecorded", "False", ""),
    Sign::Metric(Workload::Service(Service::Audit), "tsujiban_audit_history_forked", Comparison::AtLeast(1.0)),
    Sign::Cli(LIST, 0, ""),
];
/// Healed as soon as it is found: what stays to be seen is what the history says of it.
const FOUND: &[Sign] = &[Sign::Entry("Scrub", "OPERATE")];

/// The triggers of the database keep its own service from such changes, and nobody else.
const HEAD: &str = "DROP TRIGGER IF EXISTS heads_only_grow; UPDATE heads SET size = size - 1 WHERE size > 1";
const HEADS_GONE: &str = "DROP TRIGGER IF EXISTS heads_stay; DELETE FROM heads";
/// Of those that a root list covers.
const NEWEST_GONE: &str = "DROP TRIGGER IF EXISTS entries_stay; DELETE FROM entries WHERE rowid IN (SELECT e.rowid FROM entries e \
    JOIN listed l ON l.log = e.log WHERE e.sequence < l.size ORDER BY e.rowid DESC LIMIT 10)";
const UNCOVERED_GONE: &str =
    "DROP TRIGGER IF EXISTS entries_stay; DELETE FROM entries WHERE rowid IN (SELECT rowid FROM entries ORDER BY rowid DESC LIMIT 10)";
const MIDDLE_GONE: &str =
    "DROP TRIGGER IF EXISTS entries_stay; DELETE FROM entries WHERE log = (SELECT max(number) FROM logs) AND sequence IN (1, 2)";
const LEAF: &str = "DROP TRIGGER IF EXISTS entries_never_change; UPDATE entries SET leaf = CAST(substr(leaf, 1, 30) || x'ff' || substr(leaf, 32) AS BLOB) \
    WHERE log = (SELECT max(number) FROM logs) AND sequence = 1";
const HIDDEN: &str = "DROP TRIGGER IF EXISTS entries_never_change; UPDATE entries SET sealed = NULL, day = day - 400, time_us = 0, appended_us = 0 \
    WHERE log = (SELECT max(number) FROM logs) AND sequence = 1";
const DAY_KEYS: &str = "DROP TRIGGER IF EXISTS day_keys_stay; DELETE FROM day_keys WHERE log = (SELECT max(number) FROM logs)";

const OWNER: &str = "UPDATE logs SET group_id = group_id || '-other' WHERE number = (SELECT max(number) FROM logs)";
const INTENTS: &str = "DELETE FROM intents";

const fn doubted(id: &'static str, input: &'static str, steps: &'static [Step], loses: Loses, is_short: bool) -> Row {
    Row {
        id,
        input,
        steps,
        seen: READ_ONLY,
        // the lists are looked at once a minute, and the operator asks twice a minute
        seen_within_s: 100,
        remedy: &[Step::Run(DECLARE)],
        healed: GOES_ON,
        healed_within_s: 180,
        loses,
        is_short,
    }
}

/// Found by the start, refused or doubted until the first look at the bucket a moment later, and healed by it.
const fn healed_at_start(id: &'static str, input: &'static str, steps: &'static [Step], is_short: bool) -> Row {
    Row {
        id,
        input,
        steps,
        seen: &[Sign::Log(Workload::Service(Service::Audit), "goes on")],
        seen_within_s: 120,
        remedy: &[],
        healed: GOES_ON,
        healed_within_s: 180,
        loses: Loses::Nothing,
        is_short,
    }
}

/// A damaged root list: what it said, the next full one says again.
const fn healed_by_list(id: &'static str, input: &'static str, steps: &'static [Step]) -> Row {
    Row {
        id,
        input,
        steps,
        seen: &[Sign::Log(Workload::Service(Service::Audit), "root list")],
        seen_within_s: 300,
        remedy: &[],
        healed: LISTED_AGAIN,
        healed_within_s: 300,
        loses: Loses::Nothing,
        is_short: false,
    }
}

/// Damaged rows come back from the bucket by themselves.
const fn healed_from_bucket(id: &'static str, input: &'static str, steps: &'static [Step]) -> Row {
    Row {
        id,
        input,
        steps,
        seen: FOUND,
        seen_within_s: 300,
        remedy: &[],
        healed: GOES_ON,
        healed_within_s: 400,
        loses: Loses::Nothing,
        is_short: false,
    }
}

pub const ROWS: &[Row] = &[
    healed_at_start("head-smaller", "a head's size one smaller", &[Step::Export, Step::Rows(Service::Audit, HEAD)], true),
    healed_at_start("heads-removed", "the rows of all heads removed", &[Step::Export, Step::Rows(Service::Audit, HEADS_GONE)], false),
    healed_at_start(
        "newest-removed",
        "the newest 10 rows that are covered removed",
        &[Step::Export, Step::Rows(Service::Audit, NEWEST_GONE)],
        false,
    ),
    Row {
        id: "uncovered-removed",
        input: "the newest 10 rows removed, which no root list covers yet",
        steps: &[Step::Export, Step::Declare(3), Step::Rows(Service::Audit, UNCOVERED_GONE)],
        seen: &[Sign::Condition("HistoryRecorded", "False", "")],
        seen_within_s: 60,
        remedy: &[Step::Run(DECLARE)],
        healed: &[Sign::Ready(Service::Audit), Sign::Condition("HistoryRecorded", "True", ""), Sign::Verdict("damaged")],
        healed_within_s: 240,
        loses: Loses::Entries,
        is_short: false,
    },
    healed_from_bucket("rows-removed", "rows in the middle removed", &[Step::Export, Step::Rows(Service::Audit, MIDDLE_GONE)]),
    healed_from_bucket("leaf-changed", "a bit of a leaf changed", &[Step::Export, Step::Rows(Service::Audit, LEAF)]),
    healed_from_bucket(
        "columns-changed",
        "`sealed`, `day`, `time_us` and `appended_us` changed",
        &[Step::Wait(70), Step::Rows(Service::Audit, HIDDEN)],
    ),
    healed_from_bucket("day-keys-removed", "the keys of a day removed", &[Step::Wait(70), Step::Rows(Service::Audit, DAY_KEYS)]),
    healed_from_bucket("log-owner-changed", "a log given to another group in `logs`", &[Step::Export, Step::Rows(Service::Audit, OWNER)]),
    Row {
        id: "intents-emptied",
        input: "table `intents` emptied",
        steps: &[Step::Rows(Service::Audit, INTENTS)],
        seen: &[],
        seen_within_s: 0,
        remedy: &[],
        healed: GOES_ON,
        healed_within_s: 120,
        loses: Loses::Nothing,
        is_short: false,
    },
    Row {
        id: "audit-volume-older",
        input: "an older volume put in the place of the history's",
        steps: &[
            Step::Stop(Service::Audit),
            Step::Volume(Service::Audit, VolumeLoss::Keep),
            Step::Start(Service::Audit),
            Step::Declare(5),
            Step::Wait(130),
            Step::Export,
            Step::Volume(Service::Audit, VolumeLoss::Older),
        ],
        seen: &[Sign::Log(Workload::Service(Service::Audit), "bucket")],
        seen_within_s: 120,
        remedy: &[],
        healed: GOES_ON,
        healed_within_s: 240,
        loses: Loses::Nothing,
        is_short: false,
    },
    Row {
        id: "audit-wal-removed",
        input: "the history's log file removed, newer than the newest root list",
        steps: &[
            Step::Declare(5),
            Step::Export,
            Step::Kill(Workload::Service(Service::Audit)),
            Step::Volume(Service::Audit, VolumeLoss::Wal),
        ],
        seen: &[],
        seen_within_s: 0,
        remedy: &[],
        healed: GOES_ON,
        healed_within_s: 240,
        loses: Loses::Nothing,
        is_short: false,
    },
    Row {
        id: "audit-volume-lost",
        input: "the history's volume lost",
        steps: &[Step::Declare(3), Step::Wait(130), Step::Export, Step::Volume(Service::Audit, VolumeLoss::Lost)],
        seen: &[Sign::Log(Workload::Service(Service::Audit), "rebuil")],
        seen_within_s: 120,
        remedy: &[],
        healed: GOES_ON,
        healed_within_s: 240,
        loses: Loses::Nothing,
        is_short: true,
    },
    doubted("root-list-removed", "the newest root list removed", &[Step::Object(Pick::RootList, Damage::Remove)], Loses::Nothing, false),
    doubted("root-lists-removed", "all root lists removed", &[Step::Object(Pick::RootLists, Damage::Remove)], Loses::Entries, false),
    healed_by_list("root-list-flipped", "a bit of the newest root list flipped", &[Step::Object(Pick::RootList, Damage::Flip)]),
    healed_by_list(
        "root-list-flipped-at-start",
        "a bit of the newest root list flipped while the service is down",
        &[Step::Stop(Service::Audit), Step::Object(Pick::RootList, Damage::Flip), Step::Start(Service::Audit)],
    ),
    doubted(
        "root-list-next",
        "a foreign root list at the next number",
        &[Step::Object(Pick::RootList, Damage::CopyAhead(1))],
        Loses::Nothing,
        false,
    ),
    doubted(
        "root-list-far",
        "a foreign root list at a far number",
        &[Step::Object(Pick::RootList, Damage::CopyAhead(1_000_000))],
        Loses::Nothing,
        false,
    ),
    Row {
        id: "spool-byte",
        input: "a byte of the spool changed while the history is away",
        steps: &[
            Step::Stop(Service::Audit),
            Step::BackUp,
            Step::Volume(Service::Backup, VolumeLoss::SpoolByte),
            Step::Start(Service::Audit),
        ],
        seen: &[Sign::Metric(Workload::Service(Service::Backup), "tsujiban_history_spool_damaged_total", Comparison::AtLeast(1.0))],
        seen_within_s: 120,
        remedy: &[],
        healed: GOES_ON,
        healed_within_s: 120,
        loses: Loses::Entries,
        is_short: false,
    },
    Row {
        id: "spool-removed",
        input: "the spool's folder removed while the history is away",
        steps: &[Step::Stop(Service::Audit), Step::BackUp, Step::Volume(Service::Backup, VolumeLoss::Spool), Step::Start(Service::Audit)],
        seen: &[Sign::Log(Workload::Service(Service::Backup), "spool")],
        seen_within_s: 120,
        remedy: &[],
        healed: GOES_ON,
        healed_within_s: 120,
        loses: Loses::Entries,
        is_short: false,
    },
    Row {
        id: "sites-while-away",
        input: "Sites made and deleted while the history is away, then the operator restarted",
        steps: &[Step::Stop(Service::Audit), Step::Sites(12), Step::Kill(Workload::Operator), Step::Start(Service::Audit)],
        seen: &[],
        seen_within_s: 0,
        remedy: &[],
        healed: &[Sign::SitesRecorded],
        healed_within_s: 120,
        loses: Loses::Nothing,
        is_short: true,
    },
    Row {
        id: "both-volumes-lost",
        input: "both volumes lost, and an old config flipped",
        steps: &[
            Step::Wait(130),
            Step::Export,
            Step::Object(Pick::Oldest, Damage::Flip),
            Step::Volume(Service::Backup, VolumeLoss::Lost),
            Step::Volume(Service::Audit, VolumeLoss::Lost),
        ],
        seen: &[Sign::Ready(Service::Backup), Sign::Cli(&["snapshots", "verify", "GROUP", "--all"], 3, "damaged")],
        seen_within_s: 240,
        remedy: &[Step::BackUp],
        healed: GOES_ON,
        healed_within_s: 300,
        loses: Loses::Contents,
        is_short: false,
    },
];
