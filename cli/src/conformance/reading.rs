//! Reads a group with the rights of the person who runs the command.

use std::collections::BTreeSet;
use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{LimitRange, Namespace, ResourceQuota};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::ListParams;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tsujiban_api::{Tenant, names};
use tsujiban_conformance::live::owner_key;
use tsujiban_conformance::{Live, ScopeNames, Wanted};
use tsujiban_core::id::GroupId;

use super::ConformanceError;
use crate::cluster::{Cluster, ClusterError, Right, ask};

/// A group, as far as its checks need it.
pub struct GroupFacts {
    pub scopes: ScopeNames,
    pub live: Live,
    pub wanted: Wanted,
}

pub async fn read(cluster: &Cluster, group: &GroupId) -> Result<GroupFacts, ConformanceError> {
    let tenants: Api<Tenant> = Api::all(cluster.client.clone());
    let all = ask(Right::new("list", "tenants.tsujiban.dev", ""), tenants.list(&ListParams::default())).await?.items;
    let own = all.iter().find(|tenant| tenant.name_any() == group.as_str()).ok_or_else(|| ConformanceError::NoTenant(group.clone()))?;
    let others = || all.iter().filter(|tenant| tenant.name_any() != group.as_str());
    let namespace = names::namespace(group);
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let found = ask(Right::new("get", "namespaces", ""), namespaces.get_opt(&namespace)).await?;
    let Some(found) = found else { return Err(ConformanceError::NoNamespace { tenant: group.clone(), namespace }) };
    let other = others().map(|tenant| format!("tn-{}", tenant.name_any())).min();
    Ok(GroupFacts {
        scopes: ScopeNames::new(group.as_str(), &namespace, other.as_deref(), &cluster.system_namespace),
        live: Live {
            namespace: Some(found),
            resource_quotas: list::<ResourceQuota>(cluster, "resourcequotas", &namespace).await?,
            limit_ranges: list::<LimitRange>(cluster, "limitranges", &namespace).await?,
            network_policies: list::<NetworkPolicy>(cluster, "networkpolicies", &namespace).await?,
            role_bindings: list::<RoleBinding>(cluster, "rolebindings", &namespace).await?,
        },
        wanted: Wanted {
            namespace,
            system_namespace: cluster.system_namespace.clone(),
            owners: own.spec.owners.clone(),
            others: others().flat_map(|tenant| tenant.spec.owners.iter().map(owner_key)).collect::<BTreeSet<_>>(),
            networks: own.spec.network.device_cidrs.iter().filter_map(|net| net.parse().ok()).collect(),
        },
    })
}

async fn list<K>(cluster: &Cluster, resource: &'static str, namespace: &str) -> Result<Vec<K>, ClusterError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::namespaced(cluster.client.clone(), namespace);
    Ok(ask(Right::new("list", resource, namespace), api.list(&ListParams::default())).await?.items)
}
