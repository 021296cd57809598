//! Polls the services for their reports. What follows for groups without a Tenant is in [`retained`](crate::retained).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tsujiban_api::Device;
use tsujiban_core::clock::Clock;
use tsujiban_core::error::chain;
use tsujiban_core::workload::Service;
use tsujiban_proto::error::CANNOT_WRITE;
use tsujiban_proto::lifecycle::v1::ReportResponse;

use crate::cache::Cache;
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::retained::RetainedGroups;
use crate::services::Services;
use crate::services::client::{CallError, ServiceClient};
use crate::state::reports::{Facts, Reports};

const EVERY: Duration = Duration::from_secs(30);
/// How often a service is polled while it does not answer, and after how many failed calls it counts as unreachable: a single failed call
/// is no outage, and an outage is reported within a minute.
const WHILE_AWAY: Duration = Duration::from_secs(10);
const AWAY_AFTER: u32 = 2;

/// Polls the services.
pub struct ReportPoller {
    pub services: Arc<Services>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub devices: Cache<Device>,
    /// Devices are reconciled when a service has erased their data.
    pub device_queue: Queue<Device>,
    pub retained: RetainedGroups,
    pub reports: watch::Sender<Reports>,
}

impl ReportPoller {
    /// Polls one service for ever.
    pub async fn run(self: Arc<Self>, service: Service) {
        let Some(client) = self.services.find(service) else { return std::future::pending().await };
        let mut missed = 0;
        loop {
            let report = match self.ask(client).await {
                Ok(report) => report,
                Err(error) => {
                    let reason = unable(&error);
                    missed = if reason.is_some() { 0 } else { missed + 1 };
                    match reason {
                        Some(reason) => drop(self.reports.send_if_modified(|known| known.refuse(service, reason))),
                        None if missed >= AWAY_AFTER => drop(self.reports.send_if_modified(|known| known.miss(service))),
                        None => {}
                    }
                    sleep(WHILE_AWAY).await;
                    continue;
                }
            };
            let was_missed = std::mem::take(&mut missed) > 0;
            let facts = Arc::new(Facts::from_wire(&report, self.clock.now()));
            if service == Service::Backup {
                self.metrics.canary_passed.set(i64::from(report.canary.is_some_and(|canary| canary.passed)));
            }
            // a service that answers again is a change, too: reconciles that waited for it need not wait longer
            self.reports.send_if_modified(|known| known.take(service, Arc::clone(&facts)) | was_missed);
            // a Device that was deleted as intended has a digest as well, but is no longer in the cache
            self.devices.list().iter().filter(|device| facts.is_erased(device)).for_each(|device| self.device_queue.add(device));
            self.retained.settle(service).await;
            sleep(EVERY).await;
        }
    }

    async fn ask(&self, client: &ServiceClient) -> Result<ReportResponse, CallError> {
        let service = client.service;
        let report = client.report().await;
        self.metrics.service_up(service, report.is_ok());
        report.inspect_err(|error| tracing::warn!(error = chain(error), "the {service} did not report; trying again in 10 s"))
    }
}

/// The reason that a service gives when it answers but cannot report.
fn unable(error: &CallError) -> Option<String> {
    match error {
        CallError::Service { error, .. } if error.reason == CANNOT_WRITE => Some(error.message.clone()),
        _ => None,
    }
}
