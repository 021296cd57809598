//! Whether what was read is what is.
//!
//! A read can be older than it looks: a cache behind it, an apiserver that was cut off, a cluster brought back to yesterday. A write is
//! not: it is checked against what is stored. So before something is done that cannot be taken back, what it was decided by is
//! confirmed by a write that changes nothing. It is refused when the object has changed, or is another one.

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

/// Whether the object still stands, changed or not, and no other one of its name in its place.
pub async fn confirm_exists<K>(api: &Api<K>, object: &K) -> Result<bool, ApplyError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    Ok(confirm(api, object, &json!({ "metadata": { "uid": object.uid() } })).await? == Answer::Yes)
}

/// Whether there is still nothing of this name.
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
