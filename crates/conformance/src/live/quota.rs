//! Quotas and limits.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Amounts that must be bounded, once each: requests and limits, since a quota on one does not bound the other.
const AMOUNTS: [&str; 7] = [
    "requests.cpu",
    "limits.cpu",
    "requests.memory",
    "limits.memory",
    "requests.ephemeral-storage",
    "limits.ephemeral-storage",
    "requests.storage",
];
/// Objects whose number must be bounded: those that the benchmark names.
const COUNTS: [&str; 9] = [
    "pods",
    "services",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];
/// The resources for which a container that names none must get a default.
const DEFAULTS: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

pub fn amounts(quotas: &[ResourceQuota]) -> Result<String, Vec<String>> {
    bounded(quotas, &AMOUNTS)
}

pub fn counts(quotas: &[ResourceQuota]) -> Result<String, Vec<String>> {
    bounded(quotas, &COUNTS)
}

/// Whether a quota forbids all objects of a kind.
pub fn is_zero(quotas: &[ResourceQuota], resource: &str) -> bool {
    hard(quotas).get(resource).is_some_and(|quantity| quantity.0 == "0")
}

fn bounded(quotas: &[ResourceQuota], names: &[&str]) -> Result<String, Vec<String>> {
    let hard = hard(quotas);
    // `cpu` is another word for `requests.cpu`
    let missing: Vec<String> = names
        .iter()
        .filter(|name| !hard.contains_key(**name) && !name.strip_prefix("requests.").is_some_and(|short| hard.contains_key(short)))
        .map(|name| format!("no ResourceQuota bounds {name}"))
        .collect();
    if missing.is_empty() { Ok(format!("a ResourceQuota names {}", names.join(", "))) } else { Err(missing) }
}

/// The bounds that hold for everything in the namespace. A quota with scopes does not bound the rest.
fn hard(quotas: &[ResourceQuota]) -> BTreeMap<&str, &Quantity> {
    let whole = quotas.iter().filter_map(|quota| quota.spec.as_ref()).filter(|spec| spec.scopes.is_none() && spec.scope_selector.is_none());
    whole.flat_map(|spec| spec.hard.iter().flatten()).map(|(name, quantity)| (name.as_str(), quantity)).collect()
}

pub fn limits(ranges: &[LimitRange]) -> Result<String, Vec<String>> {
    let items: Vec<_> = ranges.iter().filter_map(|range| range.spec.as_ref()).flat_map(|spec| &spec.limits).collect();
    let containers = || items.iter().filter(|item| item.type_ == "Container");
    let missing: Vec<String> = DEFAULTS
        .iter()
        .filter(|name| {
            let has = |amounts: &Option<BTreeMap<String, Quantity>>| amounts.as_ref().is_some_and(|amounts| amounts.contains_key(**name));
            !containers().any(|item| has(&item.default)) || !containers().any(|item| has(&item.default_request))
        })
        .map(|name| format!("no LimitRange gives containers {name} by default"))
        .collect();
    if missing.is_empty() { Ok(format!("a LimitRange gives {}", DEFAULTS.join(", "))) } else { Err(missing) }
}
