//! What the services reported last: which groups each of them holds, whether the storage's canary passed, which epoch keys are in use.

mod storage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use ring::digest::{SHA256, digest};
use tsujiban_api::Device;
use tsujiban_core::id::{GroupId, IncarnationId, KeyId};
use tsujiban_core::workload::Service;
use tsujiban_proto::lifecycle::v1::{GroupReport, GroupState, ReportResponse};
use uuid::Uuid;

pub use self::storage::{Integrity, Writing};

/// An older report does not prove which epoch keys are in use now.
const LIFE: SignedDuration = SignedDuration::from_mins(2);

/// What each service reported last.
#[derive(Debug, Clone, Default)]
pub struct Reports {
    latest: BTreeMap<Service, Arc<Facts>>,
    /// Services that do not answer.
    away: BTreeSet<Service>,
    /// Services that answer but cannot report, and the reason that they give.
    unable: BTreeMap<Service, String>,
}

impl Reports {
    /// What a service reported last, however long ago.
    pub fn of(&self, service: Service) -> Option<&Arc<Facts>> {
        self.latest.get(&service)
    }

    /// Stores a report. Returns whether something changed, such as that the service answers again.
    pub fn take(&mut self, service: Service, facts: Arc<Facts>) -> bool {
        let is_news = self.of(service).is_none_or(|known| !known.says_the_same(&facts));
        self.latest.insert(service, facts);
        self.unable.remove(&service).is_some() | self.away.remove(&service) | is_news
    }

    /// Notes that a service does not answer. Returns whether that is new.
    pub fn miss(&mut self, service: Service) -> bool {
        self.unable.remove(&service).is_some() | self.away.insert(service)
    }

    /// Notes that a service answers but cannot report, and why. Returns whether that is new.
    pub fn refuse(&mut self, service: Service, why: String) -> bool {
        let is_news = self.unable.get(&service) != Some(&why);
        self.unable.insert(service, why);
        self.away.remove(&service) | is_news
    }

    /// The reason that a service gives when it cannot report.
    pub fn unable(&self, service: Service) -> Option<&str> {
        self.unable.get(&service).map(String::as_str)
    }

    pub fn is_away(&self, service: Service) -> bool {
        self.away.contains(&service)
    }

    pub fn state(&self, service: Service, group: &GroupId, incarnation: &IncarnationId) -> Option<GroupState> {
        self.of(service)?.groups.get(&(group.clone(), incarnation.clone())).copied()
    }

    /// Whether some service that reported later than `after` does not hold the group as living.
    pub fn deny(&self, group: &GroupId, incarnation: &IncarnationId, after: Timestamp) -> bool {
        let key = (group.clone(), incarnation.clone());
        self.latest.values().filter(|facts| facts.at > after).any(|facts| facts.groups.get(&key) != Some(&GroupState::Living))
    }

    /// Why the storage's canary failed; `None` if it passed, or if no service has reported on it.
    pub fn canary_failure(&self) -> Option<&str> {
        self.latest.values().find_map(|facts| facts.canary_failure.as_deref())
    }

    /// Whether the clock of the operation history follows a precise source; `None` until the audit service reports it.
    pub fn clock_synchronised(&self) -> Option<bool> {
        self.of(Service::Audit)?.clock_synchronised
    }

    /// Whether the data of this Device object (by UID) was erased. The object can then only come from a restored cluster.
    pub fn is_erased(&self, device: &Device) -> bool {
        self.latest.values().any(|facts| facts.is_erased(device))
    }

    /// The epoch keys that each service wraps with according to its last report, however old.
    pub fn epochs_last_reported(&self) -> Vec<&BTreeSet<KeyId>> {
        self.latest.values().map(|facts| &facts.epochs_in_use).collect()
    }

    /// The epoch keys that each of these services wraps with. `None` if one of them has not reported lately.
    pub fn epochs_in_use(&self, services: &[Service], now: Timestamp) -> Option<Vec<&BTreeSet<KeyId>>> {
        let fresh = |facts: &&Arc<Facts>| now.duration_since(facts.at) <= LIFE;
        services.iter().map(|service| self.of(*service).filter(fresh).map(|facts| &facts.epochs_in_use)).collect()
    }
}

/// One report, in the types of the domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub at: Timestamp,
    pub groups: BTreeMap<(GroupId, IncarnationId), GroupState>,
    /// Why the storage's canary failed; `None` if it passed, or has not run yet.
    pub canary_failure: Option<String>,
    pub epochs_in_use: BTreeSet<KeyId>,
    /// Devices whose data was erased, as digests of their uids.
    pub erased_devices: BTreeSet<Vec<u8>>,
    /// Whether the service's clock follows a precise source; `None` if it does not report that.
    pub clock_synchronised: Option<bool>,
    /// Whether the service can write; `None` if it does not report that.
    pub writing: Option<Writing>,
    /// Whether the data that belongs to no group is intact; `None` if the service does not report that.
    pub shared_integrity: Option<Integrity>,
    /// The same for the data of each group.
    pub integrity: BTreeMap<(GroupId, IncarnationId), Integrity>,
    /// Whether the service can write for a group, if it reports that separately.
    pub group_writing: BTreeMap<(GroupId, IncarnationId), Writing>,
}

impl Facts {
    /// Entries that cannot be parsed are left out: no decision depends on them.
    pub fn from_wire(report: &ReportResponse, at: Timestamp) -> Self {
        let key = |group: &GroupReport| Some((group.group.parse().ok()?, group.incarnation.parse().ok()?));
        let groups = report.groups.iter().filter_map(|group| Some((key(group)?, group.state())));
        let integrity = report.groups.iter().filter_map(|group| Some((key(group)?, Integrity::from_wire(group.integrity.as_ref()?))));
        let group_writing = report.groups.iter().filter_map(|group| Some((key(group)?, Writing::from_wire(group.writing.as_ref()?))));
        let failed = report.canary.as_ref().filter(|canary| !canary.passed);
        Self {
            at,
            groups: groups.collect(),
            canary_failure: failed.map(|canary| canary.detail.clone()),
            epochs_in_use: report.epochs_in_use.iter().filter_map(|id| id.parse().ok()).collect(),
            erased_devices: report.erased_devices.iter().cloned().collect(),
            clock_synchronised: report.clock_synchronised,
            writing: report.writing.as_ref().map(Writing::from_wire),
            shared_integrity: report.shared_integrity.as_ref().map(Integrity::from_wire),
            integrity: integrity.collect(),
            group_writing: group_writing.collect(),
        }
    }

    /// The incarnation under which the service has the group without having erased it. There is at most one.
    pub fn standing(&self, group: &GroupId) -> Option<&IncarnationId> {
        let is_it = |((known, _), state): &(&(GroupId, IncarnationId), &GroupState)| known == group && **state != GroupState::Erased;
        let from = self.groups.range((group.clone(), IncarnationId::from_bytes([0; 16]))..);
        from.take_while(|((known, _), _)| known == group).find(is_it).map(|((_, incarnation), _)| incarnation)
    }

    /// Whether two reports are equal except for their times.
    pub fn says_the_same(&self, other: &Self) -> bool {
        *self == Self { at: self.at, ..other.clone() }
    }

    /// Whether the data of this Device object (by UID) was erased. The object can then only come from a restored cluster.
    pub fn is_erased(&self, device: &Device) -> bool {
        let uid = device.metadata.uid.as_deref().and_then(|uid| uid.parse::<Uuid>().ok());
        !self.erased_devices.is_empty() && uid.is_some_and(|uid| self.erased_devices.contains(digest(&SHA256, uid.as_bytes()).as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tsujiban_proto::lifecycle::v1::Canary;

    #[test]
    fn the_wire_is_read() {
        let incarnation = "0".repeat(32);
        let known = GroupReport {
            group: "acme".into(),
            incarnation: incarnation.clone(),
            state: GroupState::Erased.into(),
            ..GroupReport::default()
        };
        let strange = GroupReport { group: "../x".into(), ..known.clone() };
        let report = ReportResponse {
            groups: vec![known, strange],
            canary: Some(Canary { passed: false, detail: "a locked version could be deleted".into(), checked_at: None }),
            epochs_in_use: vec!["1".repeat(32), "x".into()],
            ..ReportResponse::default()
        };
        let facts = Facts::from_wire(&report, Timestamp::UNIX_EPOCH);
        let mut reports = Reports::default();
        reports.take(Service::Backup, Arc::new(facts.clone()));
        let state = |service| reports.state(service, &"acme".parse().unwrap(), &incarnation.parse().unwrap());
        assert_eq!((state(Service::Backup), state(Service::Audit)), (Some(GroupState::Erased), None));
        assert_eq!((facts.groups.len(), facts.epochs_in_use.len()), (1, 1));
        assert_eq!(facts.canary_failure.as_deref(), Some("a locked version could be deleted"));
    }

    /// C24: a Device is known by the digest of its uid, and by nothing else.
    #[test]
    fn an_erased_device_is_recognised() {
        let uid = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
        let erased = digest(&SHA256, uid.parse::<Uuid>().unwrap().as_bytes()).as_ref().to_vec();
        let facts = Facts::from_wire(&ReportResponse { erased_devices: vec![erased], ..ReportResponse::default() }, Timestamp::UNIX_EPOCH);
        let device = |uid: Option<&str>| -> Device {
            serde_json::from_value(serde_json::json!({
                "apiVersion": "tsujiban.dev/v1alpha1", "kind": "Device", "metadata": {"name": "r1", "uid": uid},
                "spec": {"siteRef": {"name": "s"}, "serialNumber": "S1", "driver": "Frr", "connection": {"host": "192.0.2.1"}},
            }))
            .unwrap()
        };
        assert!(facts.is_erased(&device(Some(uid))));
        assert!(!facts.is_erased(&device(Some("00000000-0000-0000-0000-000000000000"))) && !facts.is_erased(&device(None)));
    }

    /// An epoch key is destroyed by what all say, and by nothing that was said long ago.
    #[test]
    fn epoch_keys_are_known_only_when_every_service_has_said_so_lately() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let facts = |second: i64| {
            let report = ReportResponse { epochs_in_use: vec!["1".repeat(32)], ..ReportResponse::default() };
            Arc::new(Facts::from_wire(&report, at(second)))
        };
        let both = [Service::Backup, Service::Audit];
        let mut reports = Reports::default();
        reports.take(Service::Backup, facts(1000));
        assert_eq!(reports.epochs_in_use(&[Service::Backup], at(1000)).map(|sets| sets.len()), Some(1));
        assert!(reports.epochs_in_use(&both, at(1000)).is_none(), "audit has not said");
        reports.take(Service::Audit, facts(1000));
        assert_eq!(reports.epochs_in_use(&both, at(1120)).map(|sets| sets.len()), Some(2));
        reports.take(Service::Backup, facts(1120));
        assert!(reports.epochs_in_use(&both, at(1121)).is_none(), "audit said so too long ago");
    }

    /// C20: the times that matter are the history's.
    #[test]
    fn the_clock_is_the_one_of_the_audit_service_and_its_change_is_news() {
        let facts = |clock_synchronised| {
            Arc::new(Facts::from_wire(&ReportResponse { clock_synchronised, ..ReportResponse::default() }, Timestamp::UNIX_EPOCH))
        };
        let mut reports = Reports::default();
        assert!(reports.take(Service::Backup, facts(Some(true))));
        assert_eq!(reports.clock_synchronised(), None);
        assert!(reports.take(Service::Audit, facts(Some(true))));
        assert!(!reports.take(Service::Audit, facts(Some(true))));
        assert!(reports.take(Service::Audit, facts(Some(false))));
        assert_eq!(reports.clock_synchronised(), Some(false));
    }

    #[test]
    fn the_same_at_another_time_is_no_news() {
        let facts = |second: i64, epochs: &[&str]| {
            let epochs_in_use = epochs.iter().map(|digit| digit.repeat(32)).collect();
            Arc::new(Facts::from_wire(
                &ReportResponse { epochs_in_use, ..ReportResponse::default() },
                Timestamp::from_second(second).unwrap(),
            ))
        };
        let mut reports = Reports::default();
        assert!(reports.take(Service::Backup, facts(1, &["1"])));
        assert!(!reports.take(Service::Backup, facts(2, &["1"])));
        assert!(reports.take(Service::Audit, facts(2, &["1"])));
        assert!(reports.take(Service::Backup, facts(3, &["2"])));
    }

    #[test]
    fn an_absence_and_a_return_are_news_once() {
        let facts = Arc::new(Facts::from_wire(&ReportResponse::default(), Timestamp::UNIX_EPOCH));
        let mut reports = Reports::default();
        assert!(reports.take(Service::Audit, Arc::clone(&facts)));
        assert!(reports.miss(Service::Audit) && !reports.miss(Service::Audit));
        assert!(reports.is_away(Service::Audit) && !reports.is_away(Service::Backup));
        assert!(reports.of(Service::Audit).is_some(), "what it said last is still known");
        assert!(reports.take(Service::Audit, Arc::clone(&facts)) && !reports.take(Service::Audit, facts));
    }
}
