//! Whether a group's devices are backed up, from what is known about each of them. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use tsujiban_api::Device;
use tsujiban_api::device::{Lifecycle, condition, reason};

use crate::condition::{Verdict, find};

/// How many late devices a message names.
const NAMED: usize = 5;

/// A summary of a group's devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fleet {
    pub devices: i64,
    /// Devices that are expected to be backed up.
    pub expected: usize,
    /// Those of them that missed their last window, by name.
    pub late: Vec<String>,
    /// Those whose newest snapshot is damaged.
    pub damaged: Vec<String>,
    /// The time of the oldest among the devices' newest backups; for a device without a backup, the time when it was declared.
    pub oldest: Option<Timestamp>,
}

impl Fleet {
    pub fn of(devices: &[Arc<Device>]) -> Self {
        let mut fleet = Self { devices: i64::try_from(devices.len()).unwrap_or(i64::MAX), ..Self::default() };
        for device in devices.iter().filter(|device| is_expected(device)) {
            fleet.expected += 1;
            let status = device.status.as_ref();
            let fresh = find(conditions(device), condition::BACKUP_FRESH);
            match fresh.filter(|fresh| fresh.status == "False").map(|fresh| fresh.reason.as_str()) {
                Some(reason::DAMAGED) => fleet.damaged.push(device.name_any()),
                Some(_) => fleet.late.push(device.name_any()),
                None => {}
            }
            let backed_up = status.and_then(|status| status.last_backup.as_ref()).map(|backup| backup.time.0);
            let since = backed_up.or(device.metadata.creation_timestamp.as_ref().map(|time| time.0));
            fleet.oldest = fleet.oldest.min(since).or(fleet.oldest).or(since);
        }
        fleet.late.sort();
        fleet.damaged.sort();
        fleet
    }

    /// The Tenant's condition BackupFresh.
    pub fn verdict(&self, suspended: bool, canary_failure: Option<&str>) -> Verdict {
        if let Some(detail) = canary_failure {
            return Verdict::fails("CanaryFailed", format!("the storage does not keep what it promises: {detail}"));
        }
        if suspended {
            return Verdict::unknown("Suspended", "the group is suspended, so that nothing is backed up");
        }
        if self.expected == 0 {
            return Verdict::holds("NoDevices", "the group has no active device that is backed up");
        }
        let late = (!self.late.is_empty())
            .then(|| format!("{} of {} active devices missed their last window: {}", self.late.len(), self.expected, named(&self.late)));
        let damaged = (!self.damaged.is_empty()).then(|| {
            let next = "the next backup stores the config anew; tsujiban backup now does it at once";
            let (count, named) = (self.damaged.len(), named(&self.damaged));
            format!("of {count} of {} active devices the newest snapshot is damaged in the storage: {named}; {next}", self.expected)
        });
        match (late, damaged) {
            (None, None) => Verdict::holds("Fresh", format!("all {} active devices have a backup from their last window", self.expected)),
            (None, Some(damaged)) => Verdict::fails(reason::DAMAGED, damaged),
            (Some(late), None) => Verdict::fails("Late", late),
            (Some(late), Some(damaged)) => Verdict::fails("Late", format!("{late}; {damaged}")),
        }
    }
}

fn named(devices: &[String]) -> String {
    let named = devices.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    named + if devices.len() > NAMED { ", ..." } else { "" }
}

fn is_expected(device: &Device) -> bool {
    let in_conflict = find(conditions(device), condition::READY).is_some_and(|ready| ready.reason == reason::SERIAL_CONFLICT);
    device.spec.lifecycle == Lifecycle::Active && device.spec.backup.enabled && device.metadata.deletion_timestamp.is_none() && !in_conflict
}

fn conditions(device: &Device) -> &[Condition] {
    device.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn device(name: &str, lifecycle: &str, fresh: &str, last: Option<&str>) -> Arc<Device> {
        let backup = last.map(|time| json!({"snapshotId": "1", "time": time, "bytes": 1, "changed": false, "complete": true}));
        Arc::new(
            serde_json::from_value(json!({
                "apiVersion": "tsujiban.dev/v1alpha1", "kind": "Device",
                "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"siteRef": {"name": "s"}, "serialNumber": name, "driver": "Frr", "connection": {"host": "192.0.2.1"}, "lifecycle": lifecycle},
                "status": {"lastBackup": backup, "conditions": [{"type": "BackupFresh", "status": fresh, "reason": "x", "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
            }))
            .unwrap(),
        )
    }

    #[test]
    fn only_devices_that_are_expected_can_be_late() {
        let fleet = Fleet::of(&[
            device("r1", "Active", "True", Some("2026-02-03T00:00:00Z")),
            device("r2", "Maintenance", "False", None),
            device("r3", "Retired", "False", None),
        ]);
        assert_eq!((fleet.devices, fleet.expected, fleet.late.len()), (3, 1, 0));
        assert_eq!(fleet.oldest, Some("2026-02-03T00:00:00Z".parse().unwrap()));
        assert!(fleet.verdict(false, None).is_true());
        assert_eq!(fleet.verdict(false, Some("a lock could be shortened")).reason, "CanaryFailed");
    }

    #[test]
    fn late_devices_are_named() {
        let devices: Vec<_> = (0..7).map(|i| device(&format!("r{i}"), "Active", "False", None)).collect();
        let verdict = Fleet::of(&devices).verdict(false, None);
        assert_eq!(verdict.message, "7 of 7 active devices missed their last window: r0, r1, r2, r3, r4, ...");
        assert_eq!(Fleet::of(&devices).oldest, Some("2026-01-01T00:00:00Z".parse().unwrap()));
    }

    /// A newest snapshot that is damaged is no window that was missed.
    #[test]
    fn devices_whose_newest_snapshot_is_damaged_are_named_as_such() {
        let damaged = |name: &str| {
            let mut device = Device::clone(&device(name, "Active", "False", None));
            device.status.as_mut().unwrap().conditions[0].reason = "Damaged".to_owned();
            Arc::new(device)
        };
        let verdict = Fleet::of(&[damaged("r1"), device("r2", "Active", "True", None)]).verdict(false, None);
        assert_eq!(verdict.reason, "Damaged");
        assert!(
            verdict.message.starts_with("of 1 of 2 active devices the newest snapshot is damaged in the storage: r1; "),
            "{}",
            verdict.message
        );
        let verdict = Fleet::of(&[damaged("r1"), device("r2", "Active", "False", None)]).verdict(false, None);
        assert_eq!(verdict.reason, "Late");
        assert!(verdict.message.contains("missed their last window: r2; of 1 of 2"), "{}", verdict.message);
    }
}
