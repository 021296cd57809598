//! What network policies let through. Policies add up: what one allows is allowed, whatever the others say.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tsujiban_api::names;
use tsujiban_core::workload::Service;

use super::Wanted;

const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Some policy selects every pod in both directions, so that nothing passes that no rule lets through.
pub fn default_deny(policies: &[NetworkPolicy]) -> Result<String, Vec<String>> {
    let denies = |direction: &str| {
        policies.iter().filter_map(|policy| policy.spec.as_ref()).any(|spec| selects_all(spec) && covers(spec, direction))
    };
    let missing: Vec<String> = ["Ingress", "Egress"]
        .into_iter()
        .filter(|direction| !denies(direction))
        .map(|direction| format!("no NetworkPolicy selects every pod for {direction}"))
        .collect();
    if missing.is_empty() { Ok("a NetworkPolicy selects every pod in both directions".to_owned()) } else { Err(missing) }
}

/// Every rule is one that the operator makes.
pub fn nothing_else_open(policies: &[NetworkPolicy], wanted: &Wanted) -> Result<String, Vec<String>> {
    let wrong: Vec<String> = policies
        .iter()
        .flat_map(|policy| {
            let name = policy.metadata.name.as_deref().unwrap_or_default();
            let spec = policy.spec.as_ref();
            spec.map(|spec| faults(name, is_ours(policy), spec, wanted)).unwrap_or_default()
        })
        .collect();
    if wrong.is_empty() { Ok(format!("{} NetworkPolicies, and nothing else is open", policies.len())) } else { Err(wrong) }
}

fn is_ours(policy: &NetworkPolicy) -> bool {
    policy.metadata.labels.as_ref().and_then(|labels| labels.get(names::LABEL_MANAGED_BY)).is_some_and(|by| by == names::MANAGED_BY)
}

fn faults(name: &str, ours: bool, spec: &NetworkPolicySpec, wanted: &Wanted) -> Vec<String> {
    let mut wrong = Vec::new();
    let ingress = spec.ingress.iter().flatten().filter(|rule| is_open(rule.from.as_deref()));
    wrong.extend(ingress.map(|_| format!("NetworkPolicy {name} lets traffic in")));
    for rule in spec.egress.iter().flatten().filter(|rule| is_open(rule.to.as_deref())) {
        let is_known = ours
            && match name {
                names::POLICY_DNS => is_dns(rule),
                names::POLICY_COLLECTOR => selects_collector(spec) && is_for_collector(rule, wanted),
                _ => false,
            };
        if !is_known {
            wrong.push(format!("NetworkPolicy {name} lets traffic out to {}", destination(rule)));
        }
    }
    wrong
}

/// Whether a rule lets anything through. A peer that matches no pod does not.
fn is_open(peers: Option<&[NetworkPolicyPeer]>) -> bool {
    match peers {
        None | Some([]) => true,
        Some(peers) => !peers.iter().all(matches_no_pod),
    }
}

/// The selector that matches no pod, which the operator's closed rules use.
fn matches_no_pod(peer: &NetworkPolicyPeer) -> bool {
    let selector = peer.pod_selector.as_ref().filter(|_| peer.namespace_selector.is_none() && peer.ip_block.is_none());
    selector.and_then(|selector| selector.match_expressions.as_ref()).is_some_and(|expressions| {
        expressions.iter().any(|expression| expression.key == "tsujiban.dev/none" && expression.operator == "In")
    })
}

fn is_dns(rule: &NetworkPolicyEgressRule) -> bool {
    let to_dns = |peer: &NetworkPolicyPeer| {
        peer.ip_block.is_none() && is_namespace(peer, "kube-system") && is_labelled(peer.pod_selector.as_ref(), "k8s-app", "kube-dns")
    };
    rule.to.iter().flatten().all(to_dns)
        && !only_ports(rule.ports.as_deref()).is_empty()
        && only_ports(rule.ports.as_deref()).iter().all(|port| *port == 53)
}

/// The apiserver by its addresses, the backup service by its labels, the devices by their networks.
fn is_for_collector(rule: &NetworkPolicyEgressRule, wanted: &Wanted) -> bool {
    let known = |peer: &NetworkPolicyPeer| match &peer.ip_block {
        Some(block) => block.cidr.parse::<IpNet>().is_ok_and(|net| {
            let is_address = net.prefix_len() == net.max_prefix_len() && is_usable(net.addr());
            is_address || wanted.networks.iter().any(|network| network.contains(&net))
        }),
        None => {
            is_namespace(peer, &wanted.system_namespace)
                && is_labelled(peer.pod_selector.as_ref(), names::LABEL_COMPONENT, Service::Backup.row().name)
        }
    };
    rule.to.iter().flatten().all(known) && !only_ports(rule.ports.as_deref()).is_empty()
}

fn is_usable(address: IpAddr) -> bool {
    !address.is_unspecified() && !address.is_loopback()
}

/// The ports of a rule; empty when it is open on all or on a range.
fn only_ports(ports: Option<&[NetworkPolicyPort]>) -> Vec<i32> {
    let numbers = ports.unwrap_or_default().iter().map(|port| match (&port.port, port.end_port) {
        (Some(IntOrString::Int(number)), None) => Some(*number),
        _ => None,
    });
    numbers.collect::<Option<Vec<i32>>>().unwrap_or_default()
}

fn selects_all(spec: &NetworkPolicySpec) -> bool {
    spec.pod_selector.as_ref().is_none_or(|selector| {
        selector.match_labels.as_ref().is_none_or(std::collections::BTreeMap::is_empty)
            && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
    })
}

fn selects_collector(spec: &NetworkPolicySpec) -> bool {
    is_labelled(spec.pod_selector.as_ref(), names::LABEL_COMPONENT, names::COMPONENT_COLLECTOR)
}

fn covers(spec: &NetworkPolicySpec, direction: &str) -> bool {
    // left out, the types are Ingress, and Egress when there is an egress rule
    spec.policy_types.as_ref().map_or(direction == "Ingress" || spec.egress.is_some(), |types| types.iter().any(|type_| type_ == direction))
}

fn is_namespace(peer: &NetworkPolicyPeer, name: &str) -> bool {
    is_labelled(peer.namespace_selector.as_ref(), NAMESPACE_NAME, name)
}

fn is_labelled(selector: Option<&LabelSelector>, key: &str, value: &str) -> bool {
    selector.and_then(|selector| selector.match_labels.as_ref()).and_then(|labels| labels.get(key)).is_some_and(|found| found == value)
}

fn destination(rule: &NetworkPolicyEgressRule) -> String {
    let Some(peers) = rule.to.as_ref().filter(|peers| !peers.is_empty()) else { return "everywhere".to_owned() };
    let names = peers.iter().take(3).map(|peer| match (&peer.ip_block, &peer.namespace_selector) {
        (Some(block), _) => block.cidr.clone(),
        (None, Some(_)) => "pods of other namespaces".to_owned(),
        (None, None) => "pods of the namespace".to_owned(),
    });
    names.collect::<Vec<_>>().join(", ")
}
