//! `tsujiban snapshots`.

mod choice;
pub mod content;
pub mod restore;
mod verify;

use serde::Serialize;
use tsujiban_core::id::{GroupId, SnapshotId};
use tsujiban_proto::backup::v1::{AcknowledgeSnapshotRequest, DiffSnapshotsRequest, GetSnapshotRequest, ListSnapshotsRequest};

pub use self::choice::{Choice, resolve};
use self::content::ContentError;
pub use self::verify::verify;
use crate::exit::ExitCode;
use crate::failure::Failure;
use crate::output::view::Snapshot;
use crate::output::{Align, Answer, Format, Table, bytes, escape_text, jst};
use crate::progress::Progress;
use crate::service::Service;

/// How many snapshots are asked for at a time.
const PAGE: u32 = 500;

/// All snapshots of a group or of one of its devices, newest first.
pub async fn list(service: &Service, group: &GroupId, device: Option<&str>, format: Format) -> Result<Answer, Failure> {
    let snapshots = all(service, group, device).await?;
    Ok(Answer::new(format, &snapshots, |snapshots| match device {
        _ if !snapshots.is_empty() => table(snapshots),
        Some(device) => {
            format!("There are no snapshots of device {device} in group {group}. Its devices: kubectl get devices -n tn-{group}\n")
        }
        None => format!("Group {group} has no snapshots yet. Take some with: tsujiban backup now {group}\n"),
    })?)
}

/// Prints a config.
pub async fn show(service: &Service, group: &GroupId, id: &SnapshotId, reveal: bool, format: Format) -> Result<Answer, Failure> {
    #[derive(Serialize)]
    struct Shown {
        snapshot: Snapshot,
        config: String,
    }
    let content = get(service, group, id, reveal).await?;
    let shown = Shown { snapshot: content.snapshot, config: String::from_utf8_lossy(&content.config).into_owned() };
    Ok(Answer::new(format, &shown, |shown| escape_text(&shown.config))?)
}

/// Compares two snapshots.
pub async fn diff(
    service: &Service,
    group: &GroupId,
    (old, new): (&SnapshotId, &SnapshotId),
    reveal: bool,
    format: Format,
) -> Result<Answer, Failure> {
    #[derive(Serialize)]
    struct Compared<'a> {
        old: &'a SnapshotId,
        new: &'a SnapshotId,
        diff: String,
    }
    let request = DiffSnapshotsRequest { group: group.to_string(), old_id: old.to_string(), new_id: new.to_string(), reveal };
    let diff = service.backup().diff_snapshots(service.request(request).await?).await?.into_inner().diff;
    Ok(Answer::new(format, &Compared { old, new, diff }, |found| match found.diff.as_str() {
        "" => format!("{old} and {new} do not differ.\n"),
        diff => escape_text(diff),
    })?)
}

/// Why two snapshots of a device were not compared.
#[derive(Debug, thiserror::Error)]
#[error(
    "group {group} has fewer than two snapshots of device {device}, so there is nothing to compare; look with: tsujiban snapshots list {group}"
)]
struct NothingToCompare {
    group: GroupId,
    device: String,
}

impl ExitCode for NothingToCompare {}

/// Compares the two newest snapshots of a device.
pub async fn diff_newest(service: &Service, group: &GroupId, device: &str, reveal: bool, format: Format) -> Result<Answer, Failure> {
    let missing = || NothingToCompare { group: group.clone(), device: device.to_owned() };
    let snapshots = all(service, group, Some(device)).await?;
    let (old, new) = newest_two(&snapshots).ok_or_else(missing)?;
    diff(service, group, (&old, &new), reveal, format).await
}

/// Confirms that a shrunk snapshot is right.
pub async fn acknowledge(service: &Service, group: &GroupId, id: &SnapshotId, format: Format) -> Result<Answer, Failure> {
    let request = AcknowledgeSnapshotRequest { group: group.to_string(), id: id.to_string() };
    let answer = service.backup().acknowledge_snapshot(service.request(request).await?).await?.into_inner();
    let snapshot = Snapshot::from(answer.snapshot.ok_or(ContentError::NoSnapshot)?);
    Ok(Answer::new(format, &snapshot, |snapshot| table(std::slice::from_ref(snapshot)))?)
}

/// A whole config as the service sends it.
async fn get(service: &Service, group: &GroupId, id: &SnapshotId, reveal: bool) -> Result<content::Content, Failure> {
    let request = GetSnapshotRequest { group: group.to_string(), id: id.to_string(), reveal };
    let parts = service.backup().get_snapshot(service.request(request).await?).await?.into_inner();
    Ok(content::collect(parts).await?)
}

async fn all(service: &Service, group: &GroupId, device: Option<&str>) -> Result<Vec<Snapshot>, Failure> {
    let mut progress = Progress::on_stderr();
    let (mut snapshots, mut page_token) = (Vec::new(), String::new());
    loop {
        let device = device.unwrap_or_default().to_owned();
        let request = ListSnapshotsRequest { group: group.to_string(), device, page_size: PAGE, page_token };
        let page = service.backup().list_snapshots(service.request(request).await?).await?.into_inner();
        snapshots.extend(page.snapshots.into_iter().map(Snapshot::from));
        if page.next_page_token.is_empty() {
            return Ok(snapshots);
        }
        page_token = page.next_page_token;
        progress.say(&format!("{} snapshots", snapshots.len()));
    }
}

/// The two newest snapshots of the device of the newest one: its name may have belonged to another device before.
fn newest_two(newest_first: &[Snapshot]) -> Option<(SnapshotId, SnapshotId)> {
    let (newest, older) = newest_first.split_first()?;
    let before = older.iter().find(|snapshot| snapshot.serial == newest.serial)?;
    Some((before.id.parse().ok()?, newest.id.parse().ok()?))
}

fn table(snapshots: &[Snapshot]) -> String {
    let mut table = Table::new([
        ("SNAPSHOT", Align::Left),
        ("DEVICE", Align::Left),
        ("SERIAL", Align::Left),
        ("TAKEN", Align::Left),
        ("LAST SEEN", Align::Left),
        ("SEEN", Align::Right),
        ("SIZE", Align::Right),
        ("LOCKED UNTIL", Align::Left),
        ("NOTE", Align::Left),
    ]);
    for snapshot in snapshots {
        table.row([
            snapshot.id.clone(),
            snapshot.device.clone(),
            snapshot.serial.clone(),
            jst(snapshot.taken_at),
            jst(snapshot.seen_at),
            snapshot.sightings.to_string(),
            bytes(snapshot.bytes),
            jst(snapshot.locked_until),
            note(snapshot).to_owned(),
        ]);
    }
    table.render()
}

fn note(snapshot: &Snapshot) -> &'static str {
    match (snapshot.damaged, snapshot.shrunk) {
        (true, _) => "DAMAGED",
        (false, true) => "shrunk",
        (false, false) => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(number: u8, serial: &str) -> Snapshot {
        Snapshot {
            id: SnapshotId::from_bytes([number; 16]).to_string(),
            group: "acme".into(),
            device: "東京-1".into(),
            serial: serial.into(),
            driver: "Frr".into(),
            taken_at: "2026-11-23T02:00:00Z".parse().ok(),
            seen_at: "2026-11-24T02:00:00.5Z".parse().ok(),
            sightings: 2,
            locked_until: None,
            bytes: 153_000,
            stored_bytes: 12_000,
            shrunk: number == 1,
            damaged: number == 3,
        }
    }

    #[test]
    fn a_list_is_aligned() {
        insta::assert_snapshot!(table(&[snapshot(3, "JN-2"), snapshot(2, "JN-2"), snapshot(1, "JN-10")]), @r"
        SNAPSHOT                          DEVICE  SERIAL  TAKEN                      LAST SEEN                  SEEN      SIZE  LOCKED UNTIL  NOTE
        03030303030303030303030303030303  東京-1  JN-2    2026-11-23T11:00:00+09:00  2026-11-24T11:00:00+09:00     2  153.0 kB  -             DAMAGED
        02020202020202020202020202020202  東京-1  JN-2    2026-11-23T11:00:00+09:00  2026-11-24T11:00:00+09:00     2  153.0 kB  -             -
        01010101010101010101010101010101  東京-1  JN-10   2026-11-23T11:00:00+09:00  2026-11-24T11:00:00+09:00     2  153.0 kB  -             shrunk
        ");
    }

    #[test]
    fn json_has_plain_numbers_and_rfc_3339_times() {
        insta::assert_json_snapshot!(snapshot(1, "JN-1"), @r#"
        {
          "id": "01010101010101010101010101010101",
          "group": "acme",
          "device": "東京-1",
          "serial": "JN-1",
          "driver": "Frr",
          "takenAt": "2026-11-23T02:00:00Z",
          "seenAt": "2026-11-24T02:00:00.5Z",
          "sightings": 2,
          "lockedUntil": null,
          "bytes": 153000,
          "storedBytes": 12000,
          "shrunk": true,
          "damaged": false
        }
        "#);
    }

    #[test]
    fn the_two_newest_are_of_one_device() {
        let id = |number| SnapshotId::from_bytes([number; 16]);
        let snapshots = [snapshot(4, "new"), snapshot(3, "old"), snapshot(2, "new"), snapshot(1, "new")];
        assert_eq!(newest_two(&snapshots), Some((id(2), id(4))));
        assert_eq!(newest_two(&[snapshot(2, "new"), snapshot(1, "old")]), None);
        assert_eq!(newest_two(&[]), None);
    }
}
