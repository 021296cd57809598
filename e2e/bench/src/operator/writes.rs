//! What a bare client needs to write the objects that the operator has made.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use tsujiban_api::names::{LABEL_MANAGED_BY, MANAGED_BY};

/// The operator reconciles so many objects at the same time: 8 Tenants and 16 Devices.
pub const AT_ONCE: usize = 24;
/// The copies' namespaces. Those of groups are refused to everybody else.
const PREFIX: &str = "copy-of-";

/// Group, version, kind, plural of everything that the operator makes in a group's namespace.
const KINDS: [[&str; 4]; 8] = [
    ["networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"],
    ["", "v1", "ResourceQuota", "resourcequotas"],
    ["", "v1", "LimitRange", "limitranges"],
    ["", "v1", "ServiceAccount", "serviceaccounts"],
    ["rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings"],
    ["", "v1", "ConfigMap", "configmaps"],
    ["batch", "v1", "CronJob", "cronjobs"],
    ["", "v1", "Secret", "secrets"],
];

/// How long it takes to create a copy of each object that the operator has made, in namespaces of other names.
pub struct Written {
    pub objects: usize,
    /// One after the other, as `kubectl` writes a folder of manifests.
    pub in_turn: Duration,
    /// [`AT_ONCE`] at the same time.
    pub at_once: Duration,
}

pub async fn write_the_same(admin: &Client) -> Result<Written> {
    let (objects, in_turn) = write_copies(admin, 1).await?;
    clean_up(admin).await?;
    let (_, at_once) = write_copies(admin, AT_ONCE).await?;
    clean_up(admin).await?;
    Ok(Written { objects, in_turn, at_once })
}

async fn write_copies(admin: &Client, at_once: usize) -> Result<(usize, Duration)> {
    let ours = ListParams::default().labels(&format!("{LABEL_MANAGED_BY}={MANAGED_BY}"));
    let namespaces = all(admin, &resource(["", "v1", "Namespace", "namespaces"]), &ours).await?;
    let mut objects = Vec::new();
    for kind in KINDS {
        let resource = resource(kind);
        let found = all(admin, &resource, &ours).await?;
        objects.extend(
            found
                .into_iter()
                .filter(|object| object.namespace().is_some_and(|name| name.starts_with("tn-")))
                .map(|object| (resource.clone(), object)),
        );
    }
    let count = namespaces.len() + objects.len();
    let start = Instant::now();
    let namespace = resource(["", "v1", "Namespace", "namespaces"]);
    write(namespaces.into_iter().map(|object| (Api::all_with(admin.clone(), &namespace), copy(object))), at_once).await?;
    let copies = objects.into_iter().map(|(resource, object)| {
        let object = copy(object);
        (Api::namespaced_with(admin.clone(), object.metadata.namespace.as_deref().unwrap_or_default(), &resource), object)
    });
    write(copies, at_once).await?;
    Ok((count, start.elapsed()))
}

/// Deletes the copies, and waits until they are gone: what goes on being deleted would slow down what is measured next.
async fn clean_up(admin: &Client) -> Result<()> {
    let resource = resource(["", "v1", "Namespace", "namespaces"]);
    let api: Api<DynamicObject> = Api::all_with(admin.clone(), &resource);
    let copies = async || -> Result<Vec<String>> {
        let found = all(admin, &resource, &ListParams::default()).await?;
        Ok(found.iter().map(ResourceExt::name_any).filter(|name| name.starts_with(PREFIX)).collect())
    };
    for name in copies().await? {
        api.delete(&name, &DeleteParams::default()).await?;
    }
    while !copies().await?.is_empty() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

fn resource([group, version, kind, plural]: [&str; 4]) -> ApiResource {
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    ApiResource { group: group.into(), version: version.into(), api_version, kind: kind.into(), plural: plural.into() }
}

async fn all(admin: &Client, resource: &ApiResource, params: &ListParams) -> Result<Vec<DynamicObject>> {
    let api: Api<DynamicObject> = Api::all_with(admin.clone(), resource);
    let (mut found, mut params) = (Vec::new(), params.clone().limit(500));
    loop {
        let list = api.list(&params).await.with_context(|| format!("list {}", resource.plural))?;
        found.extend(list.items);
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}

/// The same object, to be made anew, without the labels that would make the operator take it for its own.
fn copy(object: DynamicObject) -> DynamicObject {
    let moved = |name: String| name.replacen("tn-", PREFIX, 1);
    let mut copy = DynamicObject { types: object.types.clone(), metadata: kube::core::ObjectMeta::default(), data: object.data.clone() };
    let is_namespace = object.metadata.namespace.is_none();
    copy.metadata.name = object.metadata.name.map(|name| if is_namespace { moved(name) } else { name });
    copy.metadata.namespace = object.metadata.namespace.map(moved);
    let labels = object.metadata.labels.unwrap_or_default();
    copy.metadata.labels = Some(labels.into_iter().filter(|(key, _)| !key.contains("tsujiban.dev/") && key != LABEL_MANAGED_BY).collect());
    if let Some(data) = copy.data.as_object_mut() {
        data.remove("status");
        if is_namespace {
            data.remove("spec");
        }
    }
    copy
}

async fn write(objects: impl Iterator<Item = (Api<DynamicObject>, DynamicObject)>, at_once: usize) -> Result<()> {
    let writes = stream::iter(objects).map(|(api, object)| async move {
        let name = format!("{:?}/{}", object.metadata.namespace, object.name_any());
        match api.create(&PostParams::default(), &object).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()), // what Kubernetes makes in every namespace
            other => other.map(|_| ()).with_context(|| format!("copy {name}")),
        }
    });
    writes.buffer_unordered(at_once).try_collect::<Vec<()>>().await.map(|_| ())
}
