//! Which snapshot a person means: one with this id or with an id that begins so, the newest of a device, or the newest of the group.

use std::str::FromStr;

use tsujiban_core::id::{GroupId, SnapshotId};
use tsujiban_proto::backup::v1::ListSnapshotsRequest;
use tsujiban_proto::error::Kind;

use crate::exit::ExitCode;
use crate::failure::Failure;
use crate::output::view::Snapshot;
use crate::service::{CallError, Service};

/// The word for the newest snapshot of a group.
const LATEST: &str = "latest";
/// The fewest digits of an id that are taken for its beginning.
const FEWEST_DIGITS: usize = 4;

/// A snapshot as it is named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    Id(SnapshotId),
    Latest,
    /// A device's name or serial number, or else the beginning of an id.
    Named(String),
}

/// A text that names no snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "name a snapshot by its id of 32 hexadecimal digits or the first ones of it, by a device's name or serial number for the newest of that device, or by \"latest\""
)]
pub struct InvalidChoice;

/// Why no snapshot was chosen.
#[derive(Debug, thiserror::Error)]
pub enum ChoiceError {
    #[error("group {group} has no snapshots yet; take some with: tsujiban backup now {group}")]
    None { group: GroupId },
    #[error(
        "group {group} has no device {text:?} with a snapshot, and no snapshot whose id begins with that; look with: tsujiban snapshots list {group}"
    )]
    Unknown { group: GroupId, text: String },
    #[error("{count} snapshots of group {group} have an id that begins with {text}; give more digits")]
    Several { group: GroupId, text: String, count: usize },
}

impl ExitCode for ChoiceError {}

impl FromStr for Choice {
    type Err = InvalidChoice;

    fn from_str(text: &str) -> Result<Self, InvalidChoice> {
        if let Ok(id) = text.parse() {
            return Ok(Self::Id(id));
        }
        let is_part_of_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':');
        match text {
            LATEST => Ok(Self::Latest),
            _ if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(is_part_of_a_name) => {
                Ok(Self::Named(text.to_owned()))
            }
            _ => Err(InvalidChoice),
        }
    }
}

/// Asks the service for the id of the snapshot that is meant, unless it is an id already.
pub async fn resolve(service: &Service, group: &GroupId, choice: &Choice) -> Result<SnapshotId, Failure> {
    match choice {
        Choice::Id(id) => Ok(id.clone()),
        Choice::Latest => Ok(newest(service, group, "").await?.ok_or_else(|| ChoiceError::None { group: group.clone() })?),
        Choice::Named(text) => {
            if let Some(id) = newest(service, group, text).await? {
                return Ok(id);
            }
            let snapshots = if is_beginning(text) { super::all(service, group, None).await? } else { Vec::new() };
            Ok(begins_with(group, text, &snapshots)?)
        }
    }
}

/// The newest snapshot of a device, or with an empty text of the group. `None` if the group has none, or no such device.
async fn newest(service: &Service, group: &GroupId, device: &str) -> Result<Option<SnapshotId>, Failure> {
    let request = ListSnapshotsRequest { group: group.to_string(), device: device.to_owned(), page_size: 1, page_token: String::new() };
    match service.backup().list_snapshots(service.request(request).await?).await.map_err(CallError::from) {
        Ok(page) => Ok(page.into_inner().snapshots.into_iter().next().and_then(|snapshot| snapshot.id.parse().ok())),
        Err(error) if error.kind == Kind::NotFound && !device.is_empty() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_beginning(text: &str) -> bool {
    text.len() >= FEWEST_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn begins_with(group: &GroupId, text: &str, snapshots: &[Snapshot]) -> Result<SnapshotId, ChoiceError> {
    let digits = text.to_ascii_lowercase();
    let found: Vec<SnapshotId> =
        snapshots.iter().filter(|snapshot| snapshot.id.starts_with(&digits)).filter_map(|snapshot| snapshot.id.parse().ok()).collect();
    match found.as_slice() {
        [id] => Ok(id.clone()),
        [] => Err(ChoiceError::Unknown { group: group.clone(), text: text.to_owned() }),
        several => Err(ChoiceError::Several { group: group.clone(), text: text.to_owned(), count: several.len() }),
    }
}

#[cfg(test)]
mod tests {
    use tsujiban_proto::backup::v1 as wire;

    use super::*;

    #[test]
    fn a_snapshot_is_named_by_id_device_or_word() {
        let id = SnapshotId::from_bytes([0xab; 16]);
        assert_eq!(id.to_string().parse(), Ok(Choice::Id(id)));
        assert_eq!("latest".parse(), Ok(Choice::Latest));
        for name in ["tokyo-1", "01a2260d", "ACME-TYO-0001", "JN:1.2_3"] {
            assert_eq!(name.parse(), Ok(Choice::Named(name.to_owned())));
        }
        for wrong in ["", "../etc", "-1", "tokyo 1", "東京-1", "a\u{1b}[2J"] {
            assert_eq!(wrong.parse::<Choice>(), Err(InvalidChoice), "{wrong:?}");
        }
    }

    #[test]
    fn the_beginning_of_an_id_has_to_be_of_one_snapshot() {
        let group: GroupId = "acme".parse().unwrap();
        let snapshot = |first: u8| {
            let mut bytes = [7; 16];
            bytes[0] = first;
            Snapshot::from(wire::Snapshot { id: SnapshotId::from_bytes(bytes).to_string(), ..wire::Snapshot::default() })
        };
        let all = [snapshot(0xa1), snapshot(0xa2), snapshot(0xb3)];
        assert_eq!(begins_with(&group, "B307", &all).unwrap().to_string(), all[2].id);
        assert!(matches!(begins_with(&group, "a", &all), Err(ChoiceError::Several { count: 2, .. })));
        assert!(matches!(begins_with(&group, "c0de", &all), Err(ChoiceError::Unknown { .. })));
        assert!(is_beginning("b307") && !is_beginning("b30") && !is_beginning("tokyo"));
    }
}
