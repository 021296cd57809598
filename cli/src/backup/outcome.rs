//! Reads the result of a backup from its Job, its pod and the Devices. Pure.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerState, Pod};
use serde::Serialize;
use tsujiban_api::device::{LastAttempt, Lifecycle};
use tsujiban_api::{Device, Tenant};
use tsujiban_core::workload::Service;

use crate::output::{Align, Table, jst};

/// The state of a Job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    Waiting,
    Running,
    Succeeded,
    Failed(String),
}

/// The result of the last attempt of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    pub device: String,
    pub serial: String,
    /// When the attempt ended.
    pub time: Option<Timestamp>,
    pub result: Option<String>,
    pub message: Option<String>,
    /// When the config was last seen.
    pub last_backup: Option<Timestamp>,
    /// Whether the attempt is one of this backup.
    pub current: bool,
    /// Whether this backup stored the device's config, or saw that it is stored already.
    pub stored: bool,
    /// Whether the device is backed up at all.
    #[serde(skip)]
    pub expected: bool,
}

pub fn job_state(job: &Job) -> JobState {
    let Some(status) = &job.status else { return JobState::Waiting };
    for condition in status.conditions.iter().flatten().filter(|condition| condition.status == "True") {
        match condition.type_.as_str() {
            "Complete" => return JobState::Succeeded,
            "Failed" => {
                let reason = condition.reason.as_deref().unwrap_or("Failed");
                return JobState::Failed(format!("{reason}: {}", condition.message.as_deref().unwrap_or("no message")));
            }
            _ => {}
        }
    }
    if status.active.unwrap_or_default() > 0 { JobState::Running } else { JobState::Waiting }
}

/// What the newest pod of the Job is doing.
pub fn pod_state(pods: &[Pod]) -> String {
    let Some(pod) = newest(pods) else { return "waiting for the pod".to_owned() };
    let states = || container_states(pod);
    if let Some(waiting) = states().find_map(|state| state.waiting.as_ref())
        && let Some(reason) = waiting.reason.as_deref().filter(|reason| *reason != "ContainerCreating")
    {
        return format!("the pod cannot start: {reason}: {}", waiting.message.as_deref().unwrap_or_default());
    }
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    if let Some(unscheduled) = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False") {
        return format!("the pod finds no node: {}", unscheduled.message.as_deref().unwrap_or_default());
    }
    if states().any(|state| state.running.is_some()) { "collecting".to_owned() } else { "the pod is starting".to_owned() }
}

/// The summary that the collector left behind.
pub fn summary(pods: &[Pod]) -> Option<String> {
    let terminated = container_states(newest(pods)?).find_map(|state| state.terminated.as_ref())?;
    terminated.message.as_deref().map(str::trim_end).filter(|message| !message.is_empty()).map(str::to_owned)
}

fn newest(pods: &[Pod]) -> Option<&Pod> {
    pods.iter().max_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

fn container_states(pod: &Pod) -> impl Iterator<Item = &ContainerState> {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    statuses.iter().filter_map(|status| status.state.as_ref())
}

/// The last attempt of each device; those since `start` are of this backup.
pub fn attempts(devices: Vec<Device>, start: Option<Timestamp>) -> Vec<Attempt> {
    let attempt = |device: Device| {
        let status = device.status.unwrap_or_default();
        let last = status.last_attempt;
        let time = last.as_ref().map(|attempt| attempt.time.0);
        // without the start of this backup, no attempt can be assigned to it
        let stored = last.as_ref().is_some_and(LastAttempt::has_stored);
        let current = start.is_some_and(|start| time.is_some_and(|time| time >= start));
        Attempt {
            device: device.metadata.name.unwrap_or_default(),
            serial: device.spec.serial_number,
            time,
            result: last.as_ref().map(|attempt| attempt.result.clone()),
            message: last.and_then(|attempt| attempt.message),
            last_backup: status.last_backup.map(|backup| backup.time.0),
            current,
            stored: current && stored,
            expected: device.spec.backup.enabled && device.spec.lifecycle == Lifecycle::Active,
        }
    };
    devices.into_iter().map(attempt).collect()
}

/// Whether every device that is backed up shows an attempt of this backup.
pub fn all_reported(attempts: &[Attempt]) -> bool {
    attempts.iter().all(|attempt| attempt.current || !attempt.expected)
}

/// The devices whose configs this backup should have stored and did not, whatever the reason. A device without a result counts as not
/// stored.
pub fn not_stored(attempts: &[Attempt]) -> Vec<&str> {
    attempts.iter().filter(|attempt| attempt.expected && !attempt.stored).map(|attempt| attempt.device.as_str()).collect()
}

/// What the group's conditions say of services that cannot store.
pub fn service_faults(tenant: &Tenant) -> Vec<String> {
    let conditions = tenant.status.iter().flat_map(|status| &status.conditions);
    let faults =
        conditions.filter(|it| Service::ALL.iter().any(|service| service.row().can_write.condition == it.type_) && it.status == "False");
    faults.map(|it| format!("{}=False, {}: {}", it.type_, it.reason, it.message)).collect()
}

pub fn table(attempts: &[Attempt]) -> String {
    let mut table = Table::new([
        ("DEVICE", Align::Left),
        ("RESULT", Align::Left),
        ("LAST ATTEMPT", Align::Left),
        ("LAST BACKUP", Align::Left),
        ("MESSAGE", Align::Left),
    ]);
    for attempt in attempts {
        let message = attempt.message.clone().unwrap_or_default();
        let message = match attempt {
            Attempt { current: true, .. } => message,
            Attempt { expected: false, .. } => "not backed up".to_owned(),
            Attempt { time: None, .. } => "not reported yet".to_owned(),
            Attempt { .. } => "not reported yet: this is an earlier attempt".to_owned(),
        };
        let result = attempt.result.clone().unwrap_or_default();
        table.row([attempt.device.clone(), result, jst(attempt.time), jst(attempt.last_backup), message]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job(status: &Value) -> JobState {
        job_state(&serde_json::from_value(json!({"metadata": {}, "status": status})).unwrap())
    }

    fn pod(created: &str, status: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"creationTimestamp": created}, "status": status})).unwrap()
    }

    fn container(state: &Value) -> Value {
        json!({"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}]})
    }

    #[test]
    fn a_job_ends_by_its_conditions() {
        assert_eq!(job_state(&Job::default()), JobState::Waiting);
        assert_eq!(job(&json!({"active": 1})), JobState::Running);
        assert_eq!(job(&json!({"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]})), JobState::Succeeded);
        let failed = json!({"conditions": [
            {"type": "FailureTarget", "status": "True"},
            {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "too long"}]});
        assert_eq!(job(&failed), JobState::Failed("DeadlineExceeded: too long".into()));
        assert_eq!(job(&json!({"active": 1, "conditions": [{"type": "Complete", "status": "False"}]})), JobState::Running);
    }

    #[test]
    fn what_keeps_a_pod_from_starting_is_said() {
        let pulling =
            pod("2026-11-23T00:00:00Z", &container(&json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}})));
        assert_eq!(pod_state(&[pulling]), "the pod cannot start: ImagePullBackOff: no such image");
        let creating = pod("2026-11-23T00:00:00Z", &container(&json!({"waiting": {"reason": "ContainerCreating"}})));
        assert_eq!(pod_state(&[creating]), "the pod is starting");
        let full = json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]});
        assert_eq!(pod_state(&[pod("2026-11-23T00:00:00Z", &full)]), "the pod finds no node: 0/1 nodes");
        assert_eq!(pod_state(&[]), "waiting for the pod");
    }

    #[test]
    fn the_summary_is_of_the_newest_pod() {
        let old = pod("2026-11-23T00:00:00Z", &container(&json!({"terminated": {"exitCode": 1, "message": "old"}})));
        let new = pod("2026-11-23T00:01:00Z", &container(&json!({"terminated": {"exitCode": 0, "message": "2 changed\n"}})));
        assert_eq!(summary(&[new, old]).as_deref(), Some("2 changed"));
        assert_eq!(summary(&[]), None);
    }

    fn device(name: &str, lifecycle: &str, attempt: Option<&str>) -> Device {
        ended(name, lifecycle, attempt.map(|time| (time, "Timeout")))
    }

    fn ended(name: &str, lifecycle: &str, attempt: Option<(&str, &str)>) -> Device {
        let mut device = json!({"apiVersion": "tsujiban.dev/v1alpha1", "kind": "Device", "metadata": {"name": name},
            "spec": {"siteRef": {"name": "tokyo"}, "serialNumber": "JN", "driver": "Frr", "connection": {"host": "192.0.2.1"},
                "lifecycle": lifecycle}, "status": {}});
        if let Some((time, result)) = attempt {
            device["status"]["lastAttempt"] = json!({"time": time, "result": result, "message": "no answer\u{1b}[2J within 10 s"});
        }
        serde_json::from_value(device).unwrap()
    }

    #[test]
    fn only_attempts_since_the_start_are_of_this_backup() {
        let start = "2026-11-23T00:00:00Z".parse().ok();
        let before = device("a", "Active", Some("2026-11-22T00:00:00Z"));
        let since = device("b", "Active", Some("2026-11-23T00:00:05Z"));
        let retired = device("c", "Retired", None);
        let never = device("d", "Active", None);
        assert!(!all_reported(&attempts(vec![before.clone(), since.clone()], start)));
        assert!(all_reported(&attempts(vec![since.clone(), retired.clone()], start)));
        assert!(!all_reported(&attempts(vec![never.clone()], start)));
        insta::assert_snapshot!(table(&attempts(vec![before, since, retired, never], start)), @r"
        DEVICE  RESULT   LAST ATTEMPT               LAST BACKUP  MESSAGE
        a       Timeout  2026-11-22T09:00:00+09:00  -            not reported yet: this is an earlier attempt
        b       Timeout  2026-11-23T09:00:05+09:00  -            no answer\u{1b}[2J within 10 s
        c       -        -                          -            not backed up
        d       -        -                          -            not reported yet
        ");
    }

    /// Everything but a config that is stored since the start counts as not stored, unless the device is not backed up at all.
    #[test]
    fn only_what_this_backup_stored_is_stored() {
        const SINCE: &str = "2026-11-23T00:00:05Z";
        let start = "2026-11-23T00:00:00Z".parse().ok();
        let missing = |lifecycle, attempt, start| {
            let attempts = attempts(vec![ended("core-1", lifecycle, attempt)], start);
            !not_stored(&attempts).is_empty()
        };
        for result in ["Timeout", "Auth", "HostKeyMismatch", "AddressNotAllowed", "Truncated", "Protocol", "Store", "Something"] {
            assert!(missing("Active", Some((SINCE, result)), start), "{result}");
        }
        for result in ["Changed", "Unchanged"] {
            assert!(!missing("Active", Some((SINCE, result)), start), "{result}");
            assert!(missing("Active", Some(("2026-11-22T00:00:00Z", result)), start), "{result} before");
            assert!(missing("Active", Some((SINCE, result)), None), "nobody knows since when it runs");
        }
        assert!(missing("Active", None, start), "not reported");
        assert!(!missing("Retired", None, start), "not backed up");
    }
}
