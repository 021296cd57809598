//! Reads the live objects, compares them with the desired ones, and writes only what differs.
//!
//! Writing is server-side apply under one field manager. Where that cannot repair an object, since another manager added to a
//! list of ours, the list is replaced.

mod covers;
pub mod current;

use std::collections::BTreeMap;
use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{ConfigMap, LimitRange, Namespace, ResourceQuota, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tsujiban_api::names::FIELD_MANAGER;

pub use covers::{covers, exactly};

/// What could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("cannot {verb} {what}")]
    Api {
        verb: &'static str,
        what: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("cannot encode {what}")]
    Encode {
        what: String,
        #[source]
        source: serde_json::Error,
    },
}

impl ApplyError {
    /// The apiserver's answer, when it answered.
    pub fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Api { source, .. } => match &**source {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::Encode { .. } => None,
        }
    }

    /// Whether the apiserver refused because the namespace is terminating.
    pub fn is_terminating(&self) -> bool {
        self.status().is_some_and(|status| {
            let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
            status.is_forbidden() && causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
        })
    }
}

/// Makes an error that names the verb and the object.
pub fn failed<K: Resource<DynamicType = ()>>(
    verb: &'static str,
    namespace: Option<&str>,
    name: &str,
) -> impl FnOnce(kube::Error) -> ApplyError {
    let kind = K::kind(&());
    let what = match namespace {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    };
    move |source| ApplyError::Api { verb, what, source: Box::new(source) }
}

/// A kind that the operator generates.
pub trait Generated: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug + Send + Sync + 'static {
    /// Whether the live object needs no write.
    fn is_as_desired(desired: &Value, live: &Value) -> bool {
        covers(desired, live)
    }

    /// The merge patch that turns the live object into the desired one, when an apply could not.
    fn repair(desired: &Value, _live: &Value) -> Value {
        desired.clone()
    }

    /// Whether the live object has to be deleted before the desired one can be written.
    fn must_be_recreated(_desired: &Self, _live: &Self) -> bool {
        false
    }
}

impl Generated for Namespace {}
impl Generated for ConfigMap {}
impl Generated for CronJob {}
impl Generated for LimitRange {}
impl Generated for ResourceQuota {}
impl Generated for ServiceAccount {}

impl Generated for NetworkPolicy {
    /// A policy's spec must be exactly what is wanted: one more label in a selector can switch the whole policy off.
    fn is_as_desired(desired: &Value, live: &Value) -> bool {
        covers(desired, live) && desired.get("spec") == live.get("spec")
    }

    /// A list that we leave out and another manager filled is removed only by an explicit null.
    fn repair(desired: &Value, live: &Value) -> Value {
        let mut wanted = desired.clone();
        if let (Some(wanted), Some(spec), Some(live)) = (wanted.get_mut("spec"), desired.get("spec"), live.get("spec")) {
            *wanted = exactly(spec, live);
        }
        wanted
    }
}

impl Generated for RoleBinding {
    /// The role of a binding cannot be changed.
    fn must_be_recreated(desired: &Self, live: &Self) -> bool {
        desired.role_ref.name != live.role_ref.name || desired.role_ref.kind != live.role_ref.kind
    }
}

/// Writes `desired` when `live` differs from it. Returns the live object afterwards, and whether it was written.
pub async fn write<K: Generated>(api: &Api<K>, desired: &K, live: Option<&K>) -> Result<(K, bool), ApplyError> {
    let name = desired.name_any();
    let namespace = desired.namespace();
    let mut wanted = encode(desired, &name)?;
    if let Some(live) = live {
        if K::is_as_desired(&wanted, &encode(live, &name)?) {
            return Ok((live.clone(), false));
        }
        if K::must_be_recreated(desired, live) {
            delete(api, live).await?;
        } else if let (Some(uid), Some(metadata)) = (live.uid(), wanted.get_mut("metadata").and_then(Value::as_object_mut)) {
            metadata.insert("uid".to_owned(), Value::String(uid)); // else an object recreated under this name would be written
        }
    }
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let applied = api.patch(&name, &parameters, &Patch::Apply(&wanted)).await.map_err(failed::<K>("apply", namespace.as_deref(), &name))?;
    let found = encode(&applied, &name)?;
    if K::is_as_desired(&wanted, &found) {
        return Ok((applied, true));
    }
    // a merge patch, unlike an apply, replaces lists as a whole
    let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let merged = api.patch(&name, &parameters, &Patch::Merge(K::repair(&wanted, &found))).await;
    Ok((merged.map_err(failed::<K>("repair", namespace.as_deref(), &name))?, true))
}

/// Reads one object and writes it when it differs.
pub async fn ensure<K: Generated>(api: &Api<K>, desired: &K) -> Result<(K, bool), ApplyError> {
    let name = desired.name_any();
    let live = api.get_opt(&name).await.map_err(failed::<K>("read", desired.namespace().as_deref(), &name))?;
    write(api, desired, live.as_ref()).await
}

/// What is known of a namespace before its objects are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// It was made just now: nothing of ours can be in it.
    Nothing,
    Unknown,
}

/// The objects of one kind in a namespace that carry the labels `ours`.
pub async fn list<K>(client: &Client, namespace: &str, ours: &str, before: Before) -> Result<Vec<K>, ApplyError>
where
    K: Generated + Resource<Scope = NamespaceResourceScope>,
{
    if before == Before::Nothing {
        return Ok(Vec::new());
    }
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    Ok(api.list(&ListParams::default().labels(ours)).await.map_err(failed::<K>("list", Some(namespace), ours))?.items)
}

/// Makes the objects of one kind that carry the labels `ours` in a namespace be exactly `desired`: writes what is missing or differs,
/// deletes what is no longer wanted. One request when nothing has to change. Returns the live objects afterwards.
pub async fn sync<K>(client: &Client, namespace: &str, ours: &str, before: Before, desired: Vec<K>) -> Result<Vec<K>, ApplyError>
where
    K: Generated + Resource<Scope = NamespaceResourceScope>,
{
    let found = list(client, namespace, ours, before).await?;
    settle(&Api::namespaced(client.clone(), namespace), found, &desired).await
}

/// Like [`sync`], for a kind where foreign objects matter as well: returns those, too. As many requests. An object with one of our `names`
/// is ours even if its labels were removed, so that no RoleBinding outlives its purpose by losing them.
pub async fn sync_among<K>(
    client: &Client,
    namespace: &str,
    (ours, names): (&str, &[&str]),
    before: Before,
    desired: Vec<K>,
) -> Result<Vec<K>, ApplyError>
where
    K: Generated + Resource<Scope = NamespaceResourceScope>,
{
    let found = list(client, namespace, "", before).await?;
    let is_ours = |object: &K| carries(object, ours) || names.contains(&object.name_any().as_str());
    let (mine, others): (Vec<K>, Vec<K>) = found.into_iter().partition(is_ours);
    let mut live = settle(&Api::namespaced(client.clone(), namespace), mine, &desired).await?;
    live.extend(others);
    Ok(live)
}

/// Whether an object carries all labels of a selector `a=b,c=d`.
fn carries<K: Resource>(object: &K, selector: &str) -> bool {
    let has = |pair: &str| pair.split_once('=').is_some_and(|(key, value)| object.labels().get(key).is_some_and(|found| found == value));
    selector.split(',').all(has)
}

/// Like [`sync`], for objects that the caller has listed.
pub async fn settle<K: Generated>(api: &Api<K>, found: Vec<K>, desired: &[K]) -> Result<Vec<K>, ApplyError> {
    let mut live: BTreeMap<String, K> = found.into_iter().map(|object| (object.name_any(), object)).collect();
    let mut settled = Vec::with_capacity(desired.len());
    for object in desired {
        settled.push(write(api, object, live.remove(&object.name_any()).as_ref()).await?.0);
    }
    for orphan in live.values() {
        delete(api, orphan).await?;
    }
    Ok(settled)
}

/// Deletes exactly this object, never another one of the same name. An object that is already gone is no error.
pub async fn delete<K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug>(api: &Api<K>, object: &K) -> Result<(), ApplyError> {
    let preconditions = Preconditions { uid: object.uid(), resource_version: None };
    let name = object.name_any();
    match api.delete(&name, &DeleteParams::background().preconditions(preconditions)).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(failed::<K>("delete", object.namespace().as_deref(), &name)(error)),
        Ok(_) => Ok(()),
    }
}

fn encode<K: Generated>(object: &K, name: &str) -> Result<Value, ApplyError> {
    serde_json::to_value(object).map_err(|source| ApplyError::Encode { what: format!("{} {name}", K::kind(&())), source })
}
