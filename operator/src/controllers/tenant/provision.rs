//! Makes a group's namespace what its Tenant declares: one chain of steps, each of which needs the one before it. A step that fails ends the
//! chain.

use tsujiban_api::{Tenant, names};
use tsujiban_core::error::chain;

use super::context::TenantContext;
use super::status::{Outcome, TERMINATING, not_applied};
use super::sync_cache::{Key, ObservedVersions};
use super::validate::{self, Identity, Invalid, ValidTenant};
use super::{apply, build, conformance, dereference, keys};
use crate::condition::Verdict;
use crate::reconcile::{StepFailed, at};

/// A chain that ended early: the step that failed, and what the status says of it and of the steps before it.
#[derive(Debug)]
pub struct Incomplete {
    pub outcome: Box<Outcome>,
    pub failed: StepFailed,
}

impl Incomplete {
    fn new(failed: StepFailed, outcome: Outcome) -> Self {
        Self { outcome: Box::new(outcome), failed }
    }
}

/// Reconciles a group in full. `survey` is what is known without reading anything.
pub async fn provision(context: &TenantContext, tenant: &Tenant, id: &Identity, key: Key, survey: Outcome) -> Result<Outcome, Incomplete> {
    let group = id.group.as_str();
    let valid = match validate::validate(id, &tenant.spec, &context.forbidden) {
        Ok(valid) => valid,
        Err(wrong) => return keep(context, id, &wrong, survey).await,
    };
    let run = context.sync_cache.begin(group);
    let (outcome, known) = steps(context, tenant, valid, survey).await?;
    if outcome.is_right() {
        context.sync_cache.settle(&run, group, key, known, outcome.clone(), context.shared.clock.now());
    }
    Ok(outcome)
}

/// Keeps the namespace of a Tenant whose spec cannot be built: what was built before stays.
async fn keep(context: &TenantContext, id: &Identity, wrong: &[Invalid], survey: Outcome) -> Result<Outcome, Incomplete> {
    let outcome = Outcome { invalid: Some(validate::sentences(wrong)), fresh: None, ..survey };
    match apply::keep(&context.shared.client, id, &context.platform.system_namespace).await {
        Ok(()) => Ok(outcome),
        Err(error) => {
            let isolation = Some(not_applied(&error));
            Err(Incomplete::new(at("isolation")(error), Outcome { isolation, ..outcome }))
        }
    }
}

/// The steps. Returns what they found, and the versions of the objects afterwards.
async fn steps(
    context: &TenantContext,
    tenant: &Tenant,
    valid: ValidTenant,
    survey: Outcome,
) -> Result<(Outcome, ObservedVersions), Incomplete> {
    let (client, id, suspended) = (&context.shared.client, valid.id.clone(), valid.suspended);
    let schedule = valid.plan.own(id.group.as_str()).0;
    let scheduled = scheduled(&valid, &schedule);
    let mut outcome = Outcome { suspended, schedule: Some(schedule), ..survey };

    let found = dereference::dereference(client, &id.group).await.map_err(|error| {
        let namespace = Some(Verdict::fails("NotRead", chain(&error)));
        Incomplete::new(at("dereference")(error), Outcome { namespace, ..outcome.clone() })
    })?;

    let holding = apply::hold(client, &id, found.namespace.as_ref()).await.map_err(|error| {
        let namespace = Some(not_applied(&error));
        Incomplete::new(at("namespace")(error), Outcome { namespace, ..outcome.clone() })
    })?;
    let apply::Holding::Held { noted, namespace: held, before } = holding else {
        let namespace = Some(refusal(&id, &holding));
        return Ok((Outcome { namespace, ..outcome }, ObservedVersions::default()));
    };
    let message = format!("namespace {} is the group's", names::namespace(&id.group));
    outcome.namespace = Some(Verdict::holds("Held", message));

    let blueprint = build::Blueprint {
        tenant: valid,
        platform: context.platform.clone(),
        apiserver: found.apiserver,
        ca_bundle: context.ca_bundle.borrow().clone(),
    };
    let isolated = apply::isolate(client, &id, before, build::build(&blueprint)).await.map_err(|error| {
        let isolation = Some(not_applied(&error));
        Incomplete::new(at("isolation")(error), Outcome { isolation, ..outcome.clone() })
    })?;
    let apply::Isolated { cron_jobs, mut live, mut known } = isolated;
    let isolation = Verdict::holds("Isolated", "rights, network policies, quota and limits are as they must be");
    outcome.isolation = Some(isolation);

    // the CronJob is written also while a service does not answer, so a failure of this step is reported after it
    let keys = keys::prepare(context, tenant, &id, noted, &held).await;
    (outcome.keys, outcome.incarnation) = (Some(keys.verdict), keys.incarnation);

    let cron_jobs = apply::schedule(client, &id, before, cron_jobs, suspended).await.map_err(|error| {
        let scheduled = Some(not_applied(&error));
        Incomplete::new(at("schedule")(error), Outcome { scheduled, ..outcome.clone() })
    })?;
    outcome.scheduled = Some(scheduled);

    let namespace = keys.namespace.unwrap_or(*held);
    known.note(&cron_jobs);
    known.note([&namespace]);
    live.namespace = Some(namespace);
    outcome.conformance = conformance::evaluate(context, &blueprint.tenant, tenant.metadata.generation, &live).await;
    match keys.failed {
        None => Ok((outcome, known)),
        Some(failed) => Err(Incomplete::new(failed, outcome)),
    }
}

fn scheduled(tenant: &ValidTenant, schedule: &str) -> Verdict {
    if tenant.suspended {
        return Verdict::fails("Suspended", "the group is suspended: nothing is backed up until spec.suspended is false again");
    }
    Verdict::holds("Scheduled", format!("the devices are backed up at \"{schedule}\" {}", tenant.plan.time_zone()))
}

fn refusal(id: &Identity, holding: &apply::Holding) -> Verdict {
    let namespace = names::namespace(&id.group);
    match holding {
        apply::Holding::Taken(why) => Verdict::fails(
            "NamespaceTaken",
            format!("namespace {namespace} exists and {why}; it is left alone: delete it, or choose another name for the Tenant"),
        ),
        apply::Holding::Held { .. } | apply::Holding::Terminating => {
            Verdict::fails(TERMINATING, format!("namespace {namespace} is going away and will be made again when it has gone"))
        }
    }
}
