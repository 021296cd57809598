//! Makes the group's namespace be what was built, in an order that is safe at every step.

use std::time::Duration;

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tsujiban_api::{Tenant, names};
use tsujiban_conformance::Live;
use tsujiban_core::id::IncarnationId;

use super::build::{self, Objects};
use super::claim::{Claim, claim, incarnation};
use super::dereference::live_namespace;
use super::validate::Identity;
use crate::apply::current::stands;
use crate::apply::{ApplyError, ensure, failed, sync, sync_among, write};

/// The field manager of the first write of a namespace. Another one than of all later writes, so that what it wrote is not
/// kept by the apiserver as a second owner of the same fields under the same name.
const CREATOR: &str = "tsujiban-operator-create";
/// How long new rights in a new namespace may take to be known to the apiserver.
const RIGHTS: (u32, Duration) = (50, Duration::from_millis(100));

/// Whether the group's namespace is held.
#[derive(Debug)]
pub enum Holding {
    Held {
        incarnation: Option<IncarnationId>,
        /// As it is now.
        namespace: Box<Namespace>,
    },
    /// It is going away, and will be made again when it has gone.
    Terminating,
    /// It is somebody else's. Says why.
    Taken(&'static str),
}

/// Holds the group's namespace: creates it, or checks that it is the group's, or takes back the one that was retained.
pub async fn hold(client: &Client, id: &Identity, found: Option<&Namespace>) -> Result<Holding, ApplyError> {
    let api: Api<Namespace> = Api::all(client.clone());
    let mut live = found.cloned();
    let mut decision = claim(id, live.as_ref());
    if decision == Claim::Create && is_current(client, id).await? {
        live = create(client, &api, id).await?;
        decision = claim(id, live.as_ref());
    }
    if decision == Claim::Retained && is_current(client, id).await? {
        tracing::info!(group = %id.group, "taking back the retained namespace of the group");
        decision = Claim::Ours;
    }
    match (decision, live) {
        (Claim::Ours, Some(live)) => {
            let incarnation = incarnation(&live);
            let (namespace, _) = write(&api, &build::namespace(id, incarnation.as_ref()), Some(&live)).await?;
            Ok(Holding::Held { incarnation, namespace: Box::new(namespace) })
        }
        (Claim::Taken(why), _) => Ok(Holding::Taken(why)),
        // gone again, or of an earlier Tenant while a newer one than ours stands: the next event tells more
        (Claim::Create | Claim::Ours | Claim::Retained | Claim::Terminating, _) => Ok(Holding::Terminating),
    }
}

/// Creates the namespace, never adopting one: when somebody else was faster, answers what is there.
async fn create(client: &Client, api: &Api<Namespace>, id: &Identity) -> Result<Option<Namespace>, ApplyError> {
    let name = names::namespace(&id.group);
    let mut first = build::namespace(id, None);
    first.metadata.labels = Some(build::claim(id));
    let parameters = PostParams { field_manager: Some(CREATOR.to_owned()), ..PostParams::default() };
    match api.create(&parameters, &first).await {
        Ok(created) => Ok(Some(created)),
        Err(kube::Error::Api(status)) if status.is_already_exists() => live_namespace(client, &id.group).await,
        Err(error) => Err(failed::<Namespace>("create", None, &name)(error)),
    }
}

/// Whether, read live and confirmed, it is this Tenant that stands for the group. A namespace that was made for a Tenant that has gone
/// would be refused to the one that came after it.
async fn is_current(client: &Client, id: &Identity) -> Result<bool, ApplyError> {
    let api: Api<Tenant> = Api::all(client.clone());
    let found = api.get_opt(id.group.as_str()).await.map_err(failed::<Tenant>("read", None, id.group.as_str()))?;
    match found.filter(|tenant| tenant.metadata.uid.as_ref() == Some(&id.uid)) {
        Some(tenant) => stands(&api, &tenant).await,
        None => Ok(false),
    }
}

/// Notes the incarnation on the namespace.
pub async fn annotate(client: &Client, id: &Identity, incarnation: &IncarnationId) -> Result<(), ApplyError> {
    ensure(&Api::<Namespace>::all(client.clone()), &build::namespace(id, Some(incarnation))).await.map(|_| ())
}

/// Writes what isolates the group and bounds it: rights first, since everything else is written with them, then the closed doors,
/// then what is let in. Answers the CronJobs, which come later, and what is there now, also by others.
pub async fn isolate(client: &Client, id: &Identity, objects: Objects) -> Result<(Vec<CronJob>, Live), ApplyError> {
    let namespace = names::namespace(&id.group);
    let ours = build::ours(&id.group);
    let Objects { network_policies, resource_quotas, limit_ranges, service_accounts, role_bindings, config_maps, cron_jobs } = objects;
    gain_rights(client, &namespace, role_bindings.first()).await?;
    let network_policies = sync_among(client, &namespace, &ours, network_policies).await?;
    let resource_quotas = sync(client, &namespace, &ours, resource_quotas).await?;
    let limit_ranges = sync(client, &namespace, &ours, limit_ranges).await?;
    sync(client, &namespace, &ours, service_accounts).await?;
    let role_bindings = sync_among(client, &namespace, &ours, role_bindings).await?;
    if let Some(config_maps) = config_maps {
        sync(client, &namespace, &ours, config_maps).await?;
    }
    Ok((cron_jobs, Live { namespace: None, resource_quotas, limit_ranges, network_policies, role_bindings }))
}

/// Binds the operator's own role in the namespace, and waits until the apiserver knows of it.
async fn gain_rights(client: &Client, namespace: &str, binding: Option<&RoleBinding>) -> Result<(), ApplyError> {
    let Some(binding) = binding else { return Ok(()) };
    let (_, written) = ensure(&Api::namespaced(client.clone(), namespace), binding).await?;
    if !written {
        return Ok(());
    }
    let probe: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let (tries, pause) = RIGHTS;
    for _ in 0..tries {
        match probe.get_opt(names::CA_CONFIGMAP).await {
            Err(kube::Error::Api(status)) if status.is_forbidden() => tokio::time::sleep(pause).await,
            _ => break, // what else may be wrong, the next step says better
        }
    }
    Ok(())
}

/// Writes the CronJob. Jobs that run are held while the group is suspended, and go on afterwards.
pub async fn schedule(client: &Client, id: &Identity, cron_jobs: Vec<CronJob>, suspended: bool) -> Result<(), ApplyError> {
    let namespace = names::namespace(&id.group);
    let api: Api<CronJob> = Api::namespaced(client.clone(), &namespace);
    let found = api.get_opt(names::CRONJOB).await.map_err(failed::<CronJob>("read", Some(&namespace), names::CRONJOB))?;
    let was_suspended = found.and_then(|job| job.spec.suspend).unwrap_or(false);
    if suspended || was_suspended {
        hold_jobs(client, &namespace, suspended).await?;
    }
    sync(client, &namespace, &build::ours(&id.group), cron_jobs).await.map(drop)
}

/// Suspends the Jobs that are not finished, or lets them go on.
async fn hold_jobs(client: &Client, namespace: &str, suspend: bool) -> Result<(), ApplyError> {
    let api: Api<Job> = Api::namespaced(client.clone(), namespace);
    let jobs = api.list(&ListParams::default()).await.map_err(failed::<Job>("list", Some(namespace), ""))?;
    for job in jobs {
        let finished = job
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .any(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True");
        let is_suspended = job.spec.as_ref().and_then(|spec| spec.suspend).unwrap_or(false);
        if finished || is_suspended == suspend {
            continue;
        }
        let name = job.name_any();
        let patch = Patch::Merge(json!({ "spec": { "suspend": suspend } }));
        api.patch(&name, &PatchParams::default(), &patch).await.map_err(failed::<Job>("suspend", Some(namespace), &name))?;
    }
    Ok(())
}

/// Leaves the namespace of a Tenant that has gone: closed, without owners and collector, with everything in it.
pub async fn close(client: &Client, id: &Identity, system_namespace: &str) -> Result<(), ApplyError> {
    let namespace = names::namespace(&id.group);
    let ours = build::ours(&id.group);
    let binding = build::operator_binding(id, system_namespace);
    gain_rights(client, &namespace, Some(&binding)).await?;
    sync(client, &namespace, &ours, build::closed_policies(id)).await?;
    let api: Api<CronJob> = Api::namespaced(client.clone(), &namespace);
    let found = api.get_opt(names::CRONJOB).await.map_err(failed::<CronJob>("read", Some(&namespace), names::CRONJOB))?;
    if found.is_some_and(|job| job.spec.suspend != Some(true)) {
        let patch = Patch::Merge(json!({ "spec": { "suspend": true } }));
        api.patch(names::CRONJOB, &PatchParams::apply(names::FIELD_MANAGER), &patch).await.map_err(failed::<CronJob>(
            "suspend",
            Some(&namespace),
            names::CRONJOB,
        ))?;
    }
    hold_jobs(client, &namespace, true).await?;
    sync(client, &namespace, &ours, vec![binding]).await.map(drop)
}
