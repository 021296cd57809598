//! Reading snapshots back from the storage.

use serde::Serialize;
use tsujiban_core::id::{GroupId, SnapshotId};
use tsujiban_proto::backup::v1::{Check, VerifySnapshotRequest, VerifySnapshotResponse};
use tsujiban_proto::error::Kind;

use crate::exit::Verdict;
use crate::failure::Failure;
use crate::output::view::Snapshot;
use crate::output::{Align, Answer, Format, Table, jst};
use crate::progress::Progress;
use crate::service::{CallError, Service};

/// The result of one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Verified {
    id: String,
    device: String,
    seen_at: Option<jiff::Timestamp>,
    /// `None`: unknown, since it could not be verified.
    intact: Option<bool>,
    checks: Vec<Checked>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Checked {
    name: String,
    passed: bool,
    detail: String,
}

/// The command gives up after the service has not answered this many calls in a row.
const TRIES: usize = 3;

/// Verifies one snapshot, or all of a group. Damage is an answer, not a failure. One that cannot be verified does not stop the others.
pub async fn verify(service: &Service, group: &GroupId, id: Option<&SnapshotId>, format: Format) -> Result<Answer, Failure> {
    let listed = match id {
        Some(_) => Vec::new(),
        None => super::all(service, group, None).await?,
    };
    let ids: Vec<String> = id.map(ToString::to_string).into_iter().chain(listed.iter().map(|s| s.id.clone())).collect();
    let mut progress = Progress::on_stderr();
    let mut verified = Vec::with_capacity(ids.len());
    let mut away = 0;
    for (number, id) in ids.iter().enumerate() {
        progress.say(&format!("verifying snapshot {} of {}", number + 1, ids.len()));
        let request = VerifySnapshotRequest { group: group.to_string(), id: id.clone() };
        match service.backup().verify_snapshot(service.request(request).await?).await {
            Ok(answer) => {
                away = 0;
                verified.push(Verified::of(id, answer.into_inner()));
            }
            Err(status) => match (CallError::from(status), listed.get(number)) {
                (error, known) if error.kind == Kind::DataLoss => verified.push(Verified::failed(id, known, Some(false), &error)),
                // it was listed a moment ago and has expired since
                (error, Some(_)) if error.kind == Kind::NotFound => progress.note(&format!("snapshot {id} has expired in the meantime")),
                (error, _) if matches!(error.kind, Kind::Unauthenticated | Kind::Denied) => return Err(error.into()),
                (error, Some(known)) => {
                    away = if is_away(error.kind) { away + 1 } else { 0 };
                    verified.push(Verified::failed(id, Some(known), None, &error));
                }
                (error, None) => return Err(error.into()),
            },
        }
        if away == TRIES {
            progress.note("the service does not answer; the other snapshots are not verified");
            verified.extend(listed.iter().skip(number + 1).map(Verified::not_tried));
            break;
        }
    }
    drop(progress);
    let verdict = verdict(&verified);
    Ok(Answer::new(format, &verified, |verified| text(group, verified))?.with(verdict))
}

/// Whether a call failed for a reason that has nothing to do with what it asked for.
fn is_away(kind: Kind) -> bool {
    matches!(kind, Kind::Unavailable | Kind::Timeout)
}

/// Damage weighs more than what could not be verified.
fn verdict(verified: &[Verified]) -> Verdict {
    if verified.iter().any(|snapshot| snapshot.intact == Some(false)) {
        Verdict::Damaged
    } else if verified.iter().any(|snapshot| snapshot.intact.is_none()) {
        Verdict::Failed
    } else {
        Verdict::Good
    }
}

impl Verified {
    fn of(id: &str, answer: VerifySnapshotResponse) -> Self {
        let snapshot = Snapshot::from(answer.snapshot.unwrap_or_default());
        let checks = answer.checks.into_iter().map(|Check { name, passed, detail }| Checked { name, passed, detail }).collect();
        Self { id: id.to_owned(), device: snapshot.device, seen_at: snapshot.seen_at, intact: Some(answer.intact), checks }
    }

    fn failed(id: &str, known: Option<&Snapshot>, intact: Option<bool>, error: &CallError) -> Self {
        let check = Checked { name: "read".to_owned(), passed: false, detail: error.to_string() };
        let (device, seen_at) = known.map(|known| (known.device.clone(), known.seen_at)).unwrap_or_default();
        Self { id: id.to_owned(), device, seen_at, intact, checks: vec![check] }
    }

    fn not_tried(known: &Snapshot) -> Self {
        let check = Checked { name: "read".to_owned(), passed: false, detail: "not tried".to_owned() };
        Self { id: known.id.clone(), device: known.device.clone(), seen_at: known.seen_at, intact: None, checks: vec![check] }
    }
}

fn text(group: &GroupId, verified: &[Verified]) -> String {
    if verified.is_empty() {
        return format!("Group {group} has no snapshots to verify. Take some with: tsujiban backup now {group}\n");
    }
    let mut table = Table::new([
        ("SNAPSHOT", Align::Left),
        ("DEVICE", Align::Left),
        ("LAST SEEN", Align::Left),
        ("INTACT", Align::Left),
        ("CHECKS", Align::Right),
        ("DEFECT", Align::Left),
    ]);
    for snapshot in verified {
        let failed = snapshot.checks.iter().filter(|check| !check.passed);
        let defects: Vec<String> = failed.map(|check| format!("{}: {}", check.name, check.detail)).collect();
        let passed = snapshot.checks.len() - defects.len();
        table.row([
            snapshot.id.clone(),
            snapshot.device.clone(),
            jst(snapshot.seen_at),
            snapshot.intact.map_or("?", |intact| if intact { "yes" } else { "NO" }).to_owned(),
            format!("{passed}/{}", snapshot.checks.len()),
            defects.join("; "),
        ]);
    }
    let unknown = verified.iter().filter(|snapshot| snapshot.intact.is_none()).count();
    let damaged = verified.iter().filter(|snapshot| snapshot.intact == Some(false)).count();
    let end = match (damaged, verified.len() - unknown) {
        (0, all) => format!("{all} verified, all intact.\n"),
        (damaged, all) => {
            format!("{all} verified, {damaged} DAMAGED. Keep the objects as they are and look at the backup service's log.\n")
        }
    };
    let rest = match unknown {
        0 => String::new(),
        unknown => format!("{unknown} could NOT be verified: run the command again when what is named above is mended.\n"),
    };
    table.render() + &end + &rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verified(device: &str, detail: Option<&str>) -> Verified {
        let check = |name: &str, passed, detail: &str| Checked { name: name.into(), passed, detail: detail.into() };
        let checks = vec![check("lock", true, ""), check("contents", detail.is_none(), detail.unwrap_or_default())];
        Verified { id: "00".repeat(16), device: device.into(), seen_at: None, intact: Some(detail.is_none()), checks }
    }

    #[test]
    fn damage_is_plain_to_see() {
        let group = "acme".parse().unwrap();
        insta::assert_snapshot!(text(&group, &[verified("東京-1", None), verified("osaka-1", Some("the seal is broken"))]), @r"
        SNAPSHOT                          DEVICE   LAST SEEN  INTACT  CHECKS  DEFECT
        00000000000000000000000000000000  東京-1   -          yes        2/2  -
        00000000000000000000000000000000  osaka-1  -          NO         1/2  contents: the seal is broken
        2 verified, 1 DAMAGED. Keep the objects as they are and look at the backup service's log.
        ");
    }

    /// What could not be verified is neither intact nor damaged; of what was, damage weighs most.
    #[test]
    fn what_could_not_be_verified_is_named() {
        let group = "acme".parse().unwrap();
        let error = CallError::from(tonic::Status::internal("the key's epoch is missing"));
        let unknown = Verified::failed(&"11".repeat(16), None, None, &error);
        let intact = verified("tokyo-1", None);
        let damaged = verified("osaka-1", Some("the seal is broken"));
        assert_eq!(verdict(std::slice::from_ref(&intact)), Verdict::Good);
        assert_eq!(verdict(&[intact.clone(), unknown.clone()]), Verdict::Failed);
        assert_eq!(verdict(&[unknown.clone(), damaged, intact.clone()]), Verdict::Damaged);
        insta::assert_snapshot!(text(&group, &[intact, unknown]), @r"
        SNAPSHOT                          DEVICE   LAST SEEN  INTACT  CHECKS  DEFECT
        00000000000000000000000000000000  tokyo-1  -          yes        2/2  -
        11111111111111111111111111111111  -        -          ?          0/1  read: the key's epoch is missing
        1 verified, all intact.
        1 could NOT be verified: run the command again when what is named above is mended.
        ");
    }
}
