//! Our finalizer on an object.

use std::fmt::Debug;

use kube::api::{Api, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use tsujiban_api::names::FINALIZER;

use crate::apply::{ApplyError, failed};

/// Whether the object carries the finalizer.
pub fn is_set<K: Resource>(object: &K) -> bool {
    object.meta().finalizers.as_ref().is_some_and(|list| list.iter().any(|name| name == FINALIZER))
}

/// Adds the finalizer, so that the object cannot go before [`release`].
pub async fn add<K>(api: &Api<K>, object: &K) -> Result<(), ApplyError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    write(api, object, &finalizers).await
}

/// Removes the finalizer. An object that is already gone is no error.
pub async fn release<K>(api: &Api<K>, object: &K) -> Result<(), ApplyError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let finalizers: Vec<String> = object.finalizers().iter().filter(|name| *name != FINALIZER).cloned().collect();
    match write(api, object, &finalizers).await {
        Err(error) if error.status().is_some_and(kube::core::Status::is_not_found) => Ok(()),
        other => other,
    }
}

/// The resourceVersion makes the write fail when another client has changed the list meanwhile.
async fn write<K>(api: &Api<K>, object: &K, finalizers: &[String]) -> Result<(), ApplyError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let name = object.name_any();
    let patch = json!({ "metadata": { "resourceVersion": object.resource_version(), "finalizers": finalizers } });
    let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
    patched.map(|_| ()).map_err(failed::<K>("set the finalizer of", object.namespace().as_deref(), &name))
}
