//! Polls the services for their reports. What follows for groups without a Tenant is in [`retained`](crate::retained).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tsujiban_core::error::chain;
use tsujiban_core::workload::Service;
use tsujiban_proto::error::CANNOT_WRITE;
use tsujiban_proto::lifecycle::v1::ReportResponse;

use crate::context::Context;
use crate::retained;
use crate::services::client::{CallError, ServiceClient};
use crate::state::reports::{Facts, Reports};

const EVERY: Duration = Duration::from_secs(30);
/// The same while a service does not answer, and how often it must not answer until it counts as away: a call that failed once is no outage,
/// and an outage is told within a minute.
const WHILE_AWAY: Duration = Duration::from_secs(10);
const AWAY_AFTER: u32 = 2;

/// Polls one service for ever.
pub async fn poll(context: Arc<Context>, service: Service, reports: watch::Sender<Reports>) {
    let Some(client) = context.services.find(service) else { return std::future::pending().await };
    let mut missed = 0;
    loop {
        let report = match ask(&context, client).await {
            Ok(report) => report,
            Err(error) => {
                let reason = unable(&error);
                missed = if reason.is_some() { 0 } else { missed + 1 };
                match reason {
                    Some(reason) => drop(reports.send_if_modified(|known| known.refuse(service, reason))),
                    None if missed >= AWAY_AFTER => drop(reports.send_if_modified(|known| known.miss(service))),
                    None => {}
                }
                sleep(WHILE_AWAY).await;
                continue;
            }
        };
        let was_missed = std::mem::take(&mut missed) > 0;
        let news = Arc::new(Facts::from_wire(&report, context.clock.now()));
        if service == Service::Backup {
            context.metrics.canary_passed.set(i64::from(report.canary.is_some_and(|canary| canary.passed)));
        }
        // a service that is back is news, too: what waited for it need not wait longer
        reports.send_if_modified(|known| known.take(service, Arc::clone(&news)) | was_missed);
        // one that is deleted leaves a digest behind, too; it is not there any more
        context.devices.state().iter().filter(|device| news.is_erased(device)).for_each(|device| context.wake_device(device));
        retained::settle(&context, service).await;
        sleep(EVERY).await;
    }
}

async fn ask(context: &Context, client: &ServiceClient) -> Result<ReportResponse, CallError> {
    let service = client.service;
    let report = client.report().await;
    context.metrics.service_up(service, report.is_ok());
    report.inspect_err(|error| tracing::warn!(error = chain(error), "the {service} did not report; trying again in 10 s"))
}

/// What a service says that answers and cannot report.
fn unable(error: &CallError) -> Option<String> {
    match error {
        CallError::Service { error, .. } if error.reason == CANNOT_WRITE => Some(error.message.clone()),
        _ => None,
    }
}
