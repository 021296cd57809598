//! Reading snapshots back from the storage.

use serde::Serialize;
use tsujiban_core::id::{GroupId, SnapshotId};
use tsujiban_proto::backup::v1::{Check, VerifySnapshotRequest, VerifySnapshotResponse};
use tsujiban_proto::error::Kind;

use crate::failure::Failure;
use crate::output::view::Snapshot;
use crate::output::{Align, Answer, Format, Table, jst};
use crate::progress::Progress;
use crate::service::{CallError, Service};

/// What became of one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Verified {
    id: String,
    device: String,
    seen_at: Option<jiff::Timestamp>,
    intact: bool,
    checks: Vec<Checked>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Checked {
    name: String,
    passed: bool,
    detail: String,
}

/// Verifies one snapshot, or all of a group. Damage is an answer, not a failure.
pub async fn verify(service: &Service, group: &GroupId, id: Option<&SnapshotId>, format: Format) -> Result<Answer, Failure> {
    let listed = match id {
        Some(_) => Vec::new(),
        None => super::all(service, group, None).await?,
    };
    let ids: Vec<String> = id.map(ToString::to_string).into_iter().chain(listed.iter().map(|s| s.id.clone())).collect();
    let mut progress = Progress::on_stderr();
    let mut verified = Vec::with_capacity(ids.len());
    for (number, id) in ids.iter().enumerate() {
        progress.say(&format!("verifying snapshot {} of {}", number + 1, ids.len()));
        let request = VerifySnapshotRequest { group: group.to_string(), id: id.clone() };
        match service.backup().verify_snapshot(service.request(request).await?).await {
            Ok(answer) => verified.push(Verified::of(id, answer.into_inner())),
            Err(status) => match (CallError::from(status), listed.get(number)) {
                (error, known) if error.kind == Kind::DataLoss => verified.push(Verified::lost(id, known, &error)),
                // it was listed a moment ago and has expired since
                (error, Some(_)) if error.kind == Kind::NotFound => progress.note(&format!("snapshot {id} has expired in the meantime")),
                (error, _) => return Err(error.into()),
            },
        }
    }
    drop(progress);
    let answer = Answer::new(format, &verified, |verified| text(group, verified))?;
    Ok(answer.with(if verified.iter().all(|v| v.intact) { crate::output::Verdict::Good } else { crate::output::Verdict::Damaged }))
}

impl Verified {
    fn of(id: &str, answer: VerifySnapshotResponse) -> Self {
        let snapshot = Snapshot::from(answer.snapshot.unwrap_or_default());
        let checks = answer.checks.into_iter().map(|Check { name, passed, detail }| Checked { name, passed, detail }).collect();
        Self { id: id.to_owned(), device: snapshot.device, seen_at: snapshot.seen_at, intact: answer.intact, checks }
    }

    fn lost(id: &str, known: Option<&Snapshot>, error: &CallError) -> Self {
        let check = Checked { name: "read".to_owned(), passed: false, detail: error.to_string() };
        let (device, seen_at) = known.map(|known| (known.device.clone(), known.seen_at)).unwrap_or_default();
        Self { id: id.to_owned(), device, seen_at, intact: false, checks: vec![check] }
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
            if snapshot.intact { "yes" } else { "NO" }.to_owned(),
            format!("{passed}/{}", snapshot.checks.len()),
            defects.join("; "),
        ]);
    }
    let damaged = verified.iter().filter(|snapshot| !snapshot.intact).count();
    let verdict = match (damaged, verified.len()) {
        (0, all) => format!("{all} verified, all intact.\n"),
        (damaged, all) => {
            format!("{all} verified, {damaged} DAMAGED. Keep the objects as they are and look at the backup service's log.\n")
        }
    };
    table.render() + &verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verified(device: &str, detail: Option<&str>) -> Verified {
        let check = |name: &str, passed, detail: &str| Checked { name: name.into(), passed, detail: detail.into() };
        let checks = vec![check("lock", true, ""), check("contents", detail.is_none(), detail.unwrap_or_default())];
        Verified { id: "00".repeat(16), device: device.into(), seen_at: None, intact: detail.is_none(), checks }
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
}
