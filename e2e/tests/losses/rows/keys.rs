//! Keys and erasure.

use tsujiban_core::workload::{Service, Workload};

use crate::row::{Comparison, Damage, Loses, Pick, Row, Sign, Step, VolumeLoss};

const VERIFY: &[&str] = &["snapshots", "verify", "GROUP", "--all"];
const READABLE: &[Sign] = &[Sign::Cli(VERIFY, 0, ""), Sign::Ready(Service::Backup)];

/// One byte in the middle of one wrapping of a device's data key.
const WRAPPED_KEY: &str = "UPDATE keys SET wrapped = CAST(substr(wrapped, 1, 20) || \
    (CASE substr(wrapped, 21, 1) WHEN x'00' THEN x'01' ELSE x'00' END) || substr(wrapped, 22) AS BLOB) \
    WHERE rowid = (SELECT max(rowid) FROM keys WHERE subject IN (SELECT incarnation FROM devices))";

/// The same of every wrapping of every device's data key.
const WRAPPED_KEYS: &str = "UPDATE keys SET wrapped = CAST(substr(wrapped, 1, 20) || \
    (CASE substr(wrapped, 21, 1) WHEN x'00' THEN x'01' ELSE x'00' END) || substr(wrapped, 22) AS BLOB) \
    WHERE subject IN (SELECT incarnation FROM devices)";

/// Policy tsujiban-keys keeps everybody from deleting keys. A lost etcd does not ask it.
const KEYS_UNGUARDED: Step = Step::TakeAway("validatingadmissionpolicybinding", "", "tsujiban-keys");

pub const ROWS: &[Row] = &[
    Row {
        id: "key-table-removed",
        input: "the key table's copy removed from the bucket, backups, then the volume lost",
        steps: &[Step::Object(Pick::KeyTable, Damage::Remove)],
        seen: &[Sign::Log(Workload::Service(Service::Backup), "key table")],
        seen_within_s: 400,
        remedy: &[Step::BackUpWell, Step::Volume(Service::Backup, VolumeLoss::Lost)],
        healed: READABLE,
        healed_within_s: 180,
        loses: Loses::Nothing,
        is_short: false,
    },
    Row {
        id: "key-table-flipped",
        input: "one bit of the key table's copy flipped, the catalogue sound, then a restart",
        steps: &[Step::Object(Pick::KeyTable, Damage::Flip), Step::Kill(Workload::Service(Service::Backup))],
        seen: &[Sign::Ready(Service::Backup), Sign::Log(Workload::Service(Service::Backup), "key table")],
        seen_within_s: 120,
        remedy: &[Step::Volume(Service::Backup, VolumeLoss::Lost)],
        healed: READABLE,
        healed_within_s: 180,
        loses: Loses::Nothing,
        is_short: false,
    },
    Row {
        id: "key-table-and-volume-lost",
        input: "the backup service's volume and the key table's copy lost at the same time",
        steps: &[
            Step::Stop(Service::Backup),
            Step::Object(Pick::KeyTable, Damage::Remove),
            Step::Volume(Service::Backup, VolumeLoss::Lost),
        ],
        seen: &[Sign::Ready(Service::Backup), Sign::Condition("StorageIntact", "False", ""), Sign::Cli(VERIFY, 3, "damaged")],
        seen_within_s: 240,
        remedy: &[Step::BackUpAgain],
        healed: &[Sign::Device("BackupFresh", "True"), Sign::Condition("BackupsStored", "True", "")],
        healed_within_s: 120,
        loses: Loses::Contents,
        is_short: false,
    },
    Row {
        id: "wrapped-key-changed",
        input: "one byte of a device's wrapped key changed in the catalogue",
        steps: &[Step::Rows(Service::Backup, WRAPPED_KEY)],
        seen: &[Sign::Log(Workload::Service(Service::Backup), "key")],
        seen_within_s: 300,
        remedy: &[],
        healed: &[
            Sign::Cli(VERIFY, 0, ""),
            Sign::Metric(Workload::Service(Service::Backup), "tsujiban_backup_keys_unopened", Comparison::Is(0.0)),
            Sign::Device("BackupFresh", "True"),
        ],
        healed_within_s: 400,
        loses: Loses::Nothing,
        is_short: false,
    },
    Row {
        id: "wrapped-keys-changed",
        input: "one byte of every wrapping of every device's key changed in the catalogue, another device deleted, then the volume lost",
        steps: &[Step::Rows(Service::Backup, WRAPPED_KEYS), Step::EraseDevice, Step::Volume(Service::Backup, VolumeLoss::Lost)],
        seen: &[Sign::Ready(Service::Backup)],
        seen_within_s: 120,
        remedy: &[],
        healed: READABLE,
        healed_within_s: 180,
        loses: Loses::Nothing,
        is_short: false,
    },
    Row {
        id: "erased-catalogue-older",
        input: "a Device deleted, then the catalogue from before put back",
        steps: &[
            Step::Volume(Service::Backup, VolumeLoss::Keep),
            Step::Wait(20),
            Step::EraseDevice,
            Step::Volume(Service::Backup, VolumeLoss::Older),
        ],
        seen: &[Sign::Ready(Service::Backup)],
        seen_within_s: 120,
        remedy: &[],
        healed: READABLE,
        healed_within_s: 120,
        loses: Loses::Nothing,
        is_short: false,
    },
    Row {
        id: "erased-key-table-older",
        input: "a Device deleted, the key table's copy from before put back, a restart, then the volume lost",
        steps: &[
            Step::Object(Pick::KeyTable, Damage::Keep),
            Step::EraseDevice,
            Step::Object(Pick::KeyTable, Damage::Older),
            Step::Kill(Workload::Service(Service::Backup)),
            Step::Wait(30),
            Step::Volume(Service::Backup, VolumeLoss::Lost),
        ],
        seen: &[Sign::Ready(Service::Backup)],
        seen_within_s: 120,
        remedy: &[],
        healed: READABLE,
        healed_within_s: 120,
        loses: Loses::Nothing,
        is_short: true,
    },
    Row {
        id: "epoch-keys-deleted",
        input: "the Secret of the epoch keys deleted while groups are prepared, then put back",
        steps: &[KEYS_UNGUARDED, Step::Wait(5), Step::TakeAway("secret", "tsujiban-system", "tsujiban-epoch-keys")],
        seen: &[Sign::Condition("KeysReady", "False", "EpochKeysMissing")],
        seen_within_s: 60,
        remedy: &[Step::PutBack],
        healed: &[Sign::Condition("KeysReady", "True", ""), Sign::Cli(VERIFY, 0, "")],
        healed_within_s: 120,
        loses: Loses::Nothing,
        is_short: true,
    },
    Row {
        id: "master-key-deleted",
        input: "the Secret of the master key deleted, then put back",
        steps: &[KEYS_UNGUARDED, Step::Wait(5), Step::TakeAway("secret", "tsujiban-system", "tsujiban-master-key")],
        seen: &[Sign::Condition("KeysReady", "False", "")],
        seen_within_s: 60,
        remedy: &[Step::PutBack],
        healed: &[Sign::Condition("KeysReady", "True", ""), Sign::Cli(VERIFY, 0, "")],
        healed_within_s: 120,
        loses: Loses::Nothing,
        is_short: false,
    },
];
