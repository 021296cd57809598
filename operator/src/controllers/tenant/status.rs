//! What a reconcile found, as the Tenant's status. Pure, save for the one write.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tsujiban_api::tenant::condition::{
    BACKUP_FRESH, BACKUP_SCHEDULED, CLOCK_SYNCHRONISED, CONFORMANT, ISOLATION_READY, KEYS_READY, NAMESPACE_READY, READY,
};
use tsujiban_api::{Recorded, Tenant, TenantStatus, names};
use tsujiban_core::error::chain;
use tsujiban_core::id::IncarnationId;

use crate::apply::{ApplyError, failed};
use crate::condition::{Conditions, Verdict};

/// The reason of a condition that waits for a namespace to go.
pub const TERMINATING: &str = "NamespaceTerminating";

/// What a reconcile found. Aspects that it did not reach are `None`.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Why the spec cannot be built.
    pub invalid: Option<String>,
    /// Why the Tenant is not gone yet, while it is being deleted.
    pub deletion: Option<Verdict>,
    pub suspended: bool,
    pub namespace: Option<Verdict>,
    pub isolation: Option<Verdict>,
    pub keys: Option<Verdict>,
    pub scheduled: Option<Verdict>,
    pub fresh: Option<Verdict>,
    /// Whether the owners' rights conform. It does not affect condition Ready: an owner's right that was granted elsewhere stops no backup,
    /// and people, not the operator, have to revoke it.
    pub conformance: Option<Verdict>,
    /// Whether the history's times are reliable. Does not affect condition Ready, either.
    pub clock: Option<Verdict>,
    /// The verdicts about the services and the installation, by type of condition. They do not affect condition Ready, either.
    pub platform: Vec<(&'static str, Verdict)>,
    pub schedule: Option<String>,
    pub incarnation: Option<IncarnationId>,
    /// The newest spec that is in the operation history.
    pub recorded: Option<Recorded>,
    pub devices: i64,
}

impl Outcome {
    /// Whether everything is correct and stays so until something changes. Never true for a suspended group, whose Jobs are not watched.
    pub fn is_right(&self) -> bool {
        let parts = [&self.namespace, &self.isolation, &self.keys, &self.scheduled];
        let all = parts.into_iter().all(|part| part.as_ref().is_some_and(Verdict::is_true));
        let conforms = self.conformance.as_ref().is_none_or(Verdict::is_true);
        all && conforms && !self.suspended && self.invalid.is_none() && self.deletion.is_none() && self.incarnation.is_some()
    }
}

/// The aspects that make a Tenant ready, in the order in which they are reached.
const PARTS: [&str; 4] = [NAMESPACE_READY, ISOLATION_READY, KEYS_READY, BACKUP_SCHEDULED];

/// The conditions that the Tenant's status has now.
pub fn conditions(tenant: &Tenant) -> &[Condition] {
    tenant.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default()
}

/// The verdict of a step whose objects could not be written.
pub fn not_applied(error: &ApplyError) -> Verdict {
    Verdict::fails(if error.is_terminating() { TERMINATING } else { "ApplyFailed" }, chain(error))
}

/// The status that follows from the one before and what was found.
pub fn status(tenant: &Tenant, outcome: &Outcome, now: Timestamp) -> TenantStatus {
    let previous = tenant.status.clone().unwrap_or_default();
    let mut conditions = Conditions::from_previous(&previous.conditions, tenant.metadata.generation, now);
    let keep_working = outcome.invalid.is_some() || outcome.deletion.is_some();
    let found = [&outcome.namespace, &outcome.isolation, &outcome.keys, &outcome.scheduled];
    for (part, verdict) in PARTS.into_iter().zip(found) {
        match verdict {
            // a changed schedule counts from now on: no device missed a window of it that lies in the past
            Some(verdict) if part == BACKUP_SCHEDULED && previous.schedule.is_some() && outcome.schedule != previous.schedule => {
                conditions.restart(part, verdict);
            }
            Some(verdict) => conditions.set(part, verdict),
            None if keep_working => {}
            None => conditions.set(part, &Verdict::unknown("NotReached", "an earlier step has to succeed first; see condition Ready")),
        }
    }
    if let Some(fresh) = &outcome.fresh {
        conditions.set(BACKUP_FRESH, fresh);
    }
    if let Some(clock) = &outcome.clock {
        conditions.set(CLOCK_SYNCHRONISED, clock);
    }
    for (type_, verdict) in &outcome.platform {
        conditions.set(type_, verdict);
    }
    let is_isolated = outcome.isolation.as_ref().is_some_and(Verdict::is_true);
    match &outcome.conformance {
        Some(conformance) => conditions.set(CONFORMANT, conformance),
        // an earlier result says nothing about a namespace whose isolation is not confirmed
        None if !keep_working && !is_isolated && conditions.get(CONFORMANT).is_some() => {
            conditions.set(CONFORMANT, &Verdict::unknown("NotReached", "an earlier step has to succeed first; see condition Ready"));
        }
        None => {}
    }
    let ready = ready(outcome, &conditions);
    conditions.set(READY, &ready);
    TenantStatus {
        observed_generation: tenant.metadata.generation,
        conditions: conditions.into_list(),
        namespace: tenant.metadata.name.as_ref().and_then(|name| name.parse().ok()).map(|group| names::namespace(&group)),
        incarnation: outcome.incarnation.as_ref().map(ToString::to_string).or(previous.incarnation),
        schedule: outcome.schedule.clone().or(previous.schedule),
        devices: Some(outcome.devices),
        recorded: outcome.recorded.clone().or(previous.recorded),
    }
}

fn ready(outcome: &Outcome, conditions: &Conditions) -> Verdict {
    if let Some(deletion) = &outcome.deletion {
        return deletion.clone();
    }
    if let Some(sentences) = &outcome.invalid {
        return Verdict::fails("InvalidSpec", format!("{sentences}; what was built before stays as it is"));
    }
    let missing = PARTS.iter().filter(|part| !(outcome.suspended && **part == BACKUP_SCHEDULED)).find(|part| !conditions.is_true(part));
    match missing.and_then(|part| conditions.get(part)) {
        Some(condition) => Verdict::fails(&condition.reason, format!("{}: {}", condition.type_, condition.message)),
        None if outcome.suspended => Verdict::holds("Suspended", "the group is suspended: nothing is backed up, nothing is deleted"),
        None => Verdict::holds("Ready", "the group is isolated and its devices are backed up by schedule"),
    }
}

/// Writes the status when it differs from the cached one. The uid makes the write fail if the Tenant was recreated under its name.
pub async fn write(client: &Client, tenant: &Tenant, status: &TenantStatus) -> Result<bool, ApplyError> {
    if tenant.status.as_ref() == Some(status) {
        return Ok(false);
    }
    let name = tenant.name_any();
    let patch = json!({ "apiVersion": Tenant::api_version(&()), "kind": Tenant::kind(&()), "metadata": { "name": name, "uid": tenant.uid() }, "status": status });
    let parameters = PatchParams::apply(names::FIELD_MANAGER).force();
    let api: Api<Tenant> = Api::all(client.clone());
    api.patch_status(&name, &parameters, &Patch::Apply(patch)).await.map_err(failed::<Tenant>("write the status of", None, &name))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::find;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn tenant(status: Option<TenantStatus>) -> Tenant {
        let mut tenant: Tenant = serde_json::from_value(json!({
            "apiVersion": "tsujiban.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme", "generation": 3},
            "spec": {"displayName": "A", "plan": "Free", "contact": {"email": "a@b.c"}, "network": {"deviceCIDRs": ["192.0.2.0/24"]}},
        }))
        .unwrap();
        tenant.status = status;
        tenant
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn good(schedule: &str) -> Outcome {
        let yes = || Some(Verdict::holds("Yes", ""));
        Outcome {
            namespace: yes(),
            isolation: yes(),
            keys: yes(),
            scheduled: yes(),
            fresh: yes(),
            schedule: Some(schedule.to_owned()),
            ..Outcome::default()
        }
    }

    #[test]
    fn the_first_part_that_fails_is_why_the_tenant_is_not_ready() {
        let outcome = Outcome { keys: Some(Verdict::fails("BackupUnavailable", "no answer")), ..good("0 2 * * *") };
        let status = status(&tenant(None), &outcome, at(1));
        let ready = find(&status.conditions, READY).unwrap();
        assert_eq!(
            (ready.status.as_str(), ready.reason.as_str(), ready.message.as_str()),
            ("False", "BackupUnavailable", "KeysReady: no answer")
        );
    }

    #[test]
    fn an_invalid_spec_leaves_what_was_found_before() {
        let before = status(&tenant(None), &good("0 2 * * *"), at(1));
        let outcome = Outcome { invalid: Some("backup.time zone \"x\" is unknown".into()), ..Outcome::default() };
        let after = status(&tenant(Some(before)), &outcome, at(2));
        assert_eq!(find(&after.conditions, READY).unwrap().reason, "InvalidSpec");
        assert!(crate::condition::is_true(&after.conditions, ISOLATION_READY));
        assert_eq!(after.schedule.as_deref(), Some("0 2 * * *"));
    }

    #[test]
    fn the_same_again_is_the_same_status() {
        let before = status(&tenant(None), &good("0 2 * * *"), at(1));
        assert_eq!(status(&tenant(Some(before.clone())), &good("0 2 * * *"), at(99)), before);
    }

    #[test]
    fn a_moved_plan_begins_anew() {
        let before = status(&tenant(None), &good("0 2 * * *"), at(1));
        let after = status(&tenant(Some(before)), &good("0 3 * * *"), at(50));
        assert_eq!(find(&after.conditions, BACKUP_SCHEDULED).unwrap().last_transition_time, Time(at(50)));
    }

    #[test]
    fn what_owners_may_is_told_and_stops_nothing() {
        let wrong = Outcome { conformance: Some(Verdict::fails("NotConformant", "TSJ-DI-1")), ..good("0 2 * * *") };
        let before = status(&tenant(None), &wrong, at(1));
        assert!(crate::condition::is_true(&before.conditions, READY));
        assert_eq!(find(&before.conditions, CONFORMANT).unwrap().reason, "NotConformant");
        // not asked this time: what was found stays
        assert_eq!(status(&tenant(Some(before.clone())), &good("0 2 * * *"), at(2)).conditions, before.conditions);
        let broken = Outcome { isolation: Some(Verdict::fails("ApplyFailed", "")), ..good("0 2 * * *") };
        let after = status(&tenant(Some(before)), &broken, at(3));
        assert_eq!(find(&after.conditions, CONFORMANT).unwrap().status, "Unknown");
    }

    #[test]
    fn a_poor_clock_is_told_and_stops_nothing() {
        let incarnation = "0".repeat(32).parse().ok();
        let poor = Outcome { clock: Some(Verdict::fails("NotSynchronised", "")), incarnation, ..good("0 2 * * *") };
        assert!(poor.is_right());
        let before = status(&tenant(None), &poor, at(1));
        assert!(crate::condition::is_true(&before.conditions, READY));
        assert_eq!(find(&before.conditions, CLOCK_SYNCHRONISED).unwrap().reason, "NotSynchronised");
        assert_eq!(
            status(&tenant(Some(before.clone())), &good("0 2 * * *"), at(2)).conditions,
            before.conditions,
            "nobody said another thing"
        );
    }

    #[test]
    fn a_suspended_tenant_is_ready() {
        let outcome = Outcome { suspended: true, scheduled: Some(Verdict::fails("Suspended", "")), ..good("0 2 * * *") };
        let status = status(&tenant(None), &outcome, at(1));
        assert_eq!(find(&status.conditions, READY).unwrap().reason, "Suspended");
        assert!(crate::condition::is_true(&status.conditions, READY));
    }
}
