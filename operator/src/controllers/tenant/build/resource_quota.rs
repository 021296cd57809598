//! Upper bounds of the namespace. What a group has no use for is bounded at zero.

use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaSpec};
use tsujiban_api::names::QUOTA;

use super::labels;
use crate::controllers::tenant::quantity::Quantity;
use crate::controllers::tenant::validate::ValidTenant;

/// Kept Jobs, the running one, and those made by hand.
const JOBS: u32 = 20;
/// The one that exists, and a spare one: a create request that was admitted and then interrupted counts until the quota is recalculated,
/// which takes minutes, and the CronJob must not wait for that.
const CRON_JOBS: u32 = 2;
const NONE: [&str; 11] = [
    "persistentvolumeclaims",
    "requests.storage",
    "services",
    "services.loadbalancers",
    "services.nodeports",
    "replicationcontrollers",
    "count/deployments.apps",
    "count/replicasets.apps",
    "count/statefulsets.apps",
    "count/daemonsets.apps",
    "count/ingresses.networking.k8s.io",
];

pub fn resource_quota(tenant: &ValidTenant) -> ResourceQuota {
    let quota = &tenant.quota;
    let amounts = [
        ("requests.cpu", quota.cpu),
        ("limits.cpu", quota.cpu),
        ("requests.memory", quota.memory),
        ("limits.memory", quota.memory),
        ("requests.ephemeral-storage", quota.ephemeral_storage),
        ("limits.ephemeral-storage", quota.ephemeral_storage),
        ("pods", Quantity::count(quota.pods)),
        ("secrets", Quantity::count(quota.secrets)),
        ("configmaps", Quantity::count(quota.configmaps)),
        ("resourcequotas", Quantity::count(1)),
        ("count/jobs.batch", Quantity::count(JOBS)),
        ("count/cronjobs.batch", Quantity::count(CRON_JOBS)),
    ];
    let hard = amounts.into_iter().chain(NONE.map(|name| (name, Quantity::count(0))));
    ResourceQuota {
        metadata: labels::object(&tenant.id, QUOTA),
        spec: Some(ResourceQuotaSpec {
            hard: Some(hard.map(|(name, amount)| (name.to_owned(), amount.into())).collect()),
            ..ResourceQuotaSpec::default()
        }),
        status: None,
    }
}
