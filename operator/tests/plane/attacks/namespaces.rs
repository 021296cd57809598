//! Namespaces: taken over, stripped, or marked as a group's.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use http::Method;
use serde_json::{Value, json};
use tsujiban_plane::wait::until;
use tsujiban_proto::lifecycle::v1::GroupState;

use super::stage::{ATTACKER, Stage, VICTIM, namespace};
use crate::attempt::{Attempt, Stop, granted, read, refused, ways};
use crate::world::SOON;

const POLICY: Stop = Stop::Policy("tsujiban-namespaces");

/// CVE-2024-39690. A namespace that stands already is not the group's because of its name, whatever it says of itself.
pub async fn namespace_taken_over_by_name(stage: Arc<Stage>) -> Result<()> {
    let victims = read(&stage.control, &namespace(VICTIM)).await?;
    let incarnation = victims["metadata"]["annotations"]["tsujiban.dev/incarnation"].as_str().context("no incarnation")?;
    // what only somebody whom no policy judges can make, such as a namespace from before our installation
    let plain = json!({"name": "tn-taken", "labels": {"team": "theirs"}});
    let alike = |group: &str, of: &str, annotations: Value| {
        json!({"name": format!("tn-{group}"), "annotations": annotations, "labels": {
            "app.kubernetes.io/managed-by": "tsujiban-operator", "tsujiban.dev/tenant": of, "tsujiban.dev/tenant-uid": "somebody",
        }})
    };
    let names = ["taken", "alike", "another"];
    for metadata in [plain, alike("alike", "alike", json!({})), alike("another", VICTIM, json!({"tsujiban.dev/incarnation": incarnation}))]
    {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
        granted(&stage.control, &Attempt::create("/api/v1/namespaces", body, POLICY)).await?;
    }
    for name in names {
        let before = read(&stage.control, &namespace(name)).await?;
        stage.world.tenant(name, json!({})).await;
        until(&format!("{name} is refused"), SOON, || async { reason(&stage, name, "NamespaceTaken").await }).await?;
        let after = read(&stage.control, &namespace(name)).await?;
        ensure!(before == after, "namespace tn-{name} was {before}, and is {after}");
        let bindings = read(&stage.control, &format!("/apis/rbac.authorization.k8s.io/v1/namespaces/tn-{name}/rolebindings")).await?;
        ensure!(bindings["items"] == json!([]), "somebody has rights in tn-{name}: {bindings}");
        ensure!(stage.world.backup.group(name).is_none(), "{name} was prepared");
    }
    // one that names the life of another group: the services do not give that one's data away
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": alike("heir", "heir", json!({"tsujiban.dev/incarnation": incarnation}))});
    granted(&stage.control, &Attempt::create("/api/v1/namespaces", body, POLICY)).await?;
    stage.world.tenant("heir", json!({})).await;
    until("heir is refused", SOON, || async { reason(&stage, "heir", "Refused").await }).await?;
    ensure!(stage.world.backup.group("heir").is_none(), "heir was prepared");
    let group = stage.world.backup.group(VICTIM).context("the victim is gone")?;
    ensure!((group.incarnation.as_str(), group.state) == (incarnation, GroupState::Living), "{group:?}");
    // and nobody who is judged can make one at all
    let mut attempts = Vec::new();
    for metadata in [json!({"name": "tn-free"}), json!({"generateName": "tn-"}), json!({"name": "tn-a"}), alike("free", "free", json!({}))]
    {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
        attempts.push(Attempt::create("/api/v1/namespaces", body, POLICY).called("creates a group's namespace"));
    }
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "tn-free"}});
    attempts.push(Attempt::patch(crate::attempt::APPLY, "/api/v1/namespaces/tn-free?fieldManager=tsujiban-operator", body, POLICY));
    refused(&stage.delegate, &stage.control, &attempts).await
}

/// The reason for which a Tenant is not ready.
async fn reason(stage: &Stage, tenant: &str, wanted: &str) -> Result<Option<()>> {
    let tenant = serde_json::to_value(stage.world.tenants().get(tenant).await?)?;
    let conditions = tenant["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready").context("no Ready")?;
    ensure!(ready["status"] == "False" && ready["reason"] == wanted, "{ready}");
    Ok(Some(()))
}

/// CVE-2022-46167, and by way of namespaces/finalize CVE-2026-30963: what marks and closes a group's namespace cannot be taken off it.
pub async fn owner_reference_or_label_removed(stage: Arc<Stage>) -> Result<()> {
    type Change = (&'static str, fn(&mut Value));
    let path = namespace(ATTACKER);
    let live = read(&stage.control, &path).await?;
    let changes: [Change; 9] = [
        ("removes all labels", |it| it["metadata"]["labels"] = json!({"kubernetes.io/metadata.name": "tn-attacker"})),
        ("removes the group's label", |it| remove(it, "labels", "tsujiban.dev/tenant")),
        ("moves it to another group", |it| it["metadata"]["labels"]["tsujiban.dev/tenant"] = json!(VICTIM)),
        ("moves it to another life", |it| it["metadata"]["labels"]["tsujiban.dev/tenant-uid"] = json!("another")),
        ("opens it to privileged pods", |it| it["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = json!("privileged")),
        ("removes the incarnation", |it| remove(it, "annotations", "tsujiban.dev/incarnation")),
        ("takes another's incarnation", |it| it["metadata"]["annotations"]["tsujiban.dev/incarnation"] = json!("0".repeat(32))),
        ("gives it an owner that goes", |it| {
            it["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Namespace", "name": "gone", "uid": "gone"}]);
        }),
        ("keeps it by a finalizer", |it| it["metadata"]["finalizers"] = json!(["example.com/keep"])),
    ];
    let mut attempts = Vec::new();
    for (what, change) in changes {
        attempts.extend(ways(what, &live, &path, change, POLICY)?);
        attempts.extend(ways(what, &live, &format!("{path}/status"), change, POLICY)?);
        let mut wanted = live.clone();
        change(&mut wanted);
        attempts.push(Attempt::new(Method::PUT, &format!("{path}/finalize"), wanted, POLICY).called(what));
    }
    let mut emptied = live.clone();
    emptied["spec"]["finalizers"] = json!([]);
    attempts.push(Attempt::new(Method::PUT, &format!("{path}/finalize"), emptied, POLICY).called("finalizes it"));
    refused(&stage.delegate, &stage.control, &attempts).await?;
    let as_owner: Vec<Attempt> = ways("as owner", &live, &path, |it| remove(it, "labels", "tsujiban.dev/tenant"), Stop::Rights)?;
    refused(&stage.owner, &stage.control, &as_owner).await?;
    let after = read(&stage.control, &path).await?;
    ensure!(after == live, "the namespace was {live}, and is {after}");
    Ok(())
}

fn remove(object: &mut Value, map: &str, key: &str) {
    object["metadata"][map].as_object_mut().unwrap().remove(key);
}

/// CVE-2025-55205: no namespace of the platform or of anybody else is marked as a group's.
pub async fn label_injected(stage: Arc<Stage>) -> Result<()> {
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "annotations": {"a": "b"}}});
    granted(&stage.delegate, &Attempt::create("/api/v1/namespaces", body, POLICY)).await?;
    let mut attempts = Vec::new();
    for name in ["kube-system", "default", "tsujiban-system", "shop"] {
        let path = format!("/api/v1/namespaces/{name}");
        let live = read(&stage.control, &path).await?;
        for key in ["tsujiban.dev/tenant", "tsujiban.dev/tenant-uid"] {
            for at in [path.clone(), format!("{path}/status")] {
                attempts.extend(ways("injects a label", &live, &at, |it| it["metadata"]["labels"][key] = json!(VICTIM), POLICY)?);
            }
            let mut wanted = live.clone();
            wanted["metadata"]["labels"][key] = json!(VICTIM);
            attempts.push(Attempt::new(Method::PUT, &format!("{path}/finalize"), wanted, POLICY).called("injects a label"));
        }
        let annotate = |it: &mut Value| it["metadata"]["annotations"]["tsujiban.dev/incarnation"] = json!("0".repeat(32));
        attempts.extend(ways("injects an annotation", &live, &path, annotate, POLICY)?);
    }
    let marked = json!({"name": "marked", "labels": {"tsujiban.dev/tenant": "marked"}});
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": marked});
    attempts.push(Attempt::create("/api/v1/namespaces", body, POLICY).called("creates it marked"));
    refused(&stage.delegate, &stage.control, &attempts).await?;
    // the delegate may label what is nobody's, or the attempts would prove nothing
    let body = json!({"metadata": {"labels": {"team": "shop"}}});
    granted(&stage.delegate, &Attempt::patch(crate::attempt::MERGE_PATCH, "/api/v1/namespaces/shop", body, POLICY)).await.map(|_| ())
}
