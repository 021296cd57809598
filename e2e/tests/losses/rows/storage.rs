//! Objects, catalogue and bucket of the backup service.

use tsujiban_core::workload::{Service, Workload};

use crate::row::{Comparison, Damage, Loses, Pick, Row, Sign, Step, VolumeLoss};

/// The newest objects are scrubbed first: theirs is the damage that is found within minutes, whatever a whole scrub takes.
const SCRUB_S: u64 = 300;
const VERIFY: &[&str] = &["snapshots", "verify", "GROUP", "--all"];
const LIST: &[&str] = &["snapshots", "list", "GROUP"];
const REBUILD: &[&str] = &["backup", "rebuild"];

const NAMED: &[Sign] = &[
    Sign::Cli(VERIFY, 3, "damaged"),
    Sign::Condition("StorageIntact", "False", ""),
    Sign::Metric(Workload::Service(Service::Backup), "tsujiban_backup_scrub_damaged", Comparison::AtLeast(1.0)),
];
const STORED_ANEW: &[Sign] = &[Sign::Device("BackupFresh", "True"), Sign::Cli(LIST, 0, "")];

const fn damaged(id: &'static str, input: &'static str, steps: &'static [Step], is_short: bool) -> Row {
    Row {
        id,
        input,
        steps,
        seen: NAMED,
        seen_within_s: SCRUB_S,
        remedy: &[Step::BackUpAgain],
        healed: STORED_ANEW,
        healed_within_s: 120,
        loses: Loses::Contents,
        is_short,
    }
}

/// A catalogue that has lost rows is noticed when the service starts, and comes back from the bucket.
const fn adopted(id: &'static str, input: &'static str, steps: &'static [Step]) -> Row {
    Row {
        id,
        input,
        steps,
        seen: &[Sign::Log(Workload::Service(Service::Backup), "adopted")],
        seen_within_s: 120,
        remedy: &[],
        healed: &[Sign::Cli(VERIFY, 0, ""), Sign::Ready(Service::Backup)],
        healed_within_s: 120,
        loses: Loses::Nothing,
        is_short: false,
    }
}

pub const ROWS: &[Row] = &[
    damaged("object-flipped", "one bit of a sealed config flipped", &[Step::Object(Pick::Newest, Damage::Flip)], true),
    damaged(
        "object-flipped-unsummed",
        "one bit of a sealed config flipped, and the storage has no checksum of it",
        &[Step::Object(Pick::Newest, Damage::FlipUnsummed)],
        false,
    ),
    damaged("object-cut", "a sealed config cut by 100 bytes", &[Step::Object(Pick::Newest, Damage::Cut)], false),
    damaged("object-empty", "a sealed config of no length", &[Step::Object(Pick::Newest, Damage::Empty)], false),
    damaged("objects-swapped", "the contents of two configs of a device swapped", &[Step::Object(Pick::Both, Damage::SwapContents)], false),
    damaged(
        "files-swapped",
        "the files of two configs swapped with their attributes",
        &[Step::Object(Pick::Both, Damage::SwapFiles)],
        false,
    ),
    damaged("object-removed", "a sealed config removed", &[Step::Object(Pick::Newest, Damage::Remove)], false),
    Row {
        id: "rebuild-with-damage",
        input: "a sealed config flipped, then `backup rebuild`",
        steps: &[Step::Object(Pick::Oldest, Damage::Flip)],
        seen: &[Sign::Cli(REBUILD, 3, "damaged")],
        seen_within_s: 60,
        remedy: &[],
        healed: &[Sign::Ready(Service::Backup), Sign::Cli(LIST, 0, "")],
        healed_within_s: 60,
        loses: Loses::Contents,
        is_short: false,
    },
    Row {
        id: "volume-lost-with-damage",
        input: "the backup service's volume lost, and an old config flipped",
        steps: &[Step::Object(Pick::Oldest, Damage::Flip), Step::Volume(Service::Backup, VolumeLoss::Lost)],
        seen: &[Sign::Ready(Service::Backup), Sign::Cli(VERIFY, 3, "damaged")],
        seen_within_s: 180,
        remedy: &[Step::BackUp],
        healed: STORED_ANEW,
        healed_within_s: 180,
        loses: Loses::Contents,
        is_short: true,
    },
    Row {
        id: "volume-lost-with-unsummed",
        input: "the backup service's volume lost, and an old config flipped of which the storage has no checksum",
        steps: &[Step::Object(Pick::Oldest, Damage::FlipUnsummed), Step::Volume(Service::Backup, VolumeLoss::Lost)],
        seen: &[Sign::Ready(Service::Backup), Sign::Cli(VERIFY, 3, "damaged")],
        seen_within_s: 180,
        remedy: &[Step::BackUp],
        healed: STORED_ANEW,
        healed_within_s: 180,
        loses: Loses::Contents,
        is_short: false,
    },
    Row {
        id: "backup-volume-lost",
        input: "the backup service's volume lost, objects sound",
        steps: &[Step::Volume(Service::Backup, VolumeLoss::Lost)],
        seen: &[Sign::Ready(Service::Backup)],
        seen_within_s: 120,
        remedy: &[],
        healed: &[Sign::Cli(VERIFY, 0, ""), Sign::Condition("Ready", "True", "")],
        healed_within_s: 120,
        loses: Loses::Nothing,
        is_short: false,
    },
    adopted(
        "catalogue-older",
        "an older catalogue put in the volume's place, no key changed since",
        &[
            Step::Stop(Service::Backup),
            Step::Volume(Service::Backup, VolumeLoss::Keep),
            Step::Start(Service::Backup),
            Step::BackUpWell,
            Step::Volume(Service::Backup, VolumeLoss::Older),
        ],
    ),
    adopted(
        "catalogue-wal-removed",
        "the catalogue's log file removed after the process was ended",
        &[Step::BackUpWell, Step::Kill(Workload::Service(Service::Backup)), Step::Volume(Service::Backup, VolumeLoss::Wal)],
    ),
    Row {
        id: "catalogue-page",
        input: "a page of the catalogue overwritten",
        steps: &[Step::Volume(Service::Backup, VolumeLoss::Page)],
        seen: &[Sign::NotReady(Service::Backup), Sign::Condition("BackupsStored", "False", "")],
        seen_within_s: 60,
        remedy: &[Step::Volume(Service::Backup, VolumeLoss::Database)],
        healed: &[Sign::Ready(Service::Backup), Sign::Condition("BackupsStored", "True", ""), Sign::Cli(VERIFY, 0, "")],
        healed_within_s: 180,
        loses: Loses::Nothing,
        is_short: false,
    },
    Row {
        id: "catalogue-index-page",
        input: "a page of an index of the catalogue overwritten",
        steps: &[Step::Volume(Service::Backup, VolumeLoss::IndexPage("snapshots_of_group"))],
        seen: &[Sign::NotReady(Service::Backup), Sign::Condition("BackupsStored", "False", "")],
        seen_within_s: 60,
        remedy: &[Step::Volume(Service::Backup, VolumeLoss::Database)],
        healed: &[Sign::Ready(Service::Backup), Sign::Condition("BackupsStored", "True", ""), Sign::Cli(VERIFY, 0, "")],
        healed_within_s: 180,
        loses: Loses::Nothing,
        is_short: false,
    },
    Row {
        id: "bucket-emptied",
        input: "every object of the bucket gone, then `backup rebuild`",
        steps: &[Step::Object(Pick::All, Damage::Remove)],
        seen: &[Sign::Cli(REBUILD, 1, "bucket"), Sign::Condition("StorageIntact", "False", "")],
        seen_within_s: SCRUB_S,
        remedy: &[],
        healed: &[Sign::Cli(LIST, 0, "")],
        healed_within_s: 60,
        loses: Loses::Contents,
        is_short: false,
    },
    Row {
        id: "storage-away",
        input: "S3 away for a minute during a backup",
        steps: &[Step::StopStorage],
        seen: &[Sign::Cli(&["backup", "now", "GROUP"], 6, "\"stored\": false")],
        seen_within_s: 240,
        remedy: &[Step::StartStorage, Step::BackUpAgain],
        healed: &[Sign::Device("BackupFresh", "True"), Sign::Cli(VERIFY, 0, "")],
        healed_within_s: 120,
        loses: Loses::Nothing,
        is_short: false,
    },
    Row {
        id: "storage-disk-full",
        input: "the storage's disk full during a backup, then space",
        steps: &[Step::FillStorage, Step::BackUp],
        seen: &[Sign::Cli(&["backup", "now", "GROUP"], 6, "\"stored\": false")],
        seen_within_s: 240,
        remedy: &[Step::EmptyStorage, Step::BackUpAgain],
        healed: &[Sign::Device("BackupFresh", "True"), Sign::Cli(VERIFY, 0, "")],
        healed_within_s: 120,
        loses: Loses::Nothing,
        is_short: false,
    },
];
