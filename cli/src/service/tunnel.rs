//! A port of a service's pod, forwarded by the apiserver. Nothing listens on the person's machine.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Api;
use kube::api::ListParams;
use tokio::io::DuplexStream;
use tsujiban_core::workload::GRPC_PORT;

use super::{ConnectError, Peer};
use crate::cluster::{Cluster, Right, ask};

/// The port-forward to a pod behind the service.
#[derive(Clone)]
pub(super) struct Tunnel {
    pods: Api<Pod>,
    namespace: String,
    pod: String,
    port: u16,
    complaint: Arc<Mutex<Option<String>>>,
}

impl Tunnel {
    /// Finds the pod: a ready one, or else a running one. A service that is not ready is needed, too: one that cannot write can be read,
    /// and one whose history is not the newest is resumed by a call.
    pub(super) async fn find(cluster: &Cluster, peer: Peer) -> Result<Self, ConnectError> {
        let namespace = cluster.system_namespace.clone();
        let services: Api<Service> = Api::namespaced(cluster.client.clone(), &namespace);
        let service = ask(Right::new("get", "services", &namespace), services.get_opt(peer.row().host)).await?;
        let Some(spec) = service.and_then(|service| service.spec) else { return Err(ConnectError::NoService { peer, namespace }) };
        let selector = selector(&spec.selector.unwrap_or_default());
        let target = spec.ports.unwrap_or_default().into_iter().find(|port| port.port == i32::from(GRPC_PORT));
        let target = target.and_then(|port| port.target_port).unwrap_or(IntOrString::Int(i32::from(GRPC_PORT)));
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &namespace);
        let listed = ask(Right::new("list", "pods", &namespace), pods.list(&ListParams::default().labels(&selector))).await?;
        let able = in_turn(listed.items).find_map(|pod| Some((port(&pod, &target)?, pod.metadata.name?)));
        let Some((port, pod)) = able else { return Err(ConnectError::NotReady { peer, namespace, selector }) };
        Ok(Self { pods, namespace, pod, port, complaint: Arc::default() })
    }

    /// A stream to the pod. It ends when it is dropped.
    pub(super) async fn open(&self) -> Result<DuplexStream, ConnectError> {
        let right = Right::new("create", "pods/portforward", &self.namespace);
        let mut forwarder = ask(right, self.pods.portforward(&self.pod, &[self.port])).await?;
        let failed = || ConnectError::Forward { namespace: self.namespace.clone(), pod: self.pod.clone() };
        let stream = forwarder.take_stream(self.port).ok_or_else(failed)?;
        if let Some(error) = forwarder.take_error(self.port) {
            let complaint = Arc::clone(&self.complaint);
            tokio::spawn(async move {
                if let Some(text) = error.await {
                    *complaint.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
                }
            });
        }
        Ok(stream)
    }

    /// The node's error when forwarding failed. The stream itself merely ends then.
    pub(super) fn complaint(&self) -> Option<String> {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn selector(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// The pods to try, the best first.
fn in_turn(pods: Vec<Pod>) -> impl Iterator<Item = Pod> {
    let (ready, rest): (Vec<_>, Vec<_>) = pods.into_iter().partition(is_ready);
    ready.into_iter().chain(rest.into_iter().filter(is_running))
}

fn is_running(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_none() && phase == Some("Running")
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    pod.metadata.deletion_timestamp.is_none() && conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// The number of the port, which a Service may name by the name it has in the pod.
fn port(pod: &Pod, target: &IntOrString) -> Option<u16> {
    match target {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => {
            let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
            let ports = containers.iter().flat_map(|container| container.ports.as_deref().unwrap_or_default());
            let mut named = ports.filter(|port| port.name.as_ref() == Some(name));
            named.find_map(|port| u16::try_from(port.container_port).ok())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(ready: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "tsujiban-backup-0"},
            "spec": {"containers": [{"name": "backup", "ports": [{"name": "health", "containerPort": 8081}, {"name": "grpc", "containerPort": 8443}]}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}}))
        .unwrap()
    }

    #[test]
    fn a_pod_is_ready_when_its_condition_says_so() {
        assert!(is_ready(&pod("True")) && !is_ready(&pod("False")) && !is_ready(&Pod::default()));
    }

    /// What a service holds that cannot write is read through it, and a history that is not the newest one is repaired so.
    #[test]
    fn a_service_is_asked_while_it_is_not_ready_and_a_ready_one_first() {
        let ready = |pods: Vec<Pod>| in_turn(pods).map(|pod| is_ready(&pod)).collect::<Vec<_>>();
        let pods = || vec![pod("False"), pod("True"), Pod::default()];
        assert_eq!(ready(pods()), [true, false]);
        let mut leaving = pod("False");
        leaving.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-11-26T00:00:00Z")).unwrap());
        assert!(ready(vec![leaving]).is_empty());
    }

    #[test]
    fn a_port_has_a_number_or_a_name() {
        assert_eq!(port(&pod("True"), &IntOrString::Int(8443)), Some(8443));
        assert_eq!(port(&pod("True"), &IntOrString::String("grpc".into())), Some(8443));
        assert_eq!(port(&pod("True"), &IntOrString::String("other".into())), None);
    }
}
