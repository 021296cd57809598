//! What a group's namespace consists of. Pure, and cannot fail: validation has refused every invalid spec before.

mod ca_bundle;
mod collector_pod;
mod cron_job;
mod labels;
mod limit_range;
mod namespace;
mod network_policies;
mod resource_quota;
mod role_bindings;
mod service_account;

use std::net::IpAddr;

use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{ConfigMap, LimitRange, ResourceQuota, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::RoleBinding;

use super::validate::ValidTenant;

pub use labels::{claim, object, ours};
pub use namespace::namespace;
pub use network_policies::{closed as closed_policies, deny_all};
pub use role_bindings::operator as operator_binding;

/// All that decides how a group's namespace looks.
#[derive(Debug, Clone)]
pub struct Blueprint {
    pub tenant: ValidTenant,
    pub platform: Platform,
    /// Where the apiserver answers.
    pub apiserver: Vec<ApiserverAddress>,
    /// The certificates of the internal CA.
    pub ca_bundle: Option<String>,
}

/// What is the same for all groups.
#[derive(Debug, Clone)]
pub struct Platform {
    pub system_namespace: String,
    pub collector_image: String,
    pub backup_endpoint: String,
}

/// One address at which the apiserver answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiserverAddress {
    pub ip: IpAddr,
    pub port: u16,
}

/// The generated objects of one namespace, kind by kind.
#[derive(Debug, Clone)]
pub struct Objects {
    pub network_policies: Vec<NetworkPolicy>,
    pub resource_quotas: Vec<ResourceQuota>,
    pub limit_ranges: Vec<LimitRange>,
    pub service_accounts: Vec<ServiceAccount>,
    pub role_bindings: Vec<RoleBinding>,
    /// `None` while the CA is not known: existing ConfigMaps stay.
    pub config_maps: Option<Vec<ConfigMap>>,
    pub cron_jobs: Vec<CronJob>,
}

/// Builds everything but the namespace itself.
pub fn build(blueprint: &Blueprint) -> Objects {
    let id = &blueprint.tenant.id;
    Objects {
        network_policies: network_policies::all(blueprint),
        resource_quotas: vec![resource_quota::resource_quota(&blueprint.tenant)],
        limit_ranges: vec![limit_range::limit_range(id)],
        service_accounts: vec![service_account::collector(id)],
        role_bindings: role_bindings::all(&blueprint.tenant, &blueprint.platform),
        config_maps: blueprint.ca_bundle.as_ref().map(|bundle| vec![ca_bundle::ca_bundle(id, bundle)]),
        cron_jobs: vec![cron_job::cron_job(blueprint)],
    }
}
