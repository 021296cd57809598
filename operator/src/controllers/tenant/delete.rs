//! What happens when a Tenant is deleted. Nothing is erased by accident: only when the Tenant says so, and while the CRDs exist.

use k8s_openapi::api::core::v1::Namespace;
use kube::runtime::events::EventType;
use kube::{Api, Resource, ResourceExt};
use tsujiban_api::tenant::DeletionPolicy;
use tsujiban_api::{Tenant, names};
use tsujiban_core::error::chain;
use tsujiban_core::id::IncarnationId;
use tsujiban_core::workload::{Ends, Service};
use tsujiban_proto::lifecycle::v1::GroupState;

use super::apply::{annotate, close};
use super::belongs_to;
use super::claim::Noted;
use super::context::TenantContext;
use super::validate::Identity;
use crate::apply::current::{is_absent, is_current};
use crate::apply::{ApplyError, delete, failed};
use crate::controllers::site;
use crate::namespace::{incarnation, is_terminating, live_namespace};
use crate::services::Services;
use crate::services::client::{CallError, ServiceClient};
use crate::state::reports::Reports;
use crate::{crds, finalizer};

/// Why a Tenant could not be released yet.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("the group's data could not be erased")]
    Erase(#[source] CallError),
    #[error("conflict: the group changed since it was read; retrying")]
    Outdated,
}

/// The namespace of the group, read live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamespaceState {
    Absent,
    Standing,
    Terminating,
    /// It is not this Tenant's.
    Foreign,
}

/// All that decides about a Tenant that is being deleted, read live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    pub policy: DeletionPolicy,
    pub crds_established: bool,
    pub namespace_state: NamespaceState,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Erase the group's data, then delete the namespace if it is there, and release when it has gone.
    Erase,
    /// Close the namespace, keep everything in it, release.
    Close,
    /// Touch nothing, release.
    Release,
}

/// Decides.
pub fn decide(evidence: Evidence) -> Decision {
    match (evidence.policy, evidence.crds_established, evidence.namespace_state) {
        (DeletionPolicy::Erase, true, NamespaceState::Absent | NamespaceState::Standing | NamespaceState::Terminating) => Decision::Erase,
        (_, _, NamespaceState::Standing) => Decision::Close,
        (_, _, NamespaceState::Absent | NamespaceState::Terminating | NamespaceState::Foreign) => Decision::Release,
    }
}

/// How far the deletion has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    Released,
    /// The namespace is terminating, or something is not recorded yet; check again soon.
    Waiting,
}

/// Carries out the decision for a Tenant that is being deleted.
pub async fn clean_up(context: &TenantContext, cached: &Tenant, id: &Identity) -> Result<Progress, DeleteError> {
    let api: Api<Tenant> = Api::all(context.shared.client.clone());
    let name = id.group.as_str();
    let live = api.get_opt(name).await.map_err(failed::<Tenant>("read", None, name))?;
    let Some(tenant) = live.filter(|live| live.uid() == cached.uid()) else {
        return Ok(Progress::Released); // gone
    };
    let namespace = live_namespace(&context.shared.client, &id.group).await?;
    let namespaces: Api<Namespace> = Api::all(context.shared.client.clone());
    let is_so = match &namespace {
        Some(namespace) => is_current(&namespaces, namespace).await?,
        None => is_absent(&namespaces, &names::namespace(&id.group)).await?,
    };
    if !is_so || tenant.metadata.deletion_timestamp.is_none() || !is_current(&api, &tenant).await? {
        return Err(DeleteError::Outdated);
    }
    let namespace_state = state_of(namespace.as_ref(), id);
    let evidence = Evidence {
        policy: tenant.spec.deletion_policy,
        crds_established: crds::established(&context.shared.client).await?,
        namespace_state,
    };
    let decision = decide(evidence);
    tracing::info!(group = %id.group, ?evidence, ?decision, "a tenant is being deleted");
    let noted = tenant.status.as_ref().and_then(|status| status.incarnation.as_ref()).and_then(|text| text.parse::<IncarnationId>().ok());
    let incarnation = namespace.as_ref().filter(|_| namespace_state != NamespaceState::Foreign).and_then(incarnation).or(noted);
    match decision {
        Decision::Erase => {
            // the namespace is deleted after the group was erased: while that hangs, the call is not repeated, since the history would
            // record it each time
            let is_erased = |service| {
                namespace_state == NamespaceState::Terminating
                    && reports_erased(&context.reports.borrow(), service, id, incarnation.as_ref())
            };
            erase(&context.services, id, incarnation.as_ref(), |service| service.row().ends == Ends::WithTheGroup && !is_erased(service))
                .await?;
            if let Some(namespace) = namespace {
                if !is_terminating(&namespace)
                    && site::namespace_is_deletable(&context.shared.client, context.recorder.journal.is_kept(), &namespace).await?
                {
                    delete(&namespaces, &namespace).await?;
                }
                return Ok(Progress::Waiting);
            }
            if context.recorder.journal.waits_for(&id.group) {
                return Ok(Progress::Waiting); // the changes of the group's objects are recorded before its history is erased
            }
            erase(&context.services, id, incarnation.as_ref(), |service| service.row().ends == Ends::Last).await?;
            if let Some(incarnation) = &incarnation {
                context.attempts.forget_group(incarnation);
            }
            tracing::info!(group = %id.group, ?incarnation, "the group and everything of it is erased");
        }
        Decision::Close => {
            if let (Some(namespace), Some(incarnation)) = (&namespace, &incarnation) {
                // a later Tenant finds the group's data by this annotation, which may have been removed
                let noted = Noted { incarnation: Some(incarnation.clone()), ..Noted::of(namespace) };
                annotate(&context.shared.client, id, namespace, &noted).await?;
            }
            match close(&context.shared.client, id, &context.platform.system_namespace).await {
                Err(error) if error.is_terminating() => {}
                other => other?,
            }
            detach(context, &tenant, id, incarnation.as_ref()).await;
        }
        Decision::Release => detach(context, &tenant, id, incarnation.as_ref()).await,
    }
    finalizer::release(&api, &tenant).await?;
    context.shared.metrics.backup_age(name, None);
    Ok(Progress::Released)
}

fn state_of(namespace: Option<&Namespace>, id: &Identity) -> NamespaceState {
    match namespace {
        None => NamespaceState::Absent,
        Some(namespace) if !belongs_to(namespace, id) => NamespaceState::Foreign,
        Some(namespace) if is_terminating(namespace) => NamespaceState::Terminating,
        Some(_) => NamespaceState::Standing,
    }
}

/// Whether the last report of a service says that this incarnation is erased.
fn reports_erased(reports: &Reports, service: Service, id: &Identity, incarnation: Option<&IncarnationId>) -> bool {
    let state = incarnation.and_then(|incarnation| reports.state(service, &id.group, incarnation));
    state == Some(GroupState::Erased)
}

/// Erases the group in some of the services.
async fn erase(
    services: &Services,
    id: &Identity,
    incarnation: Option<&IncarnationId>,
    which: impl Fn(Service) -> bool,
) -> Result<(), DeleteError> {
    let Some(incarnation) = incarnation else { return Ok(()) }; // it was never prepared: no service holds data of it
    for client in services.all().filter(|client| which(client.service)) {
        erase_in(client, id, incarnation).await.map_err(DeleteError::Erase)?;
    }
    Ok(())
}

/// Erases the group in one service. A service that was installed later than the group may not know it; the first one must, since it made
/// the incarnation.
async fn erase_in(client: &ServiceClient, id: &Identity, incarnation: &IncarnationId) -> Result<(), CallError> {
    match client.erase_group(&id.group, incarnation).await {
        Err(error) if error.is_not_found() && client.service != Service::FIRST => Ok(()),
        other => other,
    }
}

/// Tells the services that the group is retained. Best effort: an unreachable service must not block the deletion of a Tenant; it is told
/// again after its next report (see [`retained`](crate::retained)).
async fn detach(context: &TenantContext, tenant: &Tenant, id: &Identity, incarnation: Option<&IncarnationId>) {
    let Some(incarnation) = incarnation else { return };
    for client in context.services.all() {
        if let Err(error) = client.detach(&id.group, incarnation).await {
            tracing::warn!(group = %id.group, error = chain(&error), "the group could not be noted as retained; the next report will");
        }
    }
    let note = format!("group {} is retained: namespace, keys and backups stay, and a Tenant of the same name finds them again", id.group);
    context.shared.events.tell(&tenant.object_ref(&()), EventType::Normal, "Retained", note).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C25: a group is erased when its Tenant says so, and only while nothing else explains its going.
    #[test]
    fn every_combination() {
        use DeletionPolicy::{Erase, Retain};
        let table = [
            (Erase, true, NamespaceState::Standing, Decision::Erase),
            (Erase, true, NamespaceState::Terminating, Decision::Erase),
            (Erase, true, NamespaceState::Absent, Decision::Erase),
            (Erase, true, NamespaceState::Foreign, Decision::Release),
            (Erase, false, NamespaceState::Standing, Decision::Close),
            (Erase, false, NamespaceState::Terminating, Decision::Release),
            (Erase, false, NamespaceState::Absent, Decision::Release),
            (Erase, false, NamespaceState::Foreign, Decision::Release),
            (Retain, true, NamespaceState::Standing, Decision::Close),
            (Retain, true, NamespaceState::Terminating, Decision::Release),
            (Retain, true, NamespaceState::Absent, Decision::Release),
            (Retain, true, NamespaceState::Foreign, Decision::Release),
            (Retain, false, NamespaceState::Standing, Decision::Close),
            (Retain, false, NamespaceState::Terminating, Decision::Release),
            (Retain, false, NamespaceState::Absent, Decision::Release),
            (Retain, false, NamespaceState::Foreign, Decision::Release),
        ];
        for (policy, crds_established, namespace_state, decision) in table {
            assert_eq!(
                decide(Evidence { policy, crds_established, namespace_state }),
                decision,
                "{policy:?} {crds_established} {namespace_state:?}"
            );
        }
    }
}
