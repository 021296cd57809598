//! Pods that try to reach something.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

use crate::stage::Stage;
use crate::wait::until;

/// A pod with a shell, as restricted as a tenant's pods have to be.
pub struct Probe<'a> {
    stage: &'a Stage,
    namespace: String,
    name: String,
    /// The pod's address.
    pub ip: String,
}

impl<'a> Probe<'a> {
    /// Starts a pod that also listens on port 8080, and waits until it runs.
    pub async fn start(stage: &'a Stage, namespace: &str, name: &str, labels: Value) -> Result<Self> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 0,
                "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "probe", "image": "tsujiban.dev/probe:dev", "imagePullPolicy": "IfNotPresent",
                    "command": ["/bin/httpd", "-f", "-p", "8080"],
                    "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true},
                    "resources": {"requests": {"cpu": "10m", "memory": "16Mi", "ephemeral-storage": "16Mi"}, "limits": {"cpu": "200m", "memory": "32Mi", "ephemeral-storage": "16Mi"}},
                }],
            },
        }))?;
        let pods: Api<Pod> = Api::namespaced(stage.client.clone(), namespace);
        pods.create(&PostParams::default(), &pod).await.with_context(|| format!("pod {namespace}/{name}"))?;
        let ip = until(&format!("pod {namespace}/{name} runs"), Duration::from_mins(1), || async {
            let status = pods.get(name).await?.status.context("no status")?;
            let ready = status.container_statuses.unwrap_or_default().iter().any(|c| c.ready);
            Ok(status.pod_ip.filter(|_| ready))
        })
        .await?;
        Ok(Self { stage, namespace: namespace.to_owned(), name: name.to_owned(), ip })
    }

    /// Whether a TCP connection succeeds within three seconds.
    pub async fn reaches(&self, host: &str, port: u16) -> Result<bool> {
        let port = port.to_string();
        let answer = self.stage.kubectl(&["exec", "-n", &self.namespace, &self.name, "--", "reach", host, &port, "3"]).await?;
        Ok(answer.code == 0)
    }

    /// Whether a name resolves.
    pub async fn resolves(&self, name: &str) -> Result<bool> {
        let answer = self.stage.kubectl(&["exec", "-n", &self.namespace, &self.name, "--", "timeout", "4", "nslookup", name]).await?;
        Ok(answer.code == 0)
    }

    pub async fn stop(self) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.stage.client.clone(), &self.namespace);
        pods.delete(&self.name, &DeleteParams::default()).await?;
        Ok(())
    }
}
