//! `tsujiban groups`.

use serde::Serialize;
use tsujiban_core::id::{GroupId, IncarnationId};
use tsujiban_proto::lifecycle::v1::{EraseRequest, ReportRequest};

use crate::confirm::confirm;
use crate::exit::{ExitCode, Verdict};
use crate::failure::Failure;
use crate::output::view::{Canary, Group, State, time};
use crate::output::{Align, Answer, Format, Table, bytes, escape_line, jst};
use crate::service::Service;

/// The stored data of the groups, and whether the storage keeps its locks.
#[derive(Debug, Serialize)]
struct Kept {
    groups: Vec<Group>,
    canary: Option<Canary>,
}

/// Why a group was not erased.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    #[error("nothing is kept of group {group} under incarnation {incarnation}; look with: tsujiban groups list")]
    Unknown { group: GroupId, incarnation: IncarnationId },
    #[error(
        "group {group} lives; to erase it, set deletionPolicy: Erase in its Tenant and delete that, or delete the Tenant first and run this again"
    )]
    Living { group: GroupId },
    #[error("group {group} under incarnation {incarnation} is erased already")]
    Erased { group: GroupId, incarnation: IncarnationId },
}

impl ExitCode for EraseError {}

/// Lists groups.
pub async fn list(service: &Service, retained: bool, format: Format) -> Result<Answer, Failure> {
    let mut kept = report(service, String::new()).await?;
    kept.groups.retain(|group| !retained || group.state == State::Retained);
    let answer = Answer::new(format, &kept, |kept| text(kept, retained))?;
    Ok(answer.with(verdict(&kept)))
}

/// The exit code also reports a storage that deletes locked objects, since programs do not read the sentence about it.
fn verdict(kept: &Kept) -> Verdict {
    if kept.canary.as_ref().is_some_and(|canary| !canary.passed) { Verdict::Damaged } else { Verdict::Good }
}

/// Erases all data of a retained group, after showing what that is.
pub async fn erase(service: &Service, group: &GroupId, incarnation: &IncarnationId, yes: bool, format: Format) -> Result<Answer, Failure> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Erased<'a> {
        group: &'a GroupId,
        incarnation: &'a IncarnationId,
        snapshots: u64,
        last_object_until: Option<jiff::Timestamp>,
    }
    let kept = report(service, group.to_string()).await?;
    let kept = check(&kept.groups, group, incarnation)?;
    confirm(&announcement(kept), "erase it", group.as_str(), yes)?;
    let request = EraseRequest { group: group.to_string(), incarnation: incarnation.to_string(), ..EraseRequest::default() };
    let answer = service.lifecycle().erase(service.request(request).await?).await?.into_inner();
    let erased = Erased { group, incarnation, snapshots: answer.snapshots, last_object_until: time(answer.last_object_until) };
    Ok(Answer::new(format, &erased, |erased| {
        let sealed = match erased.last_object_until {
            Some(until) => format!(" Sealed objects, which nobody can open, leave the storage until {}.", jst(Some(until))),
            None => String::new(),
        };
        format!("Group {group} is erased: {} snapshots were made unreadable.{sealed}\n", erased.snapshots)
    })?)
}

async fn report(service: &Service, group: String) -> Result<Kept, Failure> {
    let answer = service.lifecycle().report(service.request(ReportRequest { group }).await?).await?.into_inner();
    Ok(Kept { groups: answer.groups.into_iter().map(Group::from).collect(), canary: answer.canary.map(Canary::from) })
}

/// The incarnation of the group that may be erased.
fn check<'a>(kept: &'a [Group], group: &GroupId, incarnation: &IncarnationId) -> Result<&'a Group, EraseError> {
    let (group, incarnation) = (group.clone(), incarnation.clone());
    let found = kept.iter().find(|kept| kept.group == group.as_str() && kept.incarnation == incarnation.as_str());
    let Some(found) = found else { return Err(EraseError::Unknown { group, incarnation }) };
    match found.state {
        State::Living => Err(EraseError::Living { group }),
        State::Erased => Err(EraseError::Erased { group, incarnation }),
        State::Retained | State::Unknown => Ok(found),
    }
}

fn announcement(group: &Group) -> String {
    escape_line(&format!(
        "This erases all that is kept of group {} (incarnation {}), for ever: {} devices, {} snapshots, {}. It was retained on {}.",
        group.group,
        group.incarnation,
        group.devices,
        group.snapshots,
        bytes(group.stored_bytes),
        jst(group.ended_at)
    ))
}

fn text(kept: &Kept, retained: bool) -> String {
    let canary = match &kept.canary {
        Some(canary) if canary.passed => format!("The storage keeps its locks: checked {}.\n", jst(canary.checked_at)),
        Some(canary) => {
            escape_line(&format!("THE STORAGE DOES NOT KEEP ITS LOCKS: {} (checked {})", canary.detail, jst(canary.checked_at))) + "\n"
        }
        None => "The storage has not been checked yet.\n".to_owned(),
    };
    if kept.groups.is_empty() {
        return if retained { "No group is retained.\n".to_owned() } else { "There are no groups yet.\n".to_owned() } + &canary;
    }
    let mut table = Table::new([
        ("GROUP", Align::Left),
        ("STATE", Align::Left),
        ("INCARNATION", Align::Left),
        ("DEVICES", Align::Right),
        ("SNAPSHOTS", Align::Right),
        ("STORED", Align::Right),
        ("PREPARED", Align::Left),
        ("ENDED", Align::Left),
        ("ID FREE AT", Align::Left),
    ]);
    for group in &kept.groups {
        table.row([
            group.group.clone(),
            group.state.as_str().to_owned(),
            group.incarnation.clone(),
            group.devices.to_string(),
            group.snapshots.to_string(),
            bytes(group.stored_bytes),
            jst(group.prepared_at),
            jst(group.ended_at),
            jst(group.id_free_at),
        ]);
    }
    table.render() + &canary
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(state: State) -> Group {
        Group {
            group: "acme".into(),
            incarnation: "0a".repeat(16),
            state,
            devices: 2,
            snapshots: 70,
            stored_bytes: 1_234_567,
            prepared_at: "2026-01-01T00:00:00Z".parse().ok(),
            ended_at: (state != State::Living).then(|| "2026-11-22T15:00:00Z".parse().unwrap()),
            id_free_at: None,
        }
    }

    #[test]
    fn only_a_retained_group_is_erased() {
        let (id, incarnation): (GroupId, IncarnationId) = ("acme".parse().unwrap(), "0a".repeat(16).parse().unwrap());
        assert!(check(&[group(State::Retained)], &id, &incarnation).is_ok());
        assert!(matches!(check(&[group(State::Living)], &id, &incarnation), Err(EraseError::Living { .. })));
        assert!(matches!(check(&[group(State::Erased)], &id, &incarnation), Err(EraseError::Erased { .. })));
        let other = "0b".repeat(16).parse().unwrap();
        assert!(matches!(check(&[group(State::Retained)], &id, &other), Err(EraseError::Unknown { .. })));
    }

    #[test]
    fn what_goes_is_said_before() {
        assert_eq!(
            announcement(&group(State::Retained)),
            "This erases all that is kept of group acme (incarnation 0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a), for ever: 2 devices, 70 snapshots, 1.2 MB. It was retained on 2026-11-23T00:00:00+09:00."
        );
    }

    #[test]
    fn a_list_says_whether_the_storage_can_be_trusted() {
        let canary =
            Canary { checked_at: "2026-11-23T00:00:00Z".parse().ok(), passed: false, detail: "a locked version was deleted".into() };
        let kept = Kept { groups: vec![group(State::Living), group(State::Retained)], canary: Some(canary) };
        insta::assert_snapshot!(text(&kept, false), @r"
        GROUP  STATE     INCARNATION                       DEVICES  SNAPSHOTS  STORED  PREPARED                   ENDED                      ID FREE AT
        acme   Living    0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a        2         70  1.2 MB  2026-01-01T09:00:00+09:00  -                          -
        acme   Retained  0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a        2         70  1.2 MB  2026-01-01T09:00:00+09:00  2026-11-23T00:00:00+09:00  -
        THE STORAGE DOES NOT KEEP ITS LOCKS: a locked version was deleted (checked 2026-11-23T09:00:00+09:00)
        ");
        assert_eq!(verdict(&kept), Verdict::Damaged);
        let passed = kept.canary.map(|canary| Canary { passed: true, ..canary });
        assert_eq!(verdict(&Kept { groups: vec![], canary: passed }), Verdict::Good);
        assert_eq!(verdict(&Kept { groups: vec![], canary: None }), Verdict::Good, "it has not been checked yet");
    }
}
