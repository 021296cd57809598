//! Whether an object that was read is still current.
//!
//! A read can be stale: from a cache, from an apiserver that is cut off, from a cluster restored to yesterday's state. A write cannot: the
//! apiserver checks it against the stored object. So before an irreversible step, the objects that the decision depends on are confirmed by
//! a write that changes nothing. The apiserver refuses it if the object has changed, or was recreated.

use std::fmt::Debug;

use kube::api::{Api, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{ApplyError, failed};

/// Whether the object is still exactly as it was read.
pub async fn is_current<K>(api: &Api<K>, object: &K) -> Result<bool, ApplyError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let exactly = json!({ "metadata": { "uid": object.uid(), "resourceVersion": object.resource_version() } });
    Ok(confirm(api, object, &exactly).await? == Answer::Yes)
}

/// Whether the object still exists, changed or not, and was not recreated under its name.
pub async fn confirm_exists<K>(api: &Api<K>, object: &K) -> Result<bool, ApplyError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    Ok(confirm(api, object, &json!({ "metadata": { "uid": object.uid() } })).await? == Answer::Yes)
}

/// Whether there is still no object of this name.
pub async fn is_absent<K>(api: &Api<K>, name: &str) -> Result<bool, ApplyError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    Ok(ask(api, None, name, &json!({})).await? == Answer::Absent)
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Yes,
    Changed,
    Absent,
}

async fn confirm<K>(api: &Api<K>, object: &K, patch: &Value) -> Result<Answer, ApplyError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    ask(api, object.namespace().as_deref(), &object.name_any(), patch).await
}

async fn ask<K>(api: &Api<K>, namespace: Option<&str>, name: &str, patch: &Value) -> Result<Answer, ApplyError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    match api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(Answer::Yes),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(Answer::Absent),
        // another version is a conflict, another uid is a conflict or an immutable field
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_invalid() => Ok(Answer::Changed),
        Err(error) => Err(failed::<K>("confirm", namespace, name)(error)),
    }
}
