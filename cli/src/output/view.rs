//! The services' answers, as they are shown.

use jiff::Timestamp;
use serde::Serialize;
use tsujiban_proto::backup::v1 as backup;
use tsujiban_proto::lifecycle::v1 as lifecycle;
use tsujiban_proto::time::from_wire;

/// A stored config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    pub id: String,
    pub group: String,
    /// The Device's name when it was taken.
    pub device: String,
    pub serial: String,
    pub driver: String,
    pub taken_at: Option<Timestamp>,
    pub seen_at: Option<Timestamp>,
    pub sightings: u64,
    pub locked_until: Option<Timestamp>,
    pub bytes: u64,
    pub stored_bytes: u64,
    pub shrunk: bool,
    pub damaged: bool,
}

impl From<backup::Snapshot> for Snapshot {
    fn from(snapshot: backup::Snapshot) -> Self {
        let device = snapshot.device.unwrap_or_default();
        Self {
            id: snapshot.id,
            group: device.group,
            device: device.name,
            serial: device.serial,
            driver: snapshot.driver,
            taken_at: time(snapshot.taken_at),
            seen_at: time(snapshot.seen_at),
            sightings: snapshot.sightings,
            locked_until: time(snapshot.locked_until),
            bytes: snapshot.bytes,
            stored_bytes: snapshot.stored_bytes,
            shrunk: snapshot.shrunk,
            damaged: snapshot.damaged,
        }
    }
}

/// The data of one incarnation of a group.
#[allow(clippy::struct_field_names)] // `group` is the group's id, as programs know it from the contracts
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    pub group: String,
    pub incarnation: String,
    pub state: State,
    pub devices: u64,
    pub snapshots: u64,
    pub stored_bytes: u64,
    pub prepared_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    pub id_free_at: Option<Timestamp>,
}

/// Whether a group lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum State {
    Unknown,
    Living,
    Retained,
    Erased,
}

impl State {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::Living => "Living",
            Self::Retained => "Retained",
            Self::Erased => "Erased",
        }
    }
}

impl From<lifecycle::GroupReport> for Group {
    fn from(report: lifecycle::GroupReport) -> Self {
        Self {
            state: match report.state() {
                lifecycle::GroupState::Unspecified => State::Unknown,
                lifecycle::GroupState::Living => State::Living,
                lifecycle::GroupState::Retained => State::Retained,
                lifecycle::GroupState::Erased => State::Erased,
            },
            group: report.group,
            incarnation: report.incarnation,
            devices: report.devices,
            snapshots: report.snapshots,
            stored_bytes: report.stored_bytes,
            prepared_at: time(report.prepared_at),
            ended_at: time(report.ended_at),
            id_free_at: time(report.id_free_at),
        }
    }
}

/// Whether the storage keeps its locks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Canary {
    pub checked_at: Option<Timestamp>,
    pub passed: bool,
    pub detail: String,
}

impl From<lifecycle::Canary> for Canary {
    fn from(canary: lifecycle::Canary) -> Self {
        Self { checked_at: time(canary.checked_at), passed: canary.passed, detail: canary.detail }
    }
}

pub fn time(wire: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    wire.as_ref().and_then(from_wire)
}
