//! Allowed traffic (C7, C13): none, except that pods may resolve names, and that the collector's pods reach the apiserver, the backup
//! service and the declared device networks.

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tsujiban_api::names::{COMPONENT_COLLECTOR, LABEL_COMPONENT, POLICY_COLLECTOR, POLICY_DENY_ALL, POLICY_DNS};
use tsujiban_core::workload::{GRPC_PORT, Service};

use super::{ApiserverAddress, Blueprint, labels};
use crate::controllers::tenant::validate::Identity;

const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// The policies of a group.
pub fn all(blueprint: &Blueprint) -> Vec<NetworkPolicy> {
    let id = &blueprint.tenant.id;
    if blueprint.tenant.suspended {
        return closed(id);
    }
    vec![
        deny_all(id),
        policy(id, POLICY_DNS, LabelSelector::default(), vec![dns()]),
        policy(id, POLICY_COLLECTOR, collector_pods(), collector(blueprint)),
    ]
}

/// The policies of a group that is suspended or has no Tenant any more.
pub fn closed(id: &Identity) -> Vec<NetworkPolicy> {
    vec![
        deny_all(id),
        policy(id, POLICY_DNS, LabelSelector::default(), vec![nowhere()]),
        policy(id, POLICY_COLLECTOR, collector_pods(), vec![nowhere()]),
    ]
}

/// Denies all traffic. The rules select a pod that never exists: another manager could fill a list that is left out or empty, and the
/// apiserver takes an explicit empty list for a change each time.
pub fn deny_all(id: &Identity) -> NetworkPolicy {
    NetworkPolicy {
        metadata: labels::object(id, POLICY_DENY_ALL),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector::default()),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(vec![NetworkPolicyIngressRule { from: Some(vec![nobody()]), ports: None }]),
            egress: Some(vec![nowhere()]),
        }),
    }
}

fn policy(id: &Identity, name: &str, pods: LabelSelector, egress: Vec<NetworkPolicyEgressRule>) -> NetworkPolicy {
    NetworkPolicy {
        metadata: labels::object(id, name),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(pods),
            policy_types: Some(vec!["Egress".to_owned()]),
            ingress: None,
            egress: Some(egress),
        }),
    }
}

fn collector(blueprint: &Blueprint) -> Vec<NetworkPolicyEgressRule> {
    let backup = NetworkPolicyPeer {
        namespace_selector: Some(label(NAMESPACE_NAME, &blueprint.platform.system_namespace)),
        pod_selector: Some(label(LABEL_COMPONENT, Service::Backup.row().name)),
        ip_block: None,
    };
    let networks = &blueprint.tenant.networks;
    let devices = networks.declared.iter().map(|net| {
        let except: Vec<String> = networks.forbidden.inside(net).iter().map(ToString::to_string).collect();
        block(*net, (!except.is_empty()).then_some(except))
    });
    let devices =
        NetworkPolicyEgressRule { to: Some(devices.collect()), ports: Some(networks.ports.iter().map(|port| tcp(*port)).collect()) };
    let backup = NetworkPolicyEgressRule { to: Some(vec![backup]), ports: Some(vec![tcp(GRPC_PORT)]) };
    blueprint.apiserver.iter().map(apiserver).chain([backup, devices]).collect()
}

fn apiserver(address: &ApiserverAddress) -> NetworkPolicyEgressRule {
    NetworkPolicyEgressRule { to: Some(vec![block(IpNet::from(address.ip), None)]), ports: Some(vec![tcp(address.port)]) }
}

/// CoreDNS has this label everywhere, for compatibility with its predecessor kube-dns.
fn dns() -> NetworkPolicyEgressRule {
    let peer = NetworkPolicyPeer {
        namespace_selector: Some(label(NAMESPACE_NAME, "kube-system")),
        pod_selector: Some(label("k8s-app", "kube-dns")),
        ip_block: None,
    };
    NetworkPolicyEgressRule { to: Some(vec![peer]), ports: Some(vec![port("UDP", 53), port("TCP", 53)]) }
}

fn nowhere() -> NetworkPolicyEgressRule {
    NetworkPolicyEgressRule { to: Some(vec![nobody()]), ports: None }
}

/// Selects a pod that never exists: nothing sets this label. If a pod had it, only traffic inside the namespace would be allowed.
fn nobody() -> NetworkPolicyPeer {
    let never =
        LabelSelectorRequirement { key: "tsujiban.dev/none".to_owned(), operator: "In".to_owned(), values: Some(vec!["none".to_owned()]) };
    let selector = LabelSelector { match_expressions: Some(vec![never]), match_labels: None };
    NetworkPolicyPeer { pod_selector: Some(selector), namespace_selector: None, ip_block: None }
}

fn collector_pods() -> LabelSelector {
    label(LABEL_COMPONENT, COMPONENT_COLLECTOR)
}

fn label(key: &str, value: &str) -> LabelSelector {
    LabelSelector { match_labels: Some([(key.to_owned(), value.to_owned())].into()), match_expressions: None }
}

fn block(net: IpNet, except: Option<Vec<String>>) -> NetworkPolicyPeer {
    NetworkPolicyPeer { ip_block: Some(IPBlock { cidr: net.to_string(), except }), namespace_selector: None, pod_selector: None }
}

fn tcp(number: u16) -> NetworkPolicyPort {
    port("TCP", number)
}

fn port(protocol: &str, number: u16) -> NetworkPolicyPort {
    NetworkPolicyPort { protocol: Some(protocol.to_owned()), port: Some(IntOrString::Int(i32::from(number))), end_port: None }
}
