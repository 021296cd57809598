//! The controller of Tenants: one group each, in one namespace of its own.

mod apply;
pub mod build;
pub mod children;
pub mod claim;
pub mod clock;
pub mod conformance;
mod context;
pub mod delete;
pub mod dereference;
pub mod freshness;
pub mod keys;
mod provision;
pub mod quantity;
pub mod status;
pub mod storage;
pub mod sync_cache;
pub mod validate;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::{Api, Resource, ResourceExt};
use tsujiban_api::tenant::condition::{BACKUP_SCHEDULED, CLOCK_SYNCHRONISED, CONFORMANT, READY, STORAGE_INTACT};
use tsujiban_api::{Tenant, TenantStatus, names};
use tsujiban_core::error::chain;
use tsujiban_core::workload::Service;

use crate::backoff::spread;
use crate::condition::{Verdict, find, is_false, is_true};
use crate::finalizer;
use crate::history::Declared as _;
use crate::reconcile::{Failure, StepFailed, at, observed};

use provision::{Incomplete, provision};
use status::{Outcome, TERMINATING, conditions};
use sync_cache::{Key, Settled, Watched as _};

pub use claim::{Noted, belongs_to};
pub use context::TenantContext;

pub const KIND: &str = "Tenant";
/// How often a Tenant is reconciled; in full as long as something is wrong with it. With its spread this is less than a minute.
const RESYNC: Duration = Duration::from_secs(45);
/// How often the namespace of a Tenant that is being deleted is read.
const WAIT: Duration = Duration::from_secs(2);
/// How often a terminating namespace is read that has to be recreated. Its watch reports the deletion as well.
const GOING: Duration = Duration::from_secs(10);

pub async fn reconcile(tenant: Arc<Tenant>, context: Arc<TenantContext>) -> Result<Action, Failure> {
    let name = tenant.name_any();
    observed(&context.shared, KIND, &name, Box::pin(run(&context, &tenant))).await
}

async fn run(context: &TenantContext, tenant: &Tenant) -> Result<Action, StepFailed> {
    let id = validate::identity(tenant).map_err(at("identity"))?;
    if tenant.metadata.deletion_timestamp.is_some() {
        return finalize(context, tenant, &id).await;
    }
    context.recorder.record_changes(&id.group, tenant);
    if !finalizer::is_set(tenant) {
        let api: Api<Tenant> = Api::all(context.shared.client.clone());
        finalizer::add(&api, tenant).await.map_err(at("finalizer"))?;
        return Ok(Action::requeue(WAIT)); // the change comes back as an event
    }
    context.devices.wait_for_sync().await;
    let key = Key::of(&id, tenant.metadata.generation);
    let survey = survey(context, tenant, &id);
    let provisioned = match cached_outcome(context, &id, &key).await {
        Some(found) => {
            Ok(Outcome { devices: survey.devices, fresh: survey.fresh, clock: survey.clock, platform: survey.platform, ..found })
        }
        None => provision(context, tenant, &id, key, survey).await,
    };
    let (outcome, failed) = match provisioned {
        Ok(outcome) => (outcome, None),
        Err(Incomplete { outcome, failed }) => (*outcome, Some(failed)),
    };
    let outcome = Outcome { recorded: context.recorder.recorded(tenant).await, ..outcome };
    let status = status::status(tenant, &outcome, context.shared.clock.now());
    let written = status::write(&context.shared.client, tenant, &status).await.map_err(at("status"))?;
    if written {
        announce(context, tenant, &id, &status).await;
    }
    if let Some(failed) = failed {
        return Err(failed);
    }
    let is_going = outcome.namespace.as_ref().is_some_and(|verdict| verdict.reason == TERMINATING);
    Ok(Action::requeue(if is_going { GOING } else { spread(RESYNC, id.group.as_str()) }))
}

/// What the last full reconcile found, if nothing is known to have changed since.
async fn cached_outcome(context: &TenantContext, id: &validate::Identity, key: &Key) -> Option<Outcome> {
    let (group, now) = (id.group.as_str(), context.shared.clock.now());
    let Settled { outcome, is_asked, at } = context.sync_cache.settled(group, key, now)?;
    if !is_asked && conformance::may_ask(context) {
        return None;
    }
    if outcome.incarnation.as_ref().is_none_or(|life| context.reports.borrow().deny(&id.group, life, at)) {
        return None;
    }
    if context.sync_cache.take_unwatched(group, now) {
        // ConfigMaps are not watched: a watch of all namespaces would include foreign ones, which the operator may not read
        let api: Api<ConfigMap> = Api::namespaced(context.shared.client.clone(), &names::namespace(&id.group));
        let found = api.get_metadata_opt(names::CA_CONFIGMAP).await.ok()??;
        if context.sync_cache.observe(group, found.object_key(), found.observed_version()) {
            return None;
        }
    }
    Some(outcome)
}

/// What is known about the group without asking the apiserver or a service.
fn survey(context: &TenantContext, tenant: &Tenant, id: &validate::Identity) -> Outcome {
    let fleet = freshness::Fleet::of(&context.devices.list_in(&names::namespace(&id.group)));
    let age = fleet.oldest.filter(|_| !tenant.spec.suspended).map(|oldest| context.shared.clock.now().duration_since(oldest).as_secs_f64());
    context.shared.metrics.backup_age(id.group.as_str(), age);
    let (canary, synchronised) = {
        let reports = context.reports.borrow();
        (reports.canary_failure().map(str::to_owned), reports.clock_synchronised())
    };
    let before = |type_: &str| find(conditions(tenant), type_).map(|condition| condition.reason.as_str());
    let life = tenant.status.as_ref().and_then(|status| status.incarnation.as_ref()?.parse().ok());
    let platform = storage::verdicts(
        &context.services.names(),
        &context.reports.borrow(),
        &context.installation.borrow(),
        life.as_ref().map(|life| (&id.group, life)),
        before,
    );
    Outcome {
        devices: fleet.devices,
        fresh: Some(fleet.verdict(tenant.spec.suspended, canary.as_deref())),
        clock: clock::verdict(context.services.find(Service::Audit).is_some(), before(CLOCK_SYNCHRONISED).is_some(), synchronised),
        platform,
        ..Outcome::default()
    }
}

/// Finalizes a Tenant that is being deleted.
async fn finalize(context: &TenantContext, tenant: &Tenant, id: &validate::Identity) -> Result<Action, StepFailed> {
    if !finalizer::is_set(tenant) {
        return Ok(Action::await_change());
    }
    context.recorder.record_changes(&id.group, tenant);
    if !context.recorder.deletion_recorded(tenant).await {
        return wait_for_history(context, tenant).await;
    }
    let (deletion, result) = match delete::clean_up(context, tenant, id).await {
        Ok(delete::Progress::Released) => {
            context.access_reviews.forget(id.group.as_str());
            context.sync_cache.forget(id.group.as_str());
            context.recorder.journal.forget(&id.uid);
            return Ok(Action::await_change());
        }
        Ok(delete::Progress::Waiting) => {
            (Verdict::fails("Erasing", "the group's data is erased; waiting for its namespace to go"), Ok(Action::requeue(WAIT)))
        }
        Err(error) => (Verdict::fails("ErasePending", chain(&error)), Err(at("delete")(error))),
    };
    write_deletion(context, tenant, deletion).await?;
    result
}

/// A deletion is not carried out before it is in the history: once the Tenant is gone, nothing is left from which to record it.
async fn wait_for_history(context: &TenantContext, tenant: &Tenant) -> Result<Action, StepFailed> {
    let why = "the deletion is not in the operation history yet, and nothing is done before it is: the audit service does not take it";
    write_deletion(context, tenant, Verdict::fails("NotRecorded", why)).await?;
    Ok(Action::requeue(GOING))
}

async fn write_deletion(context: &TenantContext, tenant: &Tenant, deletion: Verdict) -> Result<(), StepFailed> {
    let devices = tenant.status.as_ref().and_then(|status| status.devices).unwrap_or_default();
    let recorded = tenant.uid().and_then(|uid| context.recorder.journal.recorded(&uid, tenant.recorded_in_status()));
    let outcome = Outcome { deletion: Some(deletion), devices, recorded, ..Outcome::default() };
    let status = status::status(tenant, &outcome, context.shared.clock.now());
    status::write(&context.shared.client, tenant, &status).await.map(|_| ()).map_err(at("status"))
}

/// Publishes an Event when the Tenant became ready, conformant or damaged, or stopped being so, and queues its Devices when what they
/// depend on changed.
async fn announce(context: &TenantContext, tenant: &Tenant, id: &validate::Identity, status: &TenantStatus) {
    let since = |list| find(list, BACKUP_SCHEDULED).map(|condition| condition.last_transition_time.clone());
    let observed = tenant.status.as_ref().and_then(|status| status.observed_generation);
    if observed != status.observed_generation || since(conditions(tenant)) != since(&status.conditions) {
        context.devices.list_in(&names::namespace(&id.group)).iter().for_each(|device| context.device_queue.add(device));
    }
    for type_ in [READY, CONFORMANT] {
        let (was, is) = (is_true(conditions(tenant), type_), is_true(&status.conditions, type_));
        let Some(condition) = find(&status.conditions, type_).filter(|_| was != is) else { continue };
        let type_ = if is { EventType::Normal } else { EventType::Warning };
        context.shared.events.tell(&tenant.object_ref(&()), type_, &condition.reason, condition.message.clone()).await;
    }
    // no Event when the first check finds the storage intact
    let (was, is) = (is_false(conditions(tenant), STORAGE_INTACT), is_false(&status.conditions, STORAGE_INTACT));
    if let Some(condition) = find(&status.conditions, STORAGE_INTACT).filter(|_| was != is) {
        let (type_, reason) = if is { (EventType::Warning, "StorageDamaged") } else { (EventType::Normal, "StorageHealed") };
        context.shared.events.tell(&tenant.object_ref(&()), type_, reason, condition.message.clone()).await;
    }
}
