//! What the backup service reports, polled: which groups it holds, whether the storage keeps its promise, which epoch keys are in
//! use. What follows from it for groups without a Tenant is in [`retained`](crate::retained).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tsujiban_core::id::{GroupId, IncarnationId, KeyId};
use tsujiban_proto::lifecycle::v1::{GroupState, ReportResponse};

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
        }
    }

    /// Whether another report says the same at another time.
    pub fn says_the_same(&self, other: &Self) -> bool {
        (&self.groups, &self.canary_failure, &self.epochs_in_use) == (&other.groups, &other.canary_failure, &other.epochs_in_use)
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
        };
        let facts = Facts::from_wire(&report, Timestamp::UNIX_EPOCH);
        assert_eq!(facts.state(&"acme".parse().unwrap(), &incarnation.parse().unwrap()), Some(GroupState::Erased));
        assert_eq!((facts.groups.len(), facts.epochs_in_use.len()), (1, 1));
        assert_eq!(facts.canary_failure.as_deref(), Some("a locked version could be deleted"));
    }
}
