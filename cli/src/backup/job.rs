//! The Job of a manual backup: that of the CronJob, with an annotation that says not to wait for a place in the window.

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use tsujiban_api::names;

/// The annotation by which kubectl marks Jobs that a person made from a CronJob.
const INSTANTIATED: &str = "cronjob.kubernetes.io/instantiate";

/// A Job as the CronJob would make it. The pod template's spec stays as it is: a policy in the cluster refuses any other.
pub fn from_cron_job(cron_job: CronJob, suffix: &str) -> Job {
    let owner = OwnerReference {
        api_version: "batch/v1".to_owned(),
        kind: "CronJob".to_owned(),
        name: cron_job.metadata.name.unwrap_or_default(),
        uid: cron_job.metadata.uid.unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    let template = cron_job.spec.job_template;
    let template_metadata = template.metadata.unwrap_or_default();
    let mut annotations = template_metadata.annotations.unwrap_or_default();
    annotations.insert(INSTANTIATED.to_owned(), "manual".to_owned());
    let mut spec = template.spec;
    if let Some(spec) = &mut spec {
        let pod = spec.template.metadata.get_or_insert_default();
        pod.annotations.get_or_insert_default().insert(names::ANNOTATION_IMMEDIATE.to_owned(), "true".to_owned());
    }
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{}-now-{suffix}", names::CRONJOB)),
            namespace: cron_job.metadata.namespace,
            labels: template_metadata.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cron_job() -> CronJob {
        serde_json::from_value(json!({
            "metadata": {"name": "device-backup", "namespace": "tn-acme", "uid": "u1", "labels": {"not": "copied"}},
            "spec": {"schedule": "7 2 * * *", "jobTemplate": {
                "metadata": {"labels": {"tsujiban.dev/tenant": "acme"}},
                "spec": {"activeDeadlineSeconds": 1800, "ttlSecondsAfterFinished": 86400, "backoffLimit": 0, "template": {
                    "metadata": {"labels": {"app.kubernetes.io/component": "collector"}, "annotations": {"kept": "yes"}},
                    "spec": {"serviceAccountName": "collector", "restartPolicy": "Never", "containers": [{"name": "collector", "image": "i"}]}}}}}}))
        .unwrap()
    }

    #[test]
    fn the_job_is_the_cron_jobs() {
        insta::assert_yaml_snapshot!(from_cron_job(cron_job(), "x1y2z3"), @r#"
        apiVersion: batch/v1
        kind: Job
        metadata:
          annotations:
            cronjob.kubernetes.io/instantiate: manual
          labels:
            tsujiban.dev/tenant: acme
          name: device-backup-now-x1y2z3
          namespace: tn-acme
          ownerReferences:
            - apiVersion: batch/v1
              controller: true
              kind: CronJob
              name: device-backup
              uid: u1
        spec:
          activeDeadlineSeconds: 1800
          backoffLimit: 0
          template:
            metadata:
              annotations:
                kept: "yes"
                tsujiban.dev/immediate: "true"
              labels:
                app.kubernetes.io/component: collector
            spec:
              containers:
                - image: i
                  name: collector
              restartPolicy: Never
              serviceAccountName: collector
          ttlSecondsAfterFinished: 86400
        "#);
    }

    #[test]
    fn the_pod_is_exactly_that_of_the_cron_job() {
        let pod = |spec: Option<k8s_openapi::api::batch::v1::JobSpec>| spec.unwrap().template.spec;
        assert_eq!(pod(from_cron_job(cron_job(), "x").spec), pod(cron_job().spec.job_template.spec));
    }
}
