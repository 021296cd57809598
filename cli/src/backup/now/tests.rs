//! A backup by hand against an apiserver that holds what each scenario needs.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tower::service_fn;

use super::*;

const JOB: &str = "/apis/batch/v1/namespaces/tn-acme/jobs/device-backup-now-x";

/// An apiserver that answers reads from a table, and what was written to it.
fn apiserver(objects: Vec<(&'static str, Value)>) -> (Cluster, Arc<Mutex<Vec<Value>>>) {
    let written = Arc::new(Mutex::new(Vec::new()));
    let (objects, log) = (Arc::new(objects), Arc::clone(&written));
    let service = service_fn(move |request: Request<Body>| {
        let (objects, log) = (Arc::clone(&objects), Arc::clone(&log));
        async move {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let (code, answer) = if method == http::Method::POST {
                let mut object: Value = serde_json::from_slice(&body).unwrap();
                log.lock().unwrap().push(object.clone());
                object["metadata"]["creationTimestamp"] = json!("2026-11-23T00:00:00Z");
                (201, object)
            } else {
                match objects.iter().find(|(known, _)| *known == path) {
                    Some((_, object)) => (200, object.clone()),
                    None => {
                        (404, json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": "not found"}))
                    }
                }
            };
            Ok::<_, Infallible>(Response::builder().status(code).body(Body::from(answer.to_string().into_bytes())).unwrap())
        }
    });
    (Cluster { client: Client::new(service, "default"), system_namespace: "tsujiban-system".into() }, written)
}

fn tenant(suspended: bool) -> (&'static str, Value) {
    let spec = json!({"displayName": "Acme", "plan": "Free", "contact": {"email": "a@example.jp"}, "suspended": suspended,
        "network": {"deviceCIDRs": ["192.0.2.0/24"]}});
    let tenant = json!({"apiVersion": "tsujiban.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"}, "spec": spec});
    ("/apis/tsujiban.dev/v1alpha1/tenants/acme", tenant)
}

fn cron_job() -> (&'static str, Value) {
    let template = json!({"spec": {"containers": [{"name": "collector"}]}});
    let cron_job = json!({"metadata": {"name": "device-backup", "namespace": "tn-acme", "uid": "u"},
        "spec": {"schedule": "7 2 * * *", "jobTemplate": {"spec": {"activeDeadlineSeconds": 1800, "template": template}}}});
    ("/apis/batch/v1/namespaces/tn-acme/cronjobs/device-backup", cron_job)
}

/// A group whose Job has ended with a condition and stored the device's config.
fn ended(condition: &Value) -> Vec<(&'static str, Value)> {
    ended_with(condition, "Changed")
}

/// A group whose Job has ended with a condition, and with this result of its device.
fn ended_with(condition: &Value, result: &str) -> Vec<(&'static str, Value)> {
    let pod = json!({"metadata": {}, "status": {"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false,
        "restartCount": 0, "state": {"terminated": {"exitCode": 0, "message": "1 changed"}}}]}});
    let device = json!({"metadata": {"name": "core-1"}, "spec": {"siteRef": {"name": "tokyo"}, "serialNumber": "JN", "driver": "Frr",
        "connection": {"host": "192.0.2.1"}}, "status": {"lastAttempt": {"time": "2026-11-23T00:00:09Z", "result": result}}});
    vec![
        tenant(false),
        cron_job(),
        (JOB, json!({"metadata": {"name": "device-backup-now-x"}, "status": {"conditions": [condition]}})),
        ("/api/v1/namespaces/tn-acme/pods", json!({"metadata": {}, "items": [pod]})),
        ("/apis/tsujiban.dev/v1alpha1/namespaces/tn-acme/devices", json!({"metadata": {}, "items": [device]})),
    ]
}

async fn run(cluster: &Cluster, wait: bool) -> Result<Answer, Failure> {
    now(cluster, &"acme".parse().unwrap(), wait, "x", Format::Table).await
}

#[tokio::test]
async fn a_suspended_group_is_left_alone() {
    let (cluster, written) = apiserver(vec![tenant(true), cron_job()]);
    let error = run(&cluster, true).await.unwrap_err();
    assert!(
        matches!(error.downcast_ref(), Some(NowError::Suspended(_))) && error.to_string().contains("kubectl patch tenant acme"),
        "{error}"
    );
    assert!(written.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let error = run(&apiserver(vec![]).0, true).await.unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(NowError::NoGroup(_))), "{error}");
    let error = run(&apiserver(vec![tenant(false)]).0, true).await.unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(NowError::NoCronJob(_))), "{error}");
}

#[tokio::test]
async fn the_job_is_made_and_waited_for() {
    let (cluster, written) = apiserver(ended(&json!({"type": "Complete", "status": "True"})));
    let answer = run(&cluster, true).await.unwrap();
    assert_eq!(answer.verdict, Verdict::Good);
    insta::assert_snapshot!(answer.text, @r"
        1 changed

        DEVICE  RESULT   LAST ATTEMPT               LAST BACKUP  MESSAGE
        core-1  Changed  2026-11-23T09:00:09+09:00  -            -
        ");
    let written = written.lock().unwrap();
    let [job] = written.as_slice() else { panic!("{written:?}") };
    assert_eq!(job["spec"]["template"]["metadata"]["annotations"]["tsujiban.dev/immediate"], "true");
}

#[tokio::test]
async fn a_failed_job_is_a_failed_command() {
    let failed = json!({"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "too long"});
    let answer = run(&apiserver(ended(&failed)).0, true).await.unwrap();
    assert_eq!(answer.verdict, Verdict::Failed);
    assert!(answer.text.contains("FAILED: DeadlineExceeded: too long"), "{}", answer.text);
}

/// A device that could not be reached leaves a Job that succeeded, and a config that is not stored.
#[tokio::test]
async fn what_was_not_stored_is_no_success() {
    let complete = json!({"type": "Complete", "status": "True"});
    for result in ["Timeout", "Store", "Auth"] {
        let answer = run(&apiserver(ended_with(&complete, result)).0, true).await.unwrap();
        assert_eq!(answer.verdict.exit_code(), 6, "{result}");
        assert!(answer.text.ends_with("NOT STORED: 1 of 1: core-1. MESSAGE says why; then run the command again.\n"), "{}", answer.text);
    }
    let answer = run(&apiserver(ended_with(&complete, "Unchanged")).0, true).await.unwrap();
    assert_eq!(answer.verdict, Verdict::Good, "it is stored already");
    let failed = json!({"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "too long"});
    let answer = run(&apiserver(ended_with(&failed, "Timeout")).0, true).await.unwrap();
    assert_eq!(answer.verdict.exit_code(), 6, "the Job failed, and nothing is stored");
    assert!(answer.text.contains("NOT STORED: 1 of 1"), "{}", answer.text);
}

/// The volume of the backup service is full: to the collector it cannot be reached, and the group's condition says why.
#[tokio::test]
async fn what_the_services_say_is_told_with_what_was_not_stored() {
    let failed = json!({"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "it failed"});
    let mut objects = ended_with(&failed, "Store");
    let condition = |kind: &str, status: &str| {
        json!({"type": kind, "status": status, "reason": "DiskFull", "message": "its disk is full: make the volume larger",
            "lastTransitionTime": "2026-11-23T00:00:00Z"})
    };
    objects[0].1["status"] = json!({"conditions": [condition("BackupsStored", "False"), condition("HistoryRecorded", "True")]});
    let answer = run(&apiserver(objects).0, true).await.unwrap();
    assert_eq!(answer.verdict.exit_code(), 6);
    assert!(answer.text.ends_with("\nBackupsStored=False, DiskFull: its disk is full: make the volume larger\n"), "{}", answer.text);
}

#[tokio::test]
async fn a_job_that_vanishes_is_no_success() {
    let error = run(&apiserver(vec![tenant(false), cron_job()]).0, true).await.unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(NowError::Gone { .. })), "{error}");
    let answer = run(&apiserver(vec![tenant(false), cron_job()]).0, false).await.unwrap();
    assert!(answer.text.contains("is started"), "{}", answer.text);
}

fn outcome(succeeded: Option<bool>, failure: Option<&str>) -> Outcome {
    Outcome {
        namespace: "tn-acme".into(),
        job: "device-backup-now-x".into(),
        succeeded,
        failure: failure.map(str::to_owned),
        summary: succeeded.map(|_| "1 changed\n1 unchanged\x1b[2J".to_owned()),
        devices: Vec::new(),
        faults: Vec::new(),
    }
}

#[test]
fn a_job_that_is_not_waited_for_can_be_followed() {
    assert_eq!(
        text(&outcome(None, None)),
        "Job tn-acme/device-backup-now-x is started. Follow it with: kubectl -n tn-acme logs -f job/device-backup-now-x\n"
    );
}

#[test]
fn the_collectors_summary_comes_before_the_devices() {
    insta::assert_snapshot!(text(&outcome(Some(true), None)), @r"
    1 changed
    1 unchanged\u{1b}[2J

    The group has no devices. Declare some in namespace tn-acme.
    ");
}

#[test]
fn a_failed_job_says_why_and_where_to_look() {
    insta::assert_snapshot!(text(&outcome(Some(false), Some("DeadlineExceeded: too long"))), @r"
    Job tn-acme/device-backup-now-x FAILED: DeadlineExceeded: too long. Look at it with: kubectl -n tn-acme logs job/device-backup-now-x
    1 changed
    1 unchanged\u{1b}[2J

    The group has no devices. Declare some in namespace tn-acme.
    ");
}
