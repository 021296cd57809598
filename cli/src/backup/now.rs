//! `tsujiban backup now`: a Job from the group's CronJob, and its result.

use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde::Serialize;
use tokio::time::sleep;
use tsujiban_api::{Device, Tenant, names};
use tsujiban_core::id::GroupId;

use super::job::from_cron_job;
use super::outcome::{Attempt, JobState, all_reported, attempts, job_state, not_stored, pod_state, service_faults, summary, table};
use crate::cluster::{Cluster, ClusterError, Right, ask};
use crate::exit::{ExitCode, Verdict};
use crate::failure::Failure;
use crate::output::{Answer, Format, escape_line, escape_text};
use crate::progress::Progress;

/// How often the Job is read.
const LOOK: Duration = Duration::from_secs(1);
/// How much longer than its deadline a Job is waited for. Kubernetes ends it at the deadline.
const GRACE: Duration = Duration::from_mins(2);
/// The deadline of a Job that names none: the longest window.
const NO_DEADLINE: Duration = Duration::from_hours(12);
/// How long the operator has to write the devices' results into their status, even when it has just started.
const REPORTING: Duration = Duration::from_mins(1);
/// The same when the Job failed: a result may be missing for good.
const REPORTING_AFTER_FAILURE: Duration = Duration::from_secs(10);

/// Why no backup ran.
#[derive(Debug, thiserror::Error)]
pub enum NowError {
    #[error("there is no group {0}; the groups: kubectl get tenants")]
    NoGroup(GroupId),
    #[error(
        "group {0} is suspended, so its devices are not talked to; resume it first: kubectl patch tenant {0} --type merge -p '{{\"spec\":{{\"suspended\":false}}}}'"
    )]
    Suspended(GroupId),
    #[error("group {0} is being deleted, so nothing of it is backed up any more")]
    Deleting(GroupId),
    #[error("group {0} has no CronJob {cron_job} yet; the operator makes it, and says what keeps it: kubectl describe tenant {0}", cron_job = names::CRONJOB)]
    NoCronJob(GroupId),
    #[error("Job {namespace}/{job} was deleted while it was waited for; run the command again")]
    Gone { namespace: String, job: String },
    #[error("Job {namespace}/{job} has not ended by its deadline; look at it with: kubectl -n {namespace} describe job {job}")]
    Endless { namespace: String, job: String },
}

impl ExitCode for NowError {}

/// The result of a backup.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    namespace: String,
    job: String,
    /// `None`: the command did not wait for the Job.
    succeeded: Option<bool>,
    /// Why the Job failed.
    failure: Option<String>,
    summary: Option<String>,
    devices: Vec<Attempt>,
    /// Why services cannot store, by the group's conditions.
    faults: Vec<String>,
}

/// The group's objects in the cluster.
struct GroupObjects<'a> {
    cluster: &'a Cluster,
    namespace: String,
}

/// Backs a group up. `suffix` makes the Job's name one of its own.
pub async fn now(cluster: &Cluster, group: &GroupId, wait: bool, suffix: &str, format: Format) -> Result<Answer, Failure> {
    refuse_unready(cluster, group).await?;
    let objects = GroupObjects { cluster, namespace: names::namespace(group) };
    let cron_jobs: Api<CronJob> = objects.api();
    let cron_job = ask(objects.right("get", "cronjobs"), cron_jobs.get_opt(names::CRONJOB)).await?;
    let job = from_cron_job(cron_job.ok_or_else(|| NowError::NoCronJob(group.clone()))?, suffix);
    let jobs: Api<Job> = objects.api();
    let job = ask(objects.right("create", "jobs"), jobs.create(&PostParams::default(), &job)).await?;
    let name = job.metadata.name.clone().unwrap_or_default();
    let mut outcome = Outcome {
        namespace: objects.namespace.clone(),
        job: name,
        succeeded: None,
        failure: None,
        summary: None,
        devices: Vec::new(),
        faults: Vec::new(),
    };
    if wait {
        objects.finish(&job, &mut outcome).await?;
        if !not_stored(&outcome.devices).is_empty() {
            let tenants: Api<Tenant> = Api::all(cluster.client.clone());
            // a failure to read the Tenant must not hide the result of the backup
            outcome.faults = tenants.get_opt(group.as_str()).await.ok().flatten().as_ref().map(service_faults).unwrap_or_default();
        }
    }
    let verdict = outcome.verdict();
    Ok(Answer::new(format, &outcome, text)?.with(verdict))
}

impl Outcome {
    fn verdict(&self) -> Verdict {
        match (self.succeeded, &self.failure) {
            // the command did not wait, so the result is unknown
            (None, None) => Verdict::Good,
            _ if !not_stored(&self.devices).is_empty() => Verdict::NotStored,
            (_, Some(_)) => Verdict::Failed,
            (Some(_), None) => Verdict::Good,
        }
    }
}

async fn refuse_unready(cluster: &Cluster, group: &GroupId) -> Result<(), Failure> {
    let tenants: Api<Tenant> = Api::all(cluster.client.clone());
    let tenant = ask(Right::new("get", "tenants", ""), tenants.get_opt(group.as_str())).await?;
    let tenant = tenant.ok_or_else(|| NowError::NoGroup(group.clone()))?;
    if tenant.metadata.deletion_timestamp.is_some() {
        return Err(NowError::Deleting(group.clone()).into());
    }
    if tenant.spec.suspended {
        return Err(NowError::Suspended(group.clone()).into());
    }
    Ok(())
}

impl GroupObjects<'_> {
    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.cluster.client.clone(), &self.namespace)
    }

    fn right(&self, verb: &'static str, resource: &'static str) -> Right {
        Right::new(verb, resource, &self.namespace)
    }

    /// Waits for the Job, then reads its summary and the results of the devices.
    async fn finish(&self, job: &Job, outcome: &mut Outcome) -> Result<(), Failure> {
        let mut progress = Progress::on_stderr();
        let end = self.wait(job, &outcome.job, &mut progress).await?;
        outcome.summary = summary(&self.pods(&outcome.job).await?);
        outcome.succeeded = Some(end == JobState::Succeeded);
        if let JobState::Failed(reason) = end {
            outcome.failure = Some(reason);
        }
        progress.say("waiting for the devices' results");
        let start = job.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let devices: Api<Device> = self.api();
        let deadline = Instant::now() + if outcome.failure.is_none() { REPORTING } else { REPORTING_AFTER_FAILURE };
        loop {
            let listed = ask(self.right("list", "devices"), devices.list(&ListParams::default())).await?;
            outcome.devices = attempts(listed.items, start);
            if all_reported(&outcome.devices) || Instant::now() >= deadline {
                return Ok(());
            }
            sleep(LOOK).await;
        }
    }

    async fn wait(&self, job: &Job, name: &str, progress: &mut Progress) -> Result<JobState, Failure> {
        let jobs: Api<Job> = self.api();
        let limit = job.spec.as_ref().and_then(|spec| spec.active_deadline_seconds).and_then(|seconds| u64::try_from(seconds).ok());
        let (begin, limit) = (Instant::now(), limit.map_or(NO_DEADLINE, Duration::from_secs) + GRACE);
        while begin.elapsed() < limit {
            let job = ask(self.right("get", "jobs"), jobs.get_opt(name)).await?;
            let gone = || NowError::Gone { namespace: self.namespace.clone(), job: name.to_owned() };
            match job_state(&job.ok_or_else(gone)?) {
                JobState::Waiting | JobState::Running => {}
                ended => return Ok(ended),
            }
            let doing = pod_state(&self.pods(name).await?);
            progress.say(&format!("{name}: {doing} ({} s)", begin.elapsed().as_secs()));
            sleep(LOOK).await;
        }
        Err(NowError::Endless { namespace: self.namespace.clone(), job: name.to_owned() }.into())
    }

    async fn pods(&self, job: &str) -> Result<Vec<Pod>, ClusterError> {
        let pods: Api<Pod> = self.api();
        let of_job = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"));
        Ok(ask(self.right("list", "pods"), pods.list(&of_job)).await?.items)
    }
}

fn text(outcome: &Outcome) -> String {
    let Outcome { namespace, job, .. } = outcome;
    let mut text = match (outcome.succeeded, &outcome.failure) {
        (None, _) => return format!("Job {namespace}/{job} is started. Follow it with: kubectl -n {namespace} logs -f job/{job}\n"),
        (Some(_), None) => String::new(),
        (Some(_), Some(reason)) => {
            format!("Job {namespace}/{job} FAILED: {}. Look at it with: kubectl -n {namespace} logs job/{job}\n", escape_text(reason))
        }
    };
    if let Some(summary) = &outcome.summary {
        text.push_str(&escape_text(summary));
        text.push_str("\n\n");
    }
    text + &match outcome.devices.as_slice() {
        [] => format!("The group has no devices. Declare some in namespace {namespace}.\n"),
        devices => table(devices) + &missing(devices, &outcome.faults),
    }
}

/// Which configs are not stored, and what to do.
fn missing(devices: &[Attempt], faults: &[String]) -> String {
    let missing = not_stored(devices);
    if missing.is_empty() {
        return String::new();
    }
    let (count, names) = (missing.len(), escape_line(&missing.join(", ")));
    let expected = devices.iter().filter(|device| device.expected).count();
    let mut text = format!("NOT STORED: {count} of {expected}: {names}. MESSAGE says why; then run the command again.\n");
    for fault in faults {
        text.push_str(&escape_line(fault));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
