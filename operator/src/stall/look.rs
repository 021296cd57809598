//! Checks the caches for changes that no reconcile has observed.

use std::sync::Arc;
use std::time::Instant;

use kube::Resource;
use kube::runtime::reflector::ObjectRef;
use tsujiban_api::{Device, Site, Tenant, names};

use super::{Behind, LOOK};
use crate::cache::Cache;
use crate::controllers::{device, site, tenant};
use crate::metrics::Metrics;
use crate::reconcile;

/// Checks for ever.
pub async fn run(metrics: Arc<Metrics>, tenants: Cache<Tenant>, devices: Cache<Device>, sites: Cache<Site>) {
    let watchdog = &metrics.watchdog;
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut reported = Vec::new();
    loop {
        ticks.tick().await;
        let now = Instant::now();
        let of_tenants = behind(&tenants, |tenant: &Tenant| tenant.status.as_ref().and_then(|status| status.observed_generation));
        watchdog.check(tenant::KIND, of_tenants, |name: &str| tenants.get(&ObjectRef::new(name)).is_some(), now);
        let of_devices = behind(&devices, |device: &Device| {
            // a Device without its Tenant is left alone, so it is never behind
            let group = device.metadata.namespace.as_deref().and_then(names::group_of_namespace);
            let has_tenant = group.is_some_and(|group| tenants.get(&ObjectRef::new(group.as_str())).is_some());
            let observed = device.status.as_ref().and_then(|status| status.observed_generation);
            if has_tenant { observed } else { device.metadata.generation }
        });
        watchdog.check(device::KIND, of_devices, |name: &str| is_cached(&devices, name), now);
        let of_sites = behind(&sites, |site: &Site| site.status.as_ref().and_then(|status| status.observed_generation));
        watchdog.check(site::KIND, of_sites, |name: &str| is_cached(&sites, name), now);
        let reasons = watchdog.reasons(now);
        let kinds: Vec<&str> = reasons.iter().filter_map(|reason| reason.split_once(':')).map(|(kind, _)| kind).collect();
        if kinds != reported {
            if reasons.is_empty() {
                tracing::info!("reconciles make progress again");
            } else {
                tracing::error!(reasons = reasons.join("; "), "reconciles are stalled");
            }
            reported = kinds.into_iter().map(str::to_owned).collect();
        }
    }
}

/// Whether an object of a namespaced kind is in its cache, by namespace and name.
fn is_cached<K>(cache: &Cache<K>, name: &str) -> bool
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    name.split_once('/').is_some_and(|(namespace, name)| cache.get(&ObjectRef::new(name).within(namespace)).is_some())
}

/// The objects whose newest generation no reconcile has observed; `None` until they are listed. Leaves out objects that are being deleted:
/// they have conditions of their own, and may wait for others.
fn behind<K>(cache: &Cache<K>, observed: impl Fn(&K) -> Option<i64>) -> Option<Vec<Behind>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    cache.is_synced().then_some(())?;
    let objects = cache.list();
    let behind = objects.iter().filter_map(|object| {
        let generation = object.meta().generation.filter(|_| object.meta().deletion_timestamp.is_none())?;
        let is_behind = observed(object).is_none_or(|observed| observed < generation);
        is_behind.then(|| Behind { object: reconcile::name(object.as_ref()), generation })
    });
    Some(behind.collect())
}
