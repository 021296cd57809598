//! What a group looks like, in words that are the same for two groups that were declared alike.
//!
//! Left out: what the apiserver numbers and dates (uid, resourceVersion, generation, times, managedFields), the status of kinds that
//! are not ours, Jobs, which the clock makes, and the condition Conformant, which speaks of the other groups of the same owners too. Replaced: the group's name, its serial numbers, the Tenant's uid, the
//! incarnation. Of a Secret only the shape is compared, of a generated key pair also whether the status shows its public half. The label
//! with a Tenant's uid on a key pair may name an earlier life of the Tenant: the key pair outlives it.
//! The minute of a group's own in its schedule is compared as it is: both groups have names that are given the same one.

use anyhow::{Context, Result};
use futures::future::try_join_all;
use http::Request;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use serde_json::{Map, Value, json};
use tsujiban_api::names::{ANNOTATION_INCARNATION, LABEL_TENANT_UID};
use tsujiban_plane::backup::Backup;

use super::declared::{Declared, Group};

/// What is listed in a namespace.
const KINDS: [&str; 10] = [
    "apis/networking.k8s.io/v1/networkpolicies",
    "api/v1/resourcequotas",
    "api/v1/limitranges",
    "api/v1/serviceaccounts",
    "api/v1/configmaps",
    "apis/rbac.authorization.k8s.io/v1/rolebindings",
    "apis/batch/v1/cronjobs",
    "api/v1/secrets",
    "apis/tsujiban.dev/v1alpha1/sites",
    "apis/tsujiban.dev/v1alpha1/devices",
];

/// Reasons of conditions that the operator replaces by itself within a minute: a Device that was reconciled before its Tenant's plan was known, and a
/// Tenant that was reconciled before the operator had looked at the admission policies. `NotReported` and `NotChecked` stay: the double of the
/// backup service says nothing of its storage.
const PROVISIONAL: [&str; 2] = ["NotScheduled", "NotLooked"];

/// What a group looks like.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// Why the group is not what was declared yet.
    pub unsettled: Vec<String>,
    pub text: String,
}

pub async fn get(client: &Client, path: &str) -> Result<Value> {
    Ok(client.request(Request::get(path).body(Vec::new())?).await?)
}

/// Whether a group says of itself that it is settled. Two questions, where a picture takes a dozen.
pub async fn says_it_is_settled(client: &Client, group: &Group, declared: &Declared) -> Result<bool> {
    let tenant = tenant(client, group).await?;
    let devices = get(client, &format!("/apis/tsujiban.dev/v1alpha1/namespaces/{}/devices", group.namespace())).await?;
    Ok(unsettled(&tenant, &[devices], declared).is_empty())
}

async fn tenant(client: &Client, group: &Group) -> Result<Value> {
    get(client, &format!("/apis/tsujiban.dev/v1alpha1/tenants/{}", group.name)).await
}

/// Looks at a group.
pub async fn picture(client: &Client, backup: &Backup, group: &Group, declared: &Declared) -> Result<Picture> {
    let tenant = tenant(client, group).await?;
    let namespace = get(client, &format!("/api/v1/namespaces/{}", group.namespace())).await?;
    let lists = KINDS.map(|kind| {
        let (version, name) = kind.rsplit_once('/').expect("a kind");
        (name, format!("/{version}/namespaces/{}/{name}", group.namespace()))
    });
    let found = try_join_all(lists.iter().map(|(_, path)| get(client, path))).await?;
    let unsettled = unsettled(&tenant, &found, declared);
    let mut all = Map::new();
    for ((name, _), list) in lists.iter().zip(&found) {
        let mut items = Map::new();
        for item in list["items"].as_array().context("a list")? {
            let item_name = item["metadata"]["name"].as_str().context("a name")?;
            let shown = if *name == "secrets" { secret(item, &found)? } else { object(item, *name == "devices") };
            items.insert(item_name.to_owned(), shown);
        }
        all.insert((*name).to_owned(), Value::Object(items));
    }
    let incarnation = namespace["metadata"]["annotations"][ANNOTATION_INCARNATION].as_str().unwrap_or("none");
    let uid = tenant["metadata"]["uid"].as_str().context("a uid")?;
    all.insert("namespace".to_owned(), object(&namespace, false));
    all.insert("tenant".to_owned(), object(&tenant, true));
    let life = backup.group(&group.name).map(|life| (life.incarnation, format!("{:?}", life.state)));
    all.insert("backup".to_owned(), json!(life));
    let own = [(uid, "<uid>"), (incarnation, "<incarnation>"), (&group.name, "<group>"), (&group.serial, "<serial>")];
    let text = own.into_iter().fold(Value::Object(all).to_string(), |text, (own, shown)| text.replace(own, shown));
    let shown: Value = serde_json::from_str(&text)?;
    Ok(Picture { unsettled, text: serde_saphyr::to_string(&shown)? })
}

/// Whether everything speaks of what was declared last, and all is well: the last things declared are right.
fn unsettled(tenant: &Value, lists: &[Value], declared: &Declared) -> Vec<String> {
    let devices = lists.iter().filter_map(|list| list["items"].as_array()).flatten().filter(|item| item["kind"] == "Device");
    let devices: Vec<&Value> = devices.chain([tenant]).collect();
    let mut wrong = Vec::new();
    for object in &devices {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let ready = ready(object);
        let current = ready["observedGeneration"] == object["metadata"]["generation"];
        if !(current && ready["status"] == "True" && object["metadata"].get("deletionTimestamp").is_none()) {
            wrong.push(format!("{name} is not ready: {ready}"));
        }
        let status = object["status"].to_string();
        for reason in PROVISIONAL {
            if status.contains(&format!("\"{reason}\"")) {
                wrong.push(format!("{name} says {reason}"));
            }
        }
    }
    if tenant["status"]["devices"] != json!(declared.devices.len()) {
        wrong.push(format!("the Tenant counts {} Devices of {}", tenant["status"]["devices"], declared.devices.len()));
    }
    wrong
}

/// The condition Ready.
pub fn ready(object: &Value) -> Value {
    let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.find(|condition| condition["type"] == "Ready").cloned().unwrap_or_default()
}

fn object(item: &Value, has_status: bool) -> Value {
    let mut shown = item.clone();
    let generation = item["metadata"]["generation"].clone();
    shown["metadata"] = json!({});
    for key in ["labels", "annotations", "finalizers", "ownerReferences", "deletionTimestamp"] {
        if let Some(value) = item["metadata"].get(key) {
            shown["metadata"][key] = value.clone();
        }
    }
    if let Some(status) = shown.get_mut("status") {
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        status["conditions"] = conditions
            .into_iter()
            .filter(|condition| condition["type"] != "Conformant")
            .map(|mut condition| {
                condition["lastTransitionTime"] = json!("<time>");
                current(&mut condition, &generation);
                condition
            })
            .collect();
        current(status, &generation);
    }
    if !has_status {
        shown.as_object_mut().unwrap().remove("status");
    }
    if let Some(key) = shown.pointer_mut("/status/publicKey") {
        *key = json!("<key>"); // whether it is the right one is said at its Secret
    }
    shown
}

fn current(status: &mut Value, generation: &Value) {
    if let Some(observed) = status.get_mut("observedGeneration").filter(|observed| *observed == generation) {
        *observed = json!("<current>");
    }
}

/// The shape of a Secret.
fn secret(item: &Value, lists: &[Value]) -> Result<Value> {
    let secret: Secret = serde_json::from_value(item.clone())?;
    let data = secret.data.clone().unwrap_or_default();
    let text = |key: &str| data.get(key).map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
    let mut shown = object(item, false);
    shown["data"] = data.keys().map(|key| json!(key)).collect();
    shown["username"] = json!(text("username"));
    let labels = shown["metadata"]["labels"].as_object_mut();
    if let Some(uid) = labels.and_then(|labels| labels.get_mut(LABEL_TENANT_UID)) {
        *uid = json!("<uid of one life>");
    }
    if let Some(public) = text("ssh-publickey") {
        let devices = lists.iter().filter_map(|list| list["items"].as_array()).flatten().filter(|item| item["kind"] == "Device");
        let shown_by: Vec<&Value> =
            devices.filter(|device| device["status"]["publicKey"] == *public).map(|it| &it["metadata"]["name"]).collect();
        let is_private = text("ssh-privatekey").is_some_and(|key| key.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----"));
        shown["pair"] = json!({"publicKeyOf": shown_by, "isPrivate": is_private});
    }
    Ok(shown)
}
