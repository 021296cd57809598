//! Conditions HistoryRecorded, BackupsStored, StorageIntact and PoliciesInForce: what the services report about their storage, and the
//! state of the chart's installation. They do not affect condition Ready: what a group has declared is built in any case, and its owner can
//! do nothing about them. Pure.

use tsujiban_api::tenant::condition::{POLICIES_IN_FORCE, STORAGE_INTACT};
use tsujiban_core::id::{GroupId, IncarnationId};
use tsujiban_core::workload::Service;

use crate::condition::Verdict;
use crate::installation::{Installation, Policies, Workload, Wrong};
use crate::state::reports::{Facts, Integrity, Reports, Writing};

/// How many damaged things a condition names.
const NAMED: usize = 10;

/// The reason of a service that is not installed.
const MISSING: &str = "ServiceMissing";

/// All these conditions for one group. `before` answers the reason of the existing condition of a type, which stays if nothing newer is
/// known.
pub fn verdicts<'a>(
    services: &[Service],
    reports: &Reports,
    installation: &Installation,
    life: Option<(&GroupId, &IncarnationId)>,
    before: impl Fn(&str) -> Option<&'a str>,
) -> Vec<(&'static str, Verdict)> {
    let mut all = Vec::new();
    for service in Service::ALL.iter().copied() {
        let type_ = service.row().can_write.condition;
        let verdict = if services.contains(&service) {
            let facts = reports.of(service);
            let unable = reports.unable(service).map(|why| Writing::Unable(why.to_owned()));
            let standing = Standing {
                workload: installation.workload(service),
                is_away: reports.is_away(service),
                has_reported: facts.is_some() || unable.is_some(),
                writing: unable.as_ref().or_else(|| facts.and_then(|facts| writing_of(facts, life))),
            };
            writing(service, &standing, before(type_))
        } else {
            service.row().absence.and_then(|absence| before(type_).map(|_| Verdict::unknown(absence.reason, absence.message)))
        };
        all.extend(verdict.map(|verdict| (type_, verdict)));
    }
    let parts: Vec<Part<'_>> = services
        .iter()
        .map(|service| {
            let facts = reports.of(*service);
            let group = life.and_then(|(group, life)| facts?.integrity.get(&(group.clone(), life.clone())));
            Part { service: *service, shared: facts.and_then(|facts| facts.shared_integrity.as_ref()), group }
        })
        .collect();
    let has_reported = services.iter().any(|service| reports.of(*service).is_some());
    all.extend(intact(&parts, has_reported, before(STORAGE_INTACT).is_some()).map(|verdict| (STORAGE_INTACT, verdict)));
    all.extend(in_force(installation.policies.as_ref(), before(POLICIES_IN_FORCE).is_some()).map(|verdict| (POLICIES_IN_FORCE, verdict)));
    all
}

/// Whether a service can write for one group: what it reports for the group, unless it can write nothing at all, or reports nothing for the
/// group.
fn writing_of<'a>(facts: &'a Facts, life: Option<(&GroupId, &IncarnationId)>) -> Option<&'a Writing> {
    let of_all = facts.writing.as_ref();
    let of_group = life.and_then(|(group, life)| facts.group_writing.get(&(group.clone(), life.clone())));
    if matches!(of_all, Some(Writing::Unable(_))) { of_all } else { of_group.or(of_all) }
}

/// What is known of a service.
#[derive(Debug, Clone, Copy, Default)]
struct Standing<'a> {
    workload: Option<Workload>,
    is_away: bool,
    has_reported: bool,
    writing: Option<&'a Writing>,
}

fn writing(service: Service, standing: &Standing<'_>, before: Option<&str>) -> Option<Verdict> {
    // the condition from the previous operator process stays, except ServiceMissing once the StatefulSet was found
    let stays = before.is_some_and(|reason| reason != MISSING || standing.workload.is_none());
    let name = service.row().host;
    match (standing.workload, standing.is_away, standing.writing) {
        (Some(Workload::Missing), ..) => {
            let advice = "helm upgrade puts it back; its volume was kept";
            Some(Verdict::fails(MISSING, format!("StatefulSet {name} of the {service} does not exist: {advice}")))
        }
        (Some(Workload::ScaledDown), ..) => {
            Some(Verdict::fails(MISSING, format!("StatefulSet {name} of the {service} is scaled to 0: helm upgrade puts it right")))
        }
        (_, true, _) => {
            let message = format!("the {service} does not answer; trying again, and its pods and their log say what is wrong");
            Some(Verdict::fails(service.row().unavailable, message))
        }
        (_, false, Some(Writing::Unable(why))) => Some(Verdict::fails("CannotWrite", format!("the {service} cannot write: {why}"))),
        (_, false, Some(Writing::Able)) => Some(Verdict::holds(service.row().can_write.reason, service.row().can_write.message)),
        (_, false, None) if standing.has_reported || !stays => {
            Some(Verdict::unknown("NotReported", format!("the {service} has not said yet whether it can write")))
        }
        (_, false, None) => None,
    }
}

/// What one service reports about the integrity of its data.
#[derive(Debug, Clone, Copy)]
struct Part<'a> {
    service: Service,
    /// Of the data that belongs to no group.
    shared: Option<&'a Integrity>,
    group: Option<&'a Integrity>,
}

fn intact(parts: &[Part<'_>], has_reported: bool, was_said: bool) -> Option<Verdict> {
    let damaged: Vec<String> = parts.iter().filter_map(damage).collect();
    if !damaged.is_empty() {
        let advice = "nothing of it is deleted, and all else works; see docs/recovery.md";
        return Some(Verdict::fails("Damaged", format!("{}; {advice}", damaged.join("; "))));
    }
    let is_intact = |part: &Part<'_>| part.shared == Some(&Integrity::Intact) && part.group == Some(&Integrity::Intact);
    if !parts.is_empty() && parts.iter().all(is_intact) {
        return Some(Verdict::holds("Intact", "all that is stored of the group was read again, and is as it was written"));
    }
    let unknown = || Verdict::unknown("NotChecked", "not everything that is stored of the group has been read again yet");
    (has_reported || !was_said).then(unknown)
}

/// `the backup service has 3 damaged things: a, b, c`.
fn damage(part: &Part<'_>) -> Option<String> {
    let (mut named, mut all): (Vec<&str>, u64) = (Vec::new(), 0);
    for found in [part.group, part.shared].into_iter().flatten() {
        if let Integrity::Damaged { names, count } = found {
            named.extend(names.iter().map(String::as_str));
            all = all.saturating_add(*count);
        }
    }
    if all == 0 {
        return None;
    }
    let more = if u64::try_from(named.len().min(NAMED)).is_ok_and(|shown| shown < all) { ", ..." } else { "" };
    named.truncate(NAMED);
    let things = if all == 1 { "1 damaged thing".to_owned() } else { format!("{all} damaged things") };
    Some(format!("the {} has {things}: {}{more}", part.service, named.join(", ")))
}

fn in_force(policies: Option<&Policies>, was_said: bool) -> Option<Verdict> {
    let Some(policies) = policies else {
        return (!was_said).then(|| Verdict::unknown("NotLooked", "nobody has looked at the admission policies yet"));
    };
    let faults = &policies.faults;
    if faults.is_empty() {
        return Some(Verdict::holds("InForce", "the admission policies stand as the chart has them"));
    }
    let of = |wrong: Wrong| faults.iter().filter(|fault| fault.wrong == wrong).map(|fault| fault.object.as_str()).collect::<Vec<_>>();
    let (missing, changed) = (of(Wrong::Missing), of(Wrong::Changed));
    let named = [("missing", &missing), ("changed", &changed)].into_iter().filter(|(_, objects)| !objects.is_empty());
    let named: Vec<String> = named.map(|(word, objects)| format!("{word}: {}", objects.join(", "))).collect();
    let reason = if missing.is_empty() { "PoliciesChanged" } else { "PoliciesMissing" };
    let advice = "what they forbid is not refused, and who changed what is not believed, until helm upgrade has put them back";
    Some(Verdict::fails(reason, format!("{}; {advice}", named.join("; "))))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::condition::State;
    use crate::installation::Fault;

    fn judged(service: Service, standing: Standing<'_>, before: Option<&str>) -> Option<(State, String)> {
        writing(service, &standing, before).map(|verdict| (verdict.state, verdict.reason))
    }

    #[test]
    fn a_service_that_cannot_write_says_why_and_one_that_is_gone_is_named() {
        let full = Writing::Unable("the disk is full: make the volume larger".into());
        let seen = Standing { workload: Some(Workload::Standing), has_reported: true, ..Standing::default() };
        let reason = |standing| judged(Service::Audit, standing, Some("Recorded")).unwrap();
        assert_eq!(reason(Standing { writing: Some(&Writing::Able), ..seen }), (State::True, "Recorded".into()));
        assert_eq!(reason(Standing { writing: Some(&full), ..seen }), (State::False, "CannotWrite".into()));
        assert!(
            writing(Service::Audit, &Standing { writing: Some(&full), ..seen }, None).unwrap().message.contains("make the volume larger")
        );
        assert_eq!(reason(Standing { writing: None, ..seen }), (State::Unknown, "NotReported".into()));
        // what it said before it went away says nothing of now
        assert_eq!(reason(Standing { writing: Some(&Writing::Able), is_away: true, ..seen }), (State::False, "AuditUnavailable".into()));
        for workload in [Workload::Missing, Workload::ScaledDown] {
            let gone = Standing { workload: Some(workload), writing: Some(&Writing::Able), ..seen };
            assert_eq!(reason(gone), (State::False, "ServiceMissing".into()));
        }
    }

    /// A service whose database is malformed answers, and cannot say what it holds.
    #[test]
    fn a_service_that_cannot_even_report_says_why() {
        let mut reports = Reports::default();
        assert!(reports.miss(Service::Backup));
        assert!(reports.refuse(Service::Backup, "the database is malformed: delete it".into()));
        assert!(!reports.refuse(Service::Backup, "the database is malformed: delete it".into()), "nothing new");
        let all = verdicts(&[Service::Backup], &reports, &Installation::default(), None, |_| Some("Stored"));
        let (_, stored) = all.iter().find(|(type_, _)| *type_ == Service::Backup.row().can_write.condition).unwrap();
        assert_eq!((stored.state, stored.reason.as_ref()), (State::False, "CannotWrite"));
        assert!(stored.message.contains("the database is malformed: delete it"), "{}", stored.message);
        assert!(reports.take(
            Service::Backup,
            Arc::new(Facts::from_wire(&tsujiban_proto::lifecycle::v1::ReportResponse::default(), jiff::Timestamp::UNIX_EPOCH))
        ));
        assert_eq!(reports.unable(Service::Backup), None);
    }

    /// A history that is damaged is its group's alone.
    #[test]
    fn what_is_refused_of_one_group_is_said_of_that_group() {
        use tsujiban_proto::lifecycle::v1::{GroupReport, ReportResponse, Writing as Reported};
        let (acme, other): (GroupId, GroupId) = ("acme".parse().unwrap(), "other".parse().unwrap());
        let life = IncarnationId::from_bytes([1; 16]);
        let refused = Reported { able: false, reason: "log 7 is damaged".into(), since: None };
        let report = |able| ReportResponse {
            groups: vec![GroupReport {
                group: "acme".into(),
                incarnation: life.to_string(),
                writing: Some(refused.clone()),
                ..Default::default()
            }],
            writing: Some(Reported { able, reason: "the disk is full".into(), since: None }),
            ..Default::default()
        };
        let writing = |able, group| {
            let facts = Facts::from_wire(&report(able), jiff::Timestamp::UNIX_EPOCH);
            writing_of(&facts, Some((group, &life))).cloned()
        };
        let (damaged, full) = (Writing::Unable("log 7 is damaged".into()), Writing::Unable("the disk is full".into()));
        assert_eq!((writing(true, &acme), writing(true, &other)), (Some(damaged), Some(Writing::Able)));
        assert_eq!((writing(false, &acme), writing(false, &other)), (Some(full.clone()), Some(full)));
    }

    #[test]
    fn an_operator_that_has_just_begun_takes_nothing_back() {
        let unknown = Some((State::Unknown, "NotReported".into()));
        assert_eq!(judged(Service::Backup, Standing::default(), Some("CannotWrite")), None);
        assert_eq!(judged(Service::Backup, Standing::default(), Some("ServiceMissing")), None);
        assert_eq!(judged(Service::Backup, Standing::default(), None), unknown);
        let standing = Standing { workload: Some(Workload::Standing), ..Standing::default() };
        assert_eq!(judged(Service::Backup, standing, Some("ServiceMissing")), unknown, "it was put back");
        assert_eq!(judged(Service::Backup, standing, Some("CannotWrite")), None);
        assert_eq!(intact(&[], false, true), None);
        assert_eq!(in_force(None, true), None);
        assert_eq!(in_force(None, false).unwrap().state, State::Unknown);
    }

    #[test]
    fn storage_is_intact_only_by_the_word_of_every_service() {
        use Integrity::{Damaged, Intact, Unchecked};
        let damaged = |names: &[&str], count| Damaged { names: names.iter().map(|name| (*name).to_owned()).collect(), count };
        let judged = |backup: [Option<&Integrity>; 2], audit: [Option<&Integrity>; 2]| {
            let part = |service, [shared, group]: [Option<&'static Integrity>; 2]| Part { service, shared, group };
            let leak = |it: Option<&Integrity>| it.map(|it| &*Box::leak(Box::new(it.clone())));
            let verdict = intact(&[part(Service::Backup, backup.map(leak)), part(Service::Audit, audit.map(leak))], true, true).unwrap();
            (verdict.state, verdict.message)
        };
        let good = [Some(&Intact), Some(&Intact)];
        assert_eq!(judged(good, good).0, State::True);
        for poor in [
            [None, None],
            [Some(&Intact), None],
            [None, Some(&Intact)],
            [Some(&Intact), Some(&Unchecked)],
            [Some(&Unchecked), Some(&Intact)],
        ] {
            assert_eq!((judged(good, poor).0, judged(poor, good).0), (State::Unknown, State::Unknown), "{poor:?}");
        }
        let (one, many) = (damaged(&["key-table"], 1), damaged(&["a", "b"], 12));
        let (state, message) = judged([Some(&one), Some(&many)], [None, None]);
        assert_eq!(state, State::False);
        assert!(message.starts_with("the backup service has 13 damaged things: a, b, key-table, ...;"), "{message}");
        let (state, message) = judged(good, [Some(&Unchecked), Some(&damaged(&["leaf 7"], 1))]);
        assert_eq!(state, State::False, "what is damaged is told before the scrub has come to its end");
        assert!(message.starts_with("the audit service has 1 damaged thing: leaf 7;"), "{message}");
    }

    #[test]
    fn policies_that_are_not_in_force_are_named() {
        let fault = |object: &str, wrong| Fault { object: object.into(), wrong };
        let judged = |faults: Vec<Fault>| in_force(Some(&Policies { faults }), true).unwrap();
        assert_eq!(judged(Vec::new()).reason, "InForce");
        let both = judged(vec![fault("A", Wrong::Changed), fault("B", Wrong::Missing)]);
        assert_eq!((both.state, both.reason.as_str()), (State::False, "PoliciesMissing"));
        assert!(both.message.starts_with("missing: B; changed: A;"), "{}", both.message);
        assert_eq!(judged(vec![fault("A", Wrong::Changed)]).reason, "PoliciesChanged");
    }
}
