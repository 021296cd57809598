//! Polls the outcomes of backup attempts, and queues the Devices whose outcome has changed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use tokio::sync::watch;
use tsujiban_api::{Device, names};
use tsujiban_core::error::chain;
use tsujiban_core::id::{GroupId, IncarnationId};
use tsujiban_core::workload::Service;

use crate::cache::Cache;
use crate::queue::Queue;
use crate::services::Services;
use crate::services::client::CallError;
use crate::state::attempts::{AttemptCache, Key, Record};
use crate::state::reports::Reports;

const EVERY: Duration = Duration::from_secs(10);

/// Polls the backup service.
pub struct AttemptPoller {
    pub services: Arc<Services>,
    /// They say which incarnation of its group an attempt belongs to.
    pub reports: watch::Receiver<Reports>,
    pub attempts: Arc<AttemptCache>,
    pub devices: Cache<Device>,
    pub device_queue: Queue<Device>,
}

impl AttemptPoller {
    /// Polls for ever. Losing the cursor, as in a restart, costs one read of all attempts and no write.
    pub async fn run(self) {
        let mut cursor = 0;
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            loop {
                match self.page(cursor).await {
                    Ok(next) if next != cursor => cursor = next,
                    Ok(_) => break,
                    Err(error) => {
                        tracing::debug!(error = chain(&error), "the outcomes of attempts could not be read");
                        break;
                    }
                }
            }
        }
    }

    async fn page(&self, cursor: u64) -> Result<u64, CallError> {
        let answer = self.services.get(Service::Backup)?.attempts(cursor).await?;
        let mut reached = answer.cursor;
        let mut changed: HashSet<Key> = HashSet::new();
        for attempt in &answer.attempts {
            let Some(device) = &attempt.device else { continue };
            let (Some(record), Ok(group)) = (Record::from_wire(attempt), device.group.parse()) else {
                tracing::warn!(group = device.group, "the backup service sent an attempt that is not understood");
                continue;
            };
            match life(&self.reports.borrow(), &group, record.time) {
                Life::Known(incarnation) => {
                    if self.attempts.put(&incarnation, &device.serial, record) {
                        changed.insert((incarnation, device.serial.clone()));
                    }
                }
                Life::Gone => {}
                Life::NotReported => {
                    reached = attempt.cursor.saturating_sub(1).max(cursor); // read again once the service has reported
                    break;
                }
            }
        }
        if !changed.is_empty() {
            self.requeue(&changed);
        }
        // a service that lost its catalogue counts from the beginning again
        Ok(if answer.cursor < cursor { 0 } else { reached })
    }

    fn requeue(&self, changed: &HashSet<Key>) {
        for device in self.devices.list() {
            let group = device.namespace().as_deref().and_then(names::group_of_namespace);
            let incarnation = group.and_then(|group| self.reports.borrow().of(Service::Backup)?.standing(&group).cloned());
            if incarnation.is_some_and(|incarnation| changed.contains(&(incarnation, device.spec.serial_number.clone()))) {
                self.device_queue.add(&device);
            }
        }
    }
}

/// The incarnation of the group that an attempt was made for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Life {
    Known(IncarnationId),
    /// Its group is erased.
    Gone,
    /// The service has not reported since the attempt.
    NotReported,
}

/// Decides by the service's report: an attempt names only its group, and the service lists no attempts of an erased group.
fn life(reports: &Reports, group: &GroupId, made: Timestamp) -> Life {
    let Some(facts) = reports.of(Service::Backup) else { return Life::NotReported };
    match facts.standing(group) {
        Some(incarnation) => Life::Known(incarnation.clone()),
        None if facts.at > made => Life::Gone,
        None => Life::NotReported,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::reports::Facts;
    use tsujiban_proto::lifecycle::v1::{GroupReport, GroupState, ReportResponse};

    fn incarnation(digit: u8) -> IncarnationId {
        IncarnationId::from_bytes([digit; 16])
    }

    /// A group that was erased and made again under its name shows nothing of the earlier one.
    #[test]
    fn an_attempt_is_of_the_groups_present_life() {
        let group: GroupId = "acme".parse().unwrap();
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let judged = |groups: &[(u8, GroupState)], made: i64| {
            let reported = groups.iter().map(|(digit, state)| GroupReport {
                group: "acme".into(),
                incarnation: incarnation(*digit).to_string(),
                state: (*state).into(),
                ..GroupReport::default()
            });
            let report = ReportResponse { groups: reported.collect(), ..ReportResponse::default() };
            let mut reports = Reports::default();
            reports.take(Service::Backup, Arc::new(Facts::from_wire(&report, at(100))));
            life(&reports, &group, at(made))
        };
        assert_eq!(life(&Reports::default(), &group, at(1)), Life::NotReported);
        assert_eq!(judged(&[(1, GroupState::Living)], 50), Life::Known(incarnation(1)));
        assert_eq!(judged(&[(1, GroupState::Retained)], 50), Life::Known(incarnation(1)));
        assert_eq!(judged(&[(1, GroupState::Erased), (2, GroupState::Living)], 50), Life::Known(incarnation(2)));
        assert_eq!(judged(&[(1, GroupState::Erased)], 50), Life::Gone);
        assert_eq!(judged(&[(1, GroupState::Erased)], 150), Life::NotReported, "it may have been made again since");
    }
}
