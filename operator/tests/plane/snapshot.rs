//! How a group looks to an administrator, without what differs from one life or one group to the next, so that two can be compared.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tsujiban_api::names::{
    ANNOTATION_CHANGED_BY, ANNOTATION_HISTORY_LOG, ANNOTATION_INCARNATION, LABEL_MANAGED_BY, LABEL_TENANT, LABEL_TENANT_UID, MANAGED_BY,
};

use crate::world::World;

/// Group, version, kind and plural of everything that a group's namespace can hold of ours.
const KINDS: [(&str, &str, &str, &str); 12] = [
    ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
    ("", "v1", "ResourceQuota", "resourcequotas"),
    ("", "v1", "LimitRange", "limitranges"),
    ("", "v1", "ServiceAccount", "serviceaccounts"),
    ("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings"),
    ("", "v1", "ConfigMap", "configmaps"),
    ("", "v1", "Secret", "secrets"),
    ("batch", "v1", "CronJob", "cronjobs"),
    ("batch", "v1", "Job", "jobs"),
    ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
    ("tsujiban.dev", "v1alpha1", "Site", "sites"),
    ("tsujiban.dev", "v1alpha1", "Device", "devices"),
];
/// Made by Kubernetes in every namespace.
const NOT_OURS: [&str; 2] = ["serviceaccounts/default", "configmaps/kube-root-ca.crt"];
/// Of an object's metadata, what is compared.
const METADATA: [&str; 5] = ["name", "labels", "annotations", "finalizers", "ownerReferences"];
/// What is another one in each life, and is compared as being there or not.
const OF_ITS_LIFE: [&str; 8] = [
    "digest",
    "publicKey",
    "ssh-publickey",
    "ssh-privatekey",
    "lastTransitionTime",
    "observedGeneration",
    "activeDeadlineSeconds",
    "startingDeadlineSeconds",
];
/// Of the environment of a collector, what follows from its group's own minute.
const OF_ITS_MINUTE: &str = "TSUJIBAN_WINDOW_SECONDS";

/// A group at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// `kind/name` and what it looks like.
    pub objects: BTreeMap<String, String>,
}

/// The uids of what must never be made a second time while it lives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identities(pub BTreeMap<String, String>);

impl Identities {
    /// What was there before and is another one now.
    pub fn replaced(&self, now: &Self) -> Vec<String> {
        let replaced = self.0.iter().filter(|(name, uid)| now.0.get(*name).is_some_and(|other| other != *uid));
        replaced.map(|(name, _)| name.clone()).collect()
    }
}

impl Snapshot {
    /// What the other one has, lacks or shows differently.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let names = self.objects.keys().chain(other.objects.keys().filter(|name| !self.objects.contains_key(*name)));
        names
            .filter(|name| self.objects.get(*name) != other.objects.get(*name))
            .map(|name| {
                let shown = |of: &Self| of.objects.get(name).cloned().unwrap_or_else(|| "absent".into());
                format!("{name}\n  wanted {}\n  found  {}", shown(self), shown(other))
            })
            .collect()
    }
}

/// Reads everything of a group: its Tenant, its namespace, all in it, and its lives in the stand-in of the backup service.
pub async fn snapshot(world: &World, group: &str) -> Result<(Snapshot, Identities)> {
    let namespace = format!("tn-{group}");
    let tenant = world.tenants().get_opt(group).await?.map(serde_json::to_value).transpose()?;
    let place = world.namespaces().get_opt(&namespace).await?.map(serde_json::to_value).transpose()?;
    let mut found: Vec<(String, Value)> = Vec::new();
    let mut identities = Identities::default();
    if let Some(place) = &place {
        for (api_group, version, kind, plural) in KINDS {
            let resource = ApiResource {
                group: api_group.into(),
                version: version.into(),
                api_version: if api_group.is_empty() { version.into() } else { format!("{api_group}/{version}") },
                kind: kind.into(),
                plural: plural.into(),
            };
            let api: Api<DynamicObject> = Api::namespaced_with(world.admin.clone(), &namespace, &resource);
            for object in api.list(&ListParams::default()).await.with_context(|| format!("list {plural}"))? {
                let name = format!("{plural}/{}", object.name_any());
                if matches!(plural, "secrets") {
                    identities.0.insert(name.clone(), object.uid().unwrap_or_default());
                }
                if !NOT_OURS.contains(&name.as_str()) {
                    found.push((name, serde_json::to_value(&object)?));
                }
            }
        }
        identities.0.insert("namespace".into(), text(place, "/metadata/uid"));
    }
    // a name, and by what it is replaced: the longest first
    let mut words = vec![(group.to_owned(), "GROUP".to_owned())];
    let status = tenant.as_ref().map(|tenant| tenant["status"].clone()).unwrap_or_default();
    // of a retained group, the CronJob alone still tells its schedule
    let kept = || found.iter().find(|(name, _)| name == "cronjobs/device-backup").map(|(_, job)| text(job, "/spec/schedule"));
    let schedule = if tenant.is_some() { status["schedule"].as_str().map(str::to_owned) } else { kept() };
    let annotation = |key: &str| place.as_ref().map(|place| place["metadata"]["annotations"][key].as_str().unwrap_or_default().to_owned());
    for (word, by) in [
        (tenant.as_ref().map(|tenant| text(tenant, "/metadata/uid")), "TENANT-UID"),
        (place.as_ref().map(|place| place["metadata"]["labels"][LABEL_TENANT_UID].as_str().unwrap_or_default().to_owned()), "MADE-FOR-UID"),
        (annotation(ANNOTATION_INCARNATION), "INCARNATION"),
        (annotation(ANNOTATION_HISTORY_LOG), "HISTORY-LOG"),
        (schedule, "SCHEDULE"),
    ] {
        words.extend(word.filter(|word| !word.is_empty()).map(|word| (word, by.to_owned())));
    }
    words.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
    found.extend(tenant.map(|tenant| ("tenant".to_owned(), tenant)));
    found.extend(place.map(|place| ("namespace".to_owned(), place)));
    let mut objects = BTreeMap::new();
    for (name, object) in found {
        objects.insert(name.replace(group, "GROUP"), normal(&name, object, &words));
    }
    let lives: Vec<_> = world.backup.groups().into_iter().filter(|life| life.name == group).collect();
    for (number, life) in lives.iter().enumerate() {
        let mut erased: Vec<&str> = life.erased_devices.iter().map(|(serial, _)| serial.as_str()).collect();
        erased.dedup(); // to erase again what is erased changes nothing
        let shown = format!("{:?}, erased {erased:?}", life.state);
        objects.insert(format!("life/{number}"), shown.replace(group, "GROUP"));
    }
    Ok((Snapshot { objects }, identities))
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn normal(name: &str, mut object: Value, words: &[(String, String)]) -> String {
    let metadata = object["metadata"].take();
    let kept = METADATA.into_iter().filter_map(|key| Some((key.to_owned(), metadata.get(key)?.clone())));
    let mut kept: serde_json::Map<String, Value> = kept.collect();
    kept.insert("terminating".into(), json!(metadata.get("deletionTimestamp").is_some()));
    if let Some(Value::Object(annotations)) = kept.get_mut("annotations") {
        annotations.remove(ANNOTATION_CHANGED_BY); // who declared it is of its history, not of how it is
    }
    kept.retain(|key, value| key != "annotations" || value.as_object().is_none_or(|annotations| !annotations.is_empty()));
    object["metadata"] = Value::Object(kept);
    let keeps_status = ["tenant", "namespace"].contains(&name) || name.starts_with("devices/");
    if !keeps_status && let Some(fields) = object.as_object_mut() {
        fields.remove("status"); // of other controllers
    }
    if name.starts_with("secrets/") && object["metadata"]["labels"][LABEL_TENANT_UID].is_string() {
        object["metadata"]["labels"][LABEL_TENANT_UID] = json!("there"); // of the Tenant that stood when the key was made
    }
    if let Some(Value::String(declared)) = object.pointer_mut("/spec/backup/schedule") {
        *declared = declared.replace(' ', "_"); // what people declared may happen to be what comes of it
    }
    blank(&mut object);
    let mut shown = object.to_string();
    for (word, by) in words {
        shown = shown.replace(word, by);
    }
    shown
}

fn blank(value: &mut Value) {
    match value {
        Value::Object(fields) if fields.get("name").is_some_and(|name| name == OF_ITS_MINUTE) => {
            fields.insert("value".into(), json!("there"));
        }
        Value::Object(fields) => {
            for (key, field) in fields {
                if OF_ITS_LIFE.contains(&key.as_str()) {
                    *field = json!("there");
                } else {
                    blank(field);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(blank),
        _ => {}
    }
}

/// Objects anywhere in the cluster that carry our labels for a group that is not one of these.
pub async fn orphans(world: &World, groups: &[String]) -> Result<Vec<String>> {
    let mut orphans = Vec::new();
    let selector = ListParams::default().labels(&format!("{LABEL_MANAGED_BY}={MANAGED_BY},{LABEL_TENANT}"));
    for (api_group, version, kind, plural) in KINDS.into_iter().chain([("", "v1", "Namespace", "namespaces")]) {
        let api_version = if api_group.is_empty() { version.into() } else { format!("{api_group}/{version}") };
        let resource =
            ApiResource { group: api_group.into(), version: version.into(), api_version, kind: kind.into(), plural: plural.into() };
        let api: Api<DynamicObject> = Api::all_with(world.admin.clone(), &resource);
        for object in api.list(&selector).await? {
            let group = object.labels().get(LABEL_TENANT).cloned().unwrap_or_default();
            if !groups.contains(&group) {
                orphans.push(format!("{plural}/{} in {:?}", object.name_any(), object.namespace()));
            }
        }
    }
    Ok(orphans)
}
