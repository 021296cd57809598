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
use tsujiban_core::backoff::Backoff;

use super::build::{self, Objects};
use super::claim::{Claim, Noted, claim};
use super::sync_cache::ObservedVersions;
use super::validate::Identity;
use crate::apply::current::confirm_exists;
use crate::apply::{ApplyError, Before, ensure, failed, list, settle, sync, sync_among, write};
use crate::namespace::live_namespace;

/// The field manager of the first write of a namespace. Another one than of all later writes, so that what it wrote is not
/// kept by the apiserver as a second owner of the same fields under the same name.
const CREATOR: &str = "tsujiban-operator-create";
/// How often new rights in a new namespace are tried until the apiserver knows of them, and the waits between the tries.
const TRIES: u32 = 60;
const RIGHTS: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(100));

/// Whether the group's namespace is held.
#[derive(Debug)]
pub enum Holding {
    Held {
        noted: Noted,
        /// As it is now.
        namespace: Box<Namespace>,
        before: Before,
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
        // gone again, or of an earlier Tenant while a newer one than ours stands: the next event tells more
        (Claim::Create | Claim::Ours | Claim::Retained | Claim::Terminating, _) => Ok(Holding::Terminating),
    }
}

/// Creates the namespace, never adopting one: when somebody else was faster, answers what is there.
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

/// Whether, read live and confirmed, it is this Tenant that stands for the group. A namespace that was made for a Tenant that has gone
/// would be refused to the one that came after it.
async fn is_current(client: &Client, id: &Identity) -> Result<bool, ApplyError> {
    let api: Api<Tenant> = Api::all(client.clone());
    let found = api.get_opt(id.group.as_str()).await.map_err(failed::<Tenant>("read", None, id.group.as_str()))?;
    match found.filter(|tenant| tenant.metadata.uid.as_ref() == Some(&id.uid)) {
        Some(tenant) => confirm_exists(&api, &tenant).await,
        None => Ok(false),
    }
}

/// Notes on the namespace that is held where the group's data is. Answers how it is then.
pub async fn annotate(client: &Client, id: &Identity, held: &Namespace, noted: &Noted) -> Result<Namespace, ApplyError> {
    let (namespace, _) = write(&Api::all(client.clone()), &build::namespace(id, noted), Some(held)).await?;
    Ok(namespace)
}

/// What [`isolate`] leaves.
pub struct Isolated {
    /// They come later.
    pub cron_jobs: Vec<CronJob>,
    /// What decides who gets in, also what others made.
    pub live: Live,
    /// All of it.
    pub known: ObservedVersions,
}

/// Writes what isolates the group and bounds it: rights first, since everything else is written with them, then the closed doors,
/// then what is let in.
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

/// Binds the operator's own role in the namespace, and waits until the apiserver knows of it. Answers the binding.
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
    // `Retry` takes an async closure, whose future no compiler says yet that it can be moved between threads
    for failures in 0..TRIES {
        match probe.get_metadata_opt(names::CA_CONFIGMAP).await {
            Err(kube::Error::Api(status)) if status.is_forbidden() => tokio::time::sleep(RIGHTS.wait(failures)).await,
            _ => break, // what else may be wrong, the next step says better
        }
    }
    Ok(Some(bound))
}

/// Writes the CronJob, and answers it. Jobs that run are held while the group is suspended, and go on afterwards.
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

/// Keeps a group whose spec cannot be built in the operator's hands, and closed to all but what is let in already: what of it does not
/// depend on the spec. A group that was never built stays so.
pub async fn keep(client: &Client, id: &Identity, system_namespace: &str) -> Result<(), ApplyError> {
    let found = live_namespace(client, &id.group).await?;
    let Some(held) = found.filter(|found| claim(id, Some(found)) == Claim::Ours) else { return Ok(()) };
    write(&Api::all(client.clone()), &build::namespace(id, &Noted::of(&held)), Some(&held)).await?;
    let namespace = names::namespace(&id.group);
    gain_rights(client, &namespace, Before::Unknown, Some(&build::operator_binding(id, system_namespace))).await?;
    ensure(&Api::namespaced(client.clone(), &namespace), &build::deny_all(id)).await.map(drop)
}
