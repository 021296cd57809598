//! Converts the service's types to gRPC messages.

use jiff::Timestamp;
use tsujiban_core::driver::StoredDriver;
use tsujiban_core::id::GroupId;
use tsujiban_proto::backup::v1 as backup;
use tsujiban_proto::lifecycle::v1 as lifecycle;
use tsujiban_proto::time::to_wire;

use crate::attempt::Outcome;
use crate::canary::Canary;
use crate::catalogue::{Damage, GroupState, SnapshotRow};
use crate::device::Details;
use crate::holding::Holding;
use crate::reading::Check;

pub fn snapshot(group: &GroupId, row: &SnapshotRow, details: Option<&Details>) -> backup::Snapshot {
    backup::Snapshot {
        id: row.id.to_string(),
        device: Some(
            details.map_or_else(|| backup::DeviceRef { group: group.to_string(), ..Default::default() }, |details| device(group, details)),
        ),
        taken_at: Some(to_wire(row.taken_at)),
        seen_at: Some(to_wire(row.seen_at)),
        sightings: row.sightings,
        locked_until: Some(to_wire(row.locked_until)),
        bytes: row.bytes,
        stored_bytes: row.stored_bytes,
        shrunk: row.shrunk,
        driver: row.driver.as_ref().map_or("", StoredDriver::as_str).to_owned(),
        damaged: row.damaged,
    }
}

pub fn device(group: &GroupId, details: &Details) -> backup::DeviceRef {
    let uid = String::new(); // a stored config outlives a Device, and the uid is not stored
    backup::DeviceRef { group: group.to_string(), serial: details.serial.to_string(), name: details.name.to_string(), uid }
}

pub fn attempt(outcome: &Outcome) -> backup::Attempt {
    let Outcome { row, group, details, message, newest } = outcome;
    let reason = row.reason.map_or(backup::Reason::Unspecified, backup::Reason::from);
    backup::Attempt {
        cursor: row.cursor,
        device: Some(device(group, details)),
        time: Some(to_wire(row.time)),
        reason: reason.into(),
        message: message.clone(),
        changed: row.changed,
        newest: newest.as_ref().map(|newest| snapshot(group, newest, Some(details))),
        observed_host_key: details.observed_host_key.clone(),
        pinned_host_key: details.pinned_host_key.clone(),
        model: details.model.clone(),
        firmware: details.firmware.clone(),
    }
}

pub fn check(check: Check) -> backup::Check {
    backup::Check { name: check.name.to_owned(), passed: check.passed, detail: check.detail }
}

pub fn group(Holding { row, held, damage }: Holding, whole: Option<Timestamp>) -> lifecycle::GroupReport {
    let state = match row.state {
        GroupState::Living => lifecycle::GroupState::Living,
        GroupState::Retained => lifecycle::GroupState::Retained,
        GroupState::Erased => lifecycle::GroupState::Erased,
    };
    lifecycle::GroupReport {
        group: row.group.to_string(),
        incarnation: row.incarnation.to_string(),
        state: state.into(),
        prepared_at: Some(to_wire(row.prepared_at)),
        ended_at: row.ended_at.map(to_wire),
        id_free_at: row.id_free_at.map(to_wire),
        devices: held.devices,
        snapshots: held.snapshots,
        stored_bytes: held.stored_bytes,
        integrity: Some(integrity(damage, whole)),
        writing: None,
    }
}

/// What the scrub found; `whole` is when the newest whole one began.
pub fn integrity(damage: Damage, whole: Option<Timestamp>) -> lifecycle::Integrity {
    let state = match (damage.count, whole) {
        (1.., _) => lifecycle::IntegrityState::Damaged,
        (0, Some(_)) => lifecycle::IntegrityState::Intact,
        (0, None) => lifecycle::IntegrityState::Unspecified,
    };
    lifecycle::Integrity { state: state.into(), damaged: damage.names, damaged_count: damage.count, checked_at: whole.map(to_wire) }
}

pub fn canary(canary: Canary) -> lifecycle::Canary {
    lifecycle::Canary { checked_at: Some(to_wire(canary.checked_at)), passed: canary.passed, detail: canary.detail }
}
