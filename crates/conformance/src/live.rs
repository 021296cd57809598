//! What the live objects of a group's namespace show.

mod bindings;
mod network;
mod quota;

use std::collections::BTreeSet;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{LimitRange, Namespace, ResourceQuota};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::RoleBinding;
use tsujiban_api::tenant::Owner;

use crate::catalogue::LiveRule;

/// The objects, all of their kinds in the namespace, whoever made them.
#[derive(Debug, Clone, Default)]
pub struct Live {
    pub namespace: Option<Namespace>,
    pub resource_quotas: Vec<ResourceQuota>,
    pub limit_ranges: Vec<LimitRange>,
    pub network_policies: Vec<NetworkPolicy>,
    pub role_bindings: Vec<RoleBinding>,
}

/// What the objects are compared with.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub namespace: String,
    pub system_namespace: String,
    pub owners: Vec<Owner>,
    /// The owners of other groups.
    pub others: BTreeSet<String>,
    /// The networks of the group's devices.
    pub networks: Vec<IpNet>,
}

/// One owner as a string that can be compared. Users and groups are identified by name, ServiceAccounts also by namespace.
pub fn key(kind: &str, namespace: Option<&str>, name: &str) -> String {
    match namespace.filter(|_| kind == "ServiceAccount") {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

/// The same for an owner of a Tenant.
pub fn owner_key(owner: &Owner) -> String {
    key(&format!("{:?}", owner.kind), owner.namespace.as_deref(), &owner.name)
}

/// `Err`: what is wrong, a sentence for each fault. `Ok`: what makes the rule hold.
pub fn judge(rule: LiveRule, live: &Live, wanted: &Wanted) -> Result<String, Vec<String>> {
    match rule {
        LiveRule::ResourceQuotas => quota::amounts(&live.resource_quotas),
        LiveRule::ObjectQuotas => quota::counts(&live.resource_quotas),
        LiveRule::Limits => quota::limits(&live.limit_ranges),
        LiveRule::PodSecurity => pod_security(live),
        LiveRule::DefaultDeny => network::default_deny(&live.network_policies),
        LiveRule::NothingElseOpen => network::nothing_else_open(&live.network_policies, wanted),
        LiveRule::Bindings => bindings::judge(&live.role_bindings, wanted),
    }
}

/// Whether a quota forbids Services of type NodePort.
pub fn forbids_node_ports(live: &Live) -> bool {
    quota::is_zero(&live.resource_quotas, "services.nodeports")
}

/// Whether the namespace enforces the restricted level of Pod Security.
pub fn is_restricted(live: &Live) -> bool {
    pod_security(live).is_ok()
}

fn pod_security(live: &Live) -> Result<String, Vec<String>> {
    const ENFORCE: &str = "pod-security.kubernetes.io/enforce";
    let Some(namespace) = &live.namespace else { return Err(vec!["the namespace is not there".to_owned()]) };
    let label = |key: &str| namespace.metadata.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
    let version = label("pod-security.kubernetes.io/enforce-version").unwrap_or("latest");
    match label(ENFORCE) {
        Some("restricted") if version == "latest" => Ok("label enforce=restricted, latest".to_owned()),
        Some("restricted") => Err(vec![format!("the namespace enforces an old version of Pod Security: {version}")]),
        Some(level) => Err(vec![format!("the namespace enforces Pod Security {level} instead of restricted")]),
        None => Err(vec!["the namespace enforces no level of Pod Security".to_owned()]),
    }
}

#[cfg(test)]
mod tests;
