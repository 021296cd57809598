//! The controller of Devices: credentials, host keys, freshness, and the end of a device's data.

mod context;
mod credentials;
pub mod delete;
pub mod dereference;
pub mod identity;
pub mod keypair;
pub mod sites;
pub mod status;
pub mod validate;

use std::sync::Arc;
use std::time::Duration;

use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use tsujiban_api::device::{condition, reason};
use tsujiban_api::{Device, DeviceStatus};

use crate::backoff::spread;
use crate::condition::{find, is_true};
use crate::finalizer;
use crate::reconcile::{Failure, StepFailed, at, name, observed};

pub use context::DeviceContext;

pub const KIND: &str = "Device";
/// How often a Device is reconciled. What it depends on is not watched, so one that is not ready is reconciled more often.
const RESYNC: Duration = Duration::from_mins(5);
const RESYNC_NOT_READY: Duration = Duration::from_secs(20);
/// How often a Device is reconciled while its group is being provisioned. The Tenant queues its Devices when that is done, but not those
/// that are created meanwhile.
const BEING_MADE: Duration = Duration::from_secs(1);

pub async fn reconcile(device: Arc<Device>, context: Arc<DeviceContext>) -> Result<Action, Failure> {
    observed(&context.shared, KIND, &name(device.as_ref()), Box::pin(run(&context, &device))).await
}

async fn run(context: &DeviceContext, device: &Device) -> Result<Action, StepFailed> {
    let id = identity::identity(device).map_err(at("identity"))?;
    let api: Api<Device> = Api::namespaced(context.shared.client.clone(), &id.namespace);
    if device.metadata.deletion_timestamp.is_some() {
        if finalizer::is_set(device) {
            context.recorder.record_changes(&id.group, device);
            if !context.recorder.deletion_recorded(device).await {
                tracing::warn!(
                    device = name(device),
                    "the deletion of a device is not in the operation history yet; the device waits for that"
                );
                return Ok(Action::requeue(RESYNC_NOT_READY)); // the acknowledgement queues the Device
            }
            delete::clean_up(context, &api, device, &id).await.map_err(at("delete"))?;
            context.recorder.journal.forget(&device.uid().unwrap_or_default());
            context.tenant_queue.add_ref(ObjectRef::new(id.group.as_str()));
            count_conflicts(context, device, false);
        }
        return Ok(Action::await_change());
    }
    context.recorder.record_changes(&id.group, device);
    context.tenants.wait_for_sync().await;
    let Some(tenant) = context.tenants.get(&ObjectRef::new(id.group.as_str())) else {
        return Ok(Action::requeue(spread(RESYNC, &id.namespace))); // retained without a Tenant: everything stays as it is
    };
    if !finalizer::is_set(device) {
        finalizer::add(&api, device).await.map_err(at("finalizer"))?;
        return Ok(Action::requeue(RESYNC_NOT_READY)); // the change comes back as an event
    }
    if tenant.status.as_ref().is_none_or(|status| status.observed_generation.is_none()) {
        return Ok(Action::requeue(BEING_MADE)); // the group's plan is not known yet
    }
    let mut found = dereference::dereference(context, device, &id, tenant).await.map_err(at("dereference"))?;
    let generated =
        credentials::ensure(&context.shared.client, &*context.random, device, &id, &mut found).await.map_err(at("credentials"))?;
    let view = validate::View { device, id: &id, found: &found, generated: generated.as_ref(), now: context.shared.clock.now() };
    let recorded = context.recorder.recorded(device).await;
    let status = DeviceStatus { recorded, ..status::status(&view, &context.forbidden) };
    let written = status::write(&api, device, &status).await.map_err(at("status"))?;
    count_conflicts(context, device, found.is_duplicate);
    requeue_rivals(context, device);
    if written {
        context.tenant_queue.add_ref(ObjectRef::new(id.group.as_str()));
        announce(context, device, &status).await;
    }
    let is_judged = found.plan.is_some() || found.tenant.spec.suspended;
    let settled = is_judged && is_true(&status.conditions, condition::READY);
    Ok(Action::requeue(spread(if settled { RESYNC } else { RESYNC_NOT_READY }, &name(device))))
}

/// Queues the other Devices with this serial number whose status and the cache disagree about a conflict: they may have been reconciled
/// before this Device was known.
fn requeue_rivals(context: &DeviceContext, device: &Device) {
    if !context.serials.may_be_shared(device) {
        return;
    }
    let all = context.devices.list();
    let is_rival = |other: &Device| other.spec.serial_number == device.spec.serial_number && other.metadata.uid != device.metadata.uid;
    for rival in all.iter().filter(|other| is_rival(other)) {
        if dereference::is_duplicate(rival, &all) != is_in_conflict(rival) {
            context.device_queue.add(rival);
        }
    }
}

fn is_in_conflict(device: &Device) -> bool {
    let conditions = device.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    find(conditions, condition::READY).is_some_and(|ready| ready.reason == reason::SERIAL_CONFLICT)
}

fn count_conflicts(context: &DeviceContext, device: &Device, is_duplicate: bool) {
    let all = context.serials.note(device, is_duplicate);
    context.shared.metrics.serial_conflicts.set(i64::try_from(all).unwrap_or(i64::MAX));
}

/// Publishes an Event when a Device stopped being ready. A conflict of serial numbers is also logged, for the platform staff: the group
/// must not learn from the Event who else has the number.
async fn announce(context: &DeviceContext, device: &Device, status: &DeviceStatus) {
    let before = device.status.as_ref().and_then(|status| find(&status.conditions, condition::READY));
    let Some(now) = find(&status.conditions, condition::READY) else { return };
    if now.status == "True" || before.is_some_and(|before| before.reason == now.reason) {
        return;
    }
    if now.reason == reason::SERIAL_CONFLICT {
        tracing::warn!(
            device = name(device),
            serial = device.spec.serial_number,
            "two Devices have the same serial number; the younger one is not backed up"
        );
    }
    context.shared.events.tell(&device.object_ref(&()), EventType::Warning, &now.reason, now.message.clone()).await;
}
