//! What the backup service reports, polled: which groups it holds, whether the storage keeps its promise, which epoch keys are in
//! use. What follows from it for groups without a Tenant is in [`retained`](crate::retained).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use tokio::sync::watch;
use tsujiban_api::Device;
use tsujiban_core::id::{GroupId, IncarnationId, KeyId};
use tsujiban_proto::lifecycle::v1::{GroupState, ReportResponse};
use uuid::Uuid;

use crate::context::Context;
use crate::errors::chain;
use crate::retained;

const EVERY: Duration = Duration::from_secs(30);

/// One report, in the words of the domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub at: Timestamp,
    pub groups: BTreeMap<(GroupId, IncarnationId), GroupState>,
    /// Why the storage does not keep its promise; `None` when it does, or when it has not been tried yet.
    pub canary_failure: Option<String>,
    pub epochs_in_use: BTreeSet<KeyId>,
    /// Devices whose data was erased, as digests of their uids.
    pub erased_devices: BTreeSet<Vec<u8>>,
}

impl Facts {
    /// Entries that are not understood are left out: nothing is decided by them.
    pub fn from_wire(report: &ReportResponse, at: Timestamp) -> Self {
        let groups = report.groups.iter().filter_map(|group| {
            let key = (group.group.parse().ok()?, group.incarnation.parse().ok()?);
            Some((key, group.state()))
        });
        let failed = report.canary.as_ref().filter(|canary| !canary.passed);
        Self {
            at,
            groups: groups.collect(),
            canary_failure: failed.map(|canary| canary.detail.clone()),
            epochs_in_use: report.epochs_in_use.iter().filter_map(|id| id.parse().ok()).collect(),
            erased_devices: report.erased_devices.iter().cloned().collect(),
        }
    }

    /// Whether another report says the same at another time.
    pub fn says_the_same(&self, other: &Self) -> bool {
        *self == Self { at: self.at, ..other.clone() }
    }

    /// Whether the data of this very Device was erased, so that only a restored cluster can have brought it back.
    pub fn is_erased(&self, device: &Device) -> bool {
        let uid = device.metadata.uid.as_deref().and_then(|uid| uid.parse::<Uuid>().ok());
        !self.erased_devices.is_empty() && uid.is_some_and(|uid| self.erased_devices.contains(digest(&SHA256, uid.as_bytes()).as_ref()))
    }

    pub fn state(&self, group: &GroupId, incarnation: &IncarnationId) -> Option<GroupState> {
        self.groups.get(&(group.clone(), incarnation.clone())).copied()
    }
}

/// Polls the service for ever.
pub async fn poll(context: Arc<Context>, facts: watch::Sender<Option<Arc<Facts>>>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut was_away = false;
    loop {
        ticks.tick().await;
        let report = match context.backup.report().await {
            Ok(report) => report,
            Err(error) => {
                was_away = true;
                context.metrics.backup_service_up.set(0);
                tracing::warn!(error = chain(&error), "the backup service did not report; trying again in 30 s");
                continue;
            }
        };
        context.metrics.backup_service_up.set(1);
        let news = Arc::new(Facts::from_wire(&report, context.clock.now()));
        context.metrics.canary_passed.set(i64::from(report.canary.is_some_and(|canary| canary.passed)));
        facts.send_if_modified(|known| {
            // a service that is back is news, too: what waited for it need not wait longer
            let is_news = std::mem::take(&mut was_away) || known.as_ref().is_none_or(|known| !known.says_the_same(&news));
            *known = Some(Arc::clone(&news));
            is_news
        });
        // one that is deleted leaves a digest behind, too; it is not there any more
        context.devices.state().iter().filter(|device| news.is_erased(device)).for_each(|device| context.wake_device(device));
        retained::settle(&context, &news).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tsujiban_proto::lifecycle::v1::{Canary, GroupReport};

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
            erased_devices: Vec::new(),
        };
        let facts = Facts::from_wire(&report, Timestamp::UNIX_EPOCH);
        assert_eq!(facts.state(&"acme".parse().unwrap(), &incarnation.parse().unwrap()), Some(GroupState::Erased));
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
}
