//! Applies the built objects to the group's namespace, in an order that is safe at every step.

use std::time::Duration;

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tsujiban_api::{Tenant, names};
use tsujiban_conformance::Live;
use tsujiban_core::backoff::Backoff;

use super::build::{self, Objects};
use super::claim::{Claim, Noted, claim};
use super::sync_cache::ObservedVersions;
use super::validate::Identity;
use crate::apply::current::confirm_exists;
use crate::apply::{ApplyError, Before, ensure, failed, list, settle, sync, sync_among, write};
use crate::namespace::live_namespace;

/// The field manager of the write that creates a namespace. All later writes use another one, because the apiserver would otherwise keep
/// this write as a second owner of the same fields under the same name.
const CREATOR: &str = "tsujiban-operator-create";
/// How often new rights in a new namespace are tried until the apiserver grants them, and the waits between the tries.
const TRIES: u32 = 60;
const RIGHTS: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(100));

/// Whether the group's namespace belongs to its Tenant.
#[derive(Debug)]
pub enum Holding {
    Held {
        noted: Noted,
        /// The live namespace after the write.
        namespace: Box<Namespace>,
        before: Before,
    },
    /// It is terminating, and will be recreated when it is gone.
    Terminating,
    /// It does not belong to the Tenant, for this reason.
    Taken(&'static str),
}

/// Claims the group's namespace: creates it, or checks that it is the group's, or reclaims the retained one.
pub async fn hold(client: &Client, id: &Identity, found: Option<&Namespace>) -> Result<Holding, ApplyError> {
    let api: Api<Namespace> = Api::all(client.clone());
    let mut live = found.cloned();
    let mut decision = claim(id, live.as_ref());
    let mut before = Before::Unknown;
    if decision == Claim::Create && is_current(client, id).await? {
        (live, before) = create(client, &api, id).await?;
        decision = claim(id, live.as_ref());
    }
    if decision == Claim::Retained && is_current(client, id).await? {
        tracing::info!(group = %id.group, "taking back the retained namespace of the group");
        decision = Claim::Ours;
    }
    match (decision, live) {
        (Claim::Ours, Some(live)) => {
            let noted = Noted::of(&live);
            let (namespace, _) = write(&api, &build::namespace(id, &noted), Some(&live)).await?;
            Ok(Holding::Held { noted, namespace: Box::new(namespace), before })
        }
        (Claim::Taken(why), _) => Ok(Holding::Taken(why)),
        // the namespace is gone again, or the group has a newer Tenant than this one: the next event triggers another try
        (Claim::Create | Claim::Ours | Claim::Retained | Claim::Terminating, _) => Ok(Holding::Terminating),
    }
}

/// Creates the namespace, never adopting one: when another client was faster, returns the existing namespace.
async fn create(client: &Client, api: &Api<Namespace>, id: &Identity) -> Result<(Option<Namespace>, Before), ApplyError> {
    let name = names::namespace(&id.group);
    let mut first = build::namespace(id, &Noted::default());
    first.metadata.labels = Some(build::claim(id));
    let parameters = PostParams { field_manager: Some(CREATOR.to_owned()), ..PostParams::default() };
    match api.create(&parameters, &first).await {
        Ok(created) => Ok((Some(created), Before::Nothing)),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok((live_namespace(client, &id.group).await?, Before::Unknown)),
        Err(error) => Err(failed::<Namespace>("create", None, &name)(error)),
    }
}

/// Whether this Tenant is still the group's Tenant, read live and confirmed. If a namespace were created for a Tenant that is gone, the
/// next Tenant of the group could not claim it.
async fn is_current(client: &Client, id: &Identity) -> Result<bool, ApplyError> {
    let api: Api<Tenant> = Api::all(client.clone());
    let found = api.get_opt(id.group.as_str()).await.map_err(failed::<Tenant>("read", None, id.group.as_str()))?;
    match found.filter(|tenant| tenant.metadata.uid.as_ref() == Some(&id.uid)) {
        Some(tenant) => confirm_exists(&api, &tenant).await,
        None => Ok(false),
    }
}

/// Annotates the group's namespace with where the group's data is. Returns the live namespace afterwards.
pub async fn annotate(client: &Client, id: &Identity, held: &Namespace, noted: &Noted) -> Result<Namespace, ApplyError> {
    let (namespace, _) = write(&Api::all(client.clone()), &build::namespace(id, noted), Some(held)).await?;
    Ok(namespace)
}

/// The result of [`isolate`].
pub struct Isolated {
    /// The CronJobs, which [`schedule`] writes later.
    pub cron_jobs: Vec<CronJob>,
    /// The objects that decide who has access, including foreign ones.
    pub live: Live,
    /// The versions of all these objects.
    pub known: ObservedVersions,
}

/// Writes the objects that isolate and bound the group: the operator's rights first, since everything else is written with them, then what
/// denies access, then what grants it.
pub async fn isolate(client: &Client, id: &Identity, before: Before, objects: Objects) -> Result<Isolated, ApplyError> {
    let namespace = names::namespace(&id.group);
    let ours = build::ours(&id.group);
    let Objects { network_policies, resource_quotas, limit_ranges, service_accounts, role_bindings, config_maps, cron_jobs } = objects;
    let bound = gain_rights(client, &namespace, before, role_bindings.first()).await?;
    let network_policies = sync_among(client, &namespace, (&ours, &names::POLICIES), before, network_policies).await?;
    let resource_quotas = sync(client, &namespace, &ours, before, resource_quotas).await?;
    let limit_ranges = sync(client, &namespace, &ours, before, limit_ranges).await?;
    let service_accounts = sync(client, &namespace, &ours, before, service_accounts).await?;
    let role_bindings = match (before, bound) {
        (Before::Nothing, Some(bound)) => settle(&Api::namespaced(client.clone(), &namespace), vec![bound], &role_bindings).await?,
        _ => sync_among(client, &namespace, (&ours, &names::ROLE_BINDINGS), Before::Unknown, role_bindings).await?,
    };
    let config_maps = match config_maps {
        Some(config_maps) => sync(client, &namespace, &ours, before, config_maps).await?,
        None => Vec::new(),
    };
    let mut known = ObservedVersions::default();
    known.note(&network_policies);
    known.note(&resource_quotas);
    known.note(&limit_ranges);
    known.note(&service_accounts);
    known.note(&role_bindings);
    known.note(&config_maps);
    let live = Live { namespace: None, resource_quotas, limit_ranges, network_policies, role_bindings };
    Ok(Isolated { cron_jobs, live, known })
}

/// Binds the operator's own role in the namespace, and waits until the apiserver grants it. Returns the binding.
async fn gain_rights(
    client: &Client,
    namespace: &str,
    before: Before,
    binding: Option<&RoleBinding>,
) -> Result<Option<RoleBinding>, ApplyError> {
    let Some(binding) = binding else { return Ok(None) };
    let api = Api::namespaced(client.clone(), namespace);
    let (bound, written) = match before {
        Before::Nothing => write(&api, binding, None).await?,
        Before::Unknown => ensure(&api, binding).await?,
    };
    if !written {
        return Ok(Some(bound));
    }
    let probe: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    // `Retry` cannot be used: it takes an async closure, and the compiler cannot prove yet that its future is `Send`
    for failures in 0..TRIES {
        match probe.get_metadata_opt(names::CA_CONFIGMAP).await {
            Err(kube::Error::Api(status)) if status.is_forbidden() => tokio::time::sleep(RIGHTS.wait(failures)).await,
            _ => break, // the next step reports any other error better
        }
    }
    Ok(Some(bound))
}

/// Writes the CronJob and returns it. Running Jobs are suspended while the group is suspended, and resumed afterwards.
pub async fn schedule(
    client: &Client,
    id: &Identity,
    before: Before,
    cron_jobs: Vec<CronJob>,
    suspended: bool,
) -> Result<Vec<CronJob>, ApplyError> {
    let namespace = names::namespace(&id.group);
    let found: Vec<CronJob> = list(client, &namespace, &build::ours(&id.group), before).await?;
    let was_suspended = found.iter().any(|job| job.spec.suspend == Some(true));
    if suspended || was_suspended {
        hold_jobs(client, &namespace, suspended).await?;
    }
    settle(&Api::namespaced(client.clone(), &namespace), found, &cron_jobs).await
}

/// Suspends or resumes the Jobs that are not finished.
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

/// Closes the namespace of a Tenant that is released: denies all traffic, suspends the Jobs, removes all RoleBindings but the operator's,
/// and keeps everything else.
pub async fn close(client: &Client, id: &Identity, system_namespace: &str) -> Result<(), ApplyError> {
    let namespace = names::namespace(&id.group);
    let ours = build::ours(&id.group);
    let binding = build::operator_binding(id, system_namespace);
    gain_rights(client, &namespace, Before::Unknown, Some(&binding)).await?;
    sync_among(client, &namespace, (&ours, &names::POLICIES), Before::Unknown, build::closed_policies(id)).await?;
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
    sync_among(client, &namespace, (&ours, &names::ROLE_BINDINGS), Before::Unknown, vec![binding]).await.map(drop)
}

/// Applies what does not depend on the spec to a group whose spec cannot be built: the namespace, the operator's rights, and the policy
/// that denies all traffic that no other policy allows. Does not create a namespace.
pub async fn keep(client: &Client, id: &Identity, system_namespace: &str) -> Result<(), ApplyError> {
    let found = live_namespace(client, &id.group).await?;
    let Some(held) = found.filter(|found| claim(id, Some(found)) == Claim::Ours) else { return Ok(()) };
    write(&Api::all(client.clone()), &build::namespace(id, &Noted::of(&held)), Some(&held)).await?;
    let namespace = names::namespace(&id.group);
    gain_rights(client, &namespace, Before::Unknown, Some(&build::operator_binding(id, system_namespace))).await?;
    ensure(&Api::namespaced(client.clone(), &namespace), &build::deny_all(id)).await.map(drop)
}
