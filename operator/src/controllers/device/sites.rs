//! Queues the Devices whose Site was created or deleted: the controller of Devices does not watch Sites.

use std::sync::Arc;

use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;
use tsujiban_api::{Device, Site};

use super::context::DeviceContext;
use super::validate::SITE_MISSING;

/// Handles an event of the watch of Sites. A Site that is being deleted counts as gone, however long it waits to be recorded.
pub fn site_event(context: &DeviceContext, event: &Event<Site>) {
    match event {
        Event::Apply(site) if site.metadata.deletion_timestamp.is_none() => site_exists(context, site),
        Event::Apply(site) | Event::Delete(site) => site_deleted(context, site),
        Event::InitDone => sites_listed(context),
        Event::Init | Event::InitApply(_) => {}
    }
}

/// Queues the Devices whose status says that this Site, which exists now, is missing.
pub fn site_exists(context: &DeviceContext, site: &Site) {
    let waiting = devices_of(context, site).into_iter().filter(|device| lacks_site(device));
    waiting.for_each(|device| context.device_queue.add(&device));
}

/// Queues the Devices whose Site is gone.
pub fn site_deleted(context: &DeviceContext, site: &Site) {
    for device in devices_of(context, site) {
        context.device_queue.add(&device);
    }
}

/// Queues the Devices whose status and the newly listed cache disagree about whether their Site exists.
pub fn sites_listed(context: &DeviceContext) {
    let has_site = |device: &Device| {
        let namespace = device.namespace().unwrap_or_default();
        let site = context.sites.get(&ObjectRef::new(&device.spec.site_ref.name).within(&namespace));
        site.is_some_and(|site| site.metadata.deletion_timestamp.is_none())
    };
    let all = context.devices.list();
    let wrong = all.iter().filter(|device| device.status.is_some() && has_site(device) == lacks_site(device));
    wrong.for_each(|device| context.device_queue.add(device));
}

fn devices_of(context: &DeviceContext, site: &Site) -> Vec<Arc<Device>> {
    let name = site.metadata.name.as_ref();
    let is_at = |device: &Arc<Device>| device.metadata.namespace == site.metadata.namespace && Some(&device.spec.site_ref.name) == name;
    context.devices.list().into_iter().filter(is_at).collect()
}

fn lacks_site(device: &Device) -> bool {
    let mut conditions = device.status.iter().flat_map(|status| &status.conditions);
    conditions.any(|condition| condition.reason == SITE_MISSING)
}
