//! The one CronJob that backs up all devices of a group.

use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, JobSpec, JobTemplateSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tsujiban_api::names::{COMPONENT_COLLECTOR, CRONJOB, LABEL_COMPONENT, LABEL_TENANT};

use super::{Blueprint, collector_pod, labels};

/// A finished Job stays this long, for people to look at.
const KEEP_FINISHED_SECONDS: i32 = 2 * 24 * 3600;
const KEEP_FINISHED: i32 = 3;

pub fn cron_job(blueprint: &Blueprint) -> CronJob {
    let tenant = &blueprint.tenant;
    let (schedule, minutes_left) = tenant.plan.own(tenant.id.group.as_str());
    let window_seconds = i64::from(minutes_left.max(1)) * 60;
    let labels = [(LABEL_COMPONENT, COMPONENT_COLLECTOR), (LABEL_TENANT, tenant.id.group.as_str())];
    let labels = ObjectMeta { labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()), ..ObjectMeta::default() };
    let job = JobSpec {
        active_deadline_seconds: Some(window_seconds),
        // one retry when the pod was lost, such as with its node; failures of devices never fail the Job
        backoff_limit: Some(1),
        ttl_seconds_after_finished: Some(KEEP_FINISHED_SECONDS),
        template: PodTemplateSpec { metadata: Some(labels.clone()), spec: Some(collector_pod::pod(blueprint, window_seconds)) },
        ..JobSpec::default()
    };
    CronJob {
        metadata: labels::object(&tenant.id, CRONJOB),
        spec: CronJobSpec {
            schedule,
            time_zone: Some(tenant.plan.time_zone().to_owned()),
            suspend: Some(tenant.suspended),
            concurrency_policy: Some("Forbid".to_owned()),
            // a missed start is made up for only in the first half of the window
            starting_deadline_seconds: Some((window_seconds / 2).max(30)),
            successful_jobs_history_limit: Some(KEEP_FINISHED),
            failed_jobs_history_limit: Some(KEEP_FINISHED),
            job_template: JobTemplateSpec { metadata: Some(labels), spec: Some(job) },
        },
        status: None,
    }
}
