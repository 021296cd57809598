//! The controller of Tenants: one group each, in one namespace of its own.

mod apply;
pub mod build;
pub mod children;
pub mod claim;
pub mod clock;
pub mod conformance;
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
use tsujiban_api::tenant::condition::{CLOCK_SYNCHRONISED, STORAGE_INTACT};
use tsujiban_api::{Tenant, names};
use tsujiban_core::error::chain;
use tsujiban_core::workload::Service;

use crate::backoff::spread;
use crate::condition::{Verdict, find, is_false, is_true};
use crate::context::{CacheSync, Context};
use crate::finalizer;
use crate::history::{self, Declared as _};
use crate::reconcile::{Failure, StepFailed, at, observed};

use provision::{Incomplete, provision};
use status::{Outcome, TERMINATING, conditions};
use sync_cache::{Key, Settled, Watched as _};

pub use claim::{Noted, belongs_to};

pub const KIND: &str = "Tenant";
/// How often a Tenant is looked at again, and everything of one that is not as it must be: with its spread, within less than a minute.
const RESYNC: Duration = Duration::from_secs(45);
/// How often a namespace that is going away is looked at.
const WAIT: Duration = Duration::from_secs(2);
/// How often it is looked whether a namespace has gone that must be made again, should nobody say so.
const GOING: Duration = Duration::from_secs(10);

pub async fn reconcile(tenant: Arc<Tenant>, context: Arc<Context>) -> Result<Action, Failure> {
    let name = tenant.name_any();
    observed(&context, KIND, &name, Box::pin(run(&tenant, &context))).await
}

async fn run(tenant: &Tenant, context: &Context) -> Result<Action, StepFailed> {
    let id = validate::identity(tenant).map_err(at("identity"))?;
    if tenant.metadata.deletion_timestamp.is_some() {
        return cleanup(tenant, context, &id).await;
    }
    history::record_changes(context, &id.group, tenant);
    if !finalizer::is_set(tenant) {
        let api: Api<Tenant> = Api::all(context.client.clone());
        finalizer::add(&api, tenant).await.map_err(at("finalizer"))?;
        return Ok(Action::requeue(WAIT)); // the change comes back as an event
    }
    CacheSync::wait(&context.listed.devices).await;
    let key = Key::of(&id, tenant.metadata.generation);
    let survey = survey(tenant, context, &id);
    let provisioned = match cached_outcome(context, &id, &key).await {
        Some(found) => Ok(Outcome { devices: survey.devices, fresh: survey.fresh, clock: survey.clock, told: survey.told, ..found }),
        None => provision(context, tenant, &id, key, survey).await,
    };
    let (outcome, failed) = match provisioned {
        Ok(outcome) => (outcome, None),
        Err(Incomplete { outcome, failed }) => (*outcome, Some(failed)),
    };
    let outcome = Outcome { recorded: history::recorded(context, tenant).await, ..outcome };
    let status = status::status(tenant, &outcome, context.clock.now());
    let written = status::write(&context.client, tenant, &status).await.map_err(at("status"))?;
    if written {
        announce(tenant, &id, &status, context).await;
    }
    if let Some(failed) = failed {
        return Err(failed);
    }
    let is_going = outcome.namespace.as_ref().is_some_and(|verdict| verdict.reason == TERMINATING);
    Ok(Action::requeue(if is_going { GOING } else { spread(RESYNC, id.group.as_str()) }))
}

/// What was found when the group was last gone through, if nothing has changed since as far as is known.
async fn cached_outcome(context: &Context, id: &validate::Identity, key: &Key) -> Option<Outcome> {
    let (group, now) = (id.group.as_str(), context.clock.now());
    let Settled { outcome, is_asked, at } = context.sync_cache.settled(group, key, now)?;
    if !is_asked && conformance::may_ask(context) {
        return None;
    }
    if outcome.incarnation.as_ref().is_none_or(|life| context.reports.borrow().deny(&id.group, life, at)) {
        return None;
    }
    if context.sync_cache.take_unwatched(group, now) {
        // nobody may watch ConfigMaps, for others' are among them
        let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), &names::namespace(&id.group));
        let found = api.get_metadata_opt(names::CA_CONFIGMAP).await.ok()??;
        if context.sync_cache.observe(group, found.object_key(), found.observed_version()) {
            return None;
        }
    }
    Some(outcome)
}

/// What is known about the group's devices without asking anybody.
fn survey(tenant: &Tenant, context: &Context, id: &validate::Identity) -> Outcome {
    let fleet = freshness::Fleet::of(&context.devices_of(&id.group));
    let age = fleet.oldest.filter(|_| !tenant.spec.suspended).map(|oldest| context.clock.now().duration_since(oldest).as_secs_f64());
    context.metrics.backup_age(id.group.as_str(), age);
    let (canary, synchronised) = {
        let reports = context.reports.borrow();
        (reports.canary_failure().map(str::to_owned), reports.clock_synchronised())
    };
    let before = |type_: &str| find(conditions(tenant), type_).map(|condition| condition.reason.as_str());
    let life = tenant.status.as_ref().and_then(|status| status.incarnation.as_ref()?.parse().ok());
    let told = storage::verdicts(
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
        told,
        ..Outcome::default()
    }
}

/// Lets a Tenant go that is being deleted.
async fn cleanup(tenant: &Tenant, context: &Context, id: &validate::Identity) -> Result<Action, StepFailed> {
    if !finalizer::is_set(tenant) {
        return Ok(Action::await_change());
    }
    history::record_changes(context, &id.group, tenant);
    if !history::deletion_recorded(context, tenant).await {
        return wait_for_history(tenant, context).await;
    }
    let (leaving, result) = match delete::clean_up(context, tenant, id).await {
        Ok(delete::Progress::Released) => {
            context.conformance.forget(id.group.as_str());
            context.sync_cache.forget(id.group.as_str());
            context.journal.forget(&id.uid);
            return Ok(Action::await_change());
        }
        Ok(delete::Progress::Waiting) => {
            (Verdict::fails("Erasing", "the group's data is erased; waiting for its namespace to go"), Ok(Action::requeue(WAIT)))
        }
        Err(error) => (Verdict::fails("ErasePending", chain(&error)), Err(at("delete")(error))),
    };
    tell_leaving(tenant, context, leaving).await?;
    result
}

/// Nothing is done about a deletion before it is in the history: once the Tenant has gone, nothing tells of it any more.
async fn wait_for_history(tenant: &Tenant, context: &Context) -> Result<Action, StepFailed> {
    let why = "the deletion is not in the operation history yet, and nothing is done before it is: the audit service does not take it";
    tell_leaving(tenant, context, Verdict::fails("NotRecorded", why)).await?;
    Ok(Action::requeue(GOING))
}

async fn tell_leaving(tenant: &Tenant, context: &Context, leaving: Verdict) -> Result<(), StepFailed> {
    let devices = tenant.status.as_ref().and_then(|status| status.devices).unwrap_or_default();
    let recorded = tenant.uid().and_then(|uid| context.journal.recorded(&uid, tenant.said()));
    let outcome = Outcome { leaving: Some(leaving), devices, recorded, ..Outcome::default() };
    let status = status::status(tenant, &outcome, context.clock.now());
    status::write(&context.client, tenant, &status).await.map(|_| ()).map_err(at("status"))
}

/// Tells people when a Tenant became ready, or stopped being it; has its Devices looked at when what they depend on changed.
async fn announce(tenant: &Tenant, id: &validate::Identity, status: &tsujiban_api::TenantStatus, context: &Context) {
    let since =
        |list| find(list, tsujiban_api::tenant::condition::BACKUP_SCHEDULED).map(|condition| condition.last_transition_time.clone());
    let observed = tenant.status.as_ref().and_then(|status| status.observed_generation);
    if observed != status.observed_generation || since(conditions(tenant)) != since(&status.conditions) {
        context.devices_of(&id.group).iter().for_each(|device| context.wake_device(device));
    }
    for type_ in [tsujiban_api::tenant::condition::READY, tsujiban_api::tenant::condition::CONFORMANT] {
        let (was, is) = (is_true(conditions(tenant), type_), is_true(&status.conditions, type_));
        let Some(condition) = find(&status.conditions, type_).filter(|_| was != is) else { continue };
        let type_ = if is { EventType::Normal } else { EventType::Warning };
        context.events.tell(&tenant.object_ref(&()), type_, &condition.reason, condition.message.clone()).await;
    }
    // what was never checked and is intact now is no event
    let (was, is) = (is_false(conditions(tenant), STORAGE_INTACT), is_false(&status.conditions, STORAGE_INTACT));
    if let Some(condition) = find(&status.conditions, STORAGE_INTACT).filter(|_| was != is) {
        let (type_, reason) = if is { (EventType::Warning, "StorageDamaged") } else { (EventType::Normal, "StorageHealed") };
        context.events.tell(&tenant.object_ref(&()), type_, reason, condition.message.clone()).await;
    }
}
