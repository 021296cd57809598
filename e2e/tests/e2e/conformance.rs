//! What an owner may do, tried with an owner's own credentials, by `tsujiban conformance`, and as the operator tells it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::config::AuthInfo;
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use tsujiban_api::{Device, Site, names};
use tsujiban_e2e::manifests::{Group, password_secret};
use tsujiban_e2e::stage::Stage;
use tsujiban_e2e::wait::{SOON, until};

const ACCOUNTS: &str = "default";
/// The operator follows bindings, so that it notices within seconds; this leaves room for a loaded machine.
const NOTICED: Duration = Duration::from_mins(3);
const CONFORMANT: &str = "Conformant";

/// A group with a ServiceAccount as its owner, and a client with that account's own token.
async fn owned<'a>(stage: &'a Stage, name: &str, net: u8) -> Result<(Group<'a>, Client)> {
    let accounts: Api<ServiceAccount> = Api::namespaced(stage.client.clone(), ACCOUNTS);
    let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": format!("owner-{name}")}}))?;
    match accounts.create(&PostParams::default(), &account).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        other => drop(other?),
    }
    let group = Group::create(stage, name, net).await?;
    group.apply(json!({"owners": [{"kind": "ServiceAccount", "name": format!("owner-{name}"), "namespace": ACCOUNTS}]})).await?;
    group.condition("Ready", "True").await?;
    let request =
        TokenRequest { spec: Some(TokenRequestSpec { expiration_seconds: Some(3600), ..Default::default() }), ..Default::default() };
    let answer = accounts.create_token_request(&format!("owner-{name}"), &PostParams::default(), &request).await?;
    let mut config = Config::infer().await?;
    let token = answer.status.and_then(|status| status.token).context("no token")?;
    config.auth_info = AuthInfo { token: Some(token.into()), ..AuthInfo::default() };
    Ok((group, Client::try_from(config)?))
}

fn refused<T: std::fmt::Debug>(what: &str, answer: kube::Result<T>) -> Result<String> {
    match answer {
        Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(status.message),
        other => anyhow::bail!("{what} was not refused: {other:?}"),
    }
}

fn dry() -> PostParams {
    PostParams { dry_run: true, ..PostParams::default() }
}

/// C7, C22: with the owner's own token, past every client of ours.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_may_what_an_owner_should_and_nothing_else() -> Result<()> {
    let stage = Stage::find().await?;
    let _together = Stage::together().await;
    let (group, owner) = owned(&stage, "conform-own", 131).await?;
    let other = Group::create(&stage, "conform-other", 132).await?;
    let (own, elsewhere) = (group.namespace.as_str(), other.namespace.as_str());
    let secrets: Api<Secret> = Api::namespaced(owner.clone(), own);

    // what an owner should: the control, without which everything below would be refused to anybody
    let credentials: Secret = serde_json::from_value(json!({"metadata": {"name": "core-1"}, "type": names::CREDENTIALS_TYPE,
        "stringData": {"username": "admin", "password": "conform-secret"}}))?;
    until("the owner's binding is known", SOON, || async { Ok(secrets.create(&dry(), &credentials).await.ok()) }).await?;
    secrets.create(&PostParams::default(), &credentials).await?;
    let sites: Api<Site> = Api::namespaced(owner.clone(), own);
    ensure!(sites.list(&ListParams::default()).await?.items.len() == 1, "the owner sees the group's site");
    let device: Device =
        serde_json::from_value(json!({"apiVersion": "tsujiban.dev/v1alpha1", "kind": "Device", "metadata": {"name": "core-1"},
        "spec": {"siteRef": {"name": "hq"}, "serialNumber": "CNF-1", "driver": "Frr",
            "connection": {"host": "172.20.131.11", "credentialsSecretRef": {"name": "core-1"}}}}))?;
    Api::<Device>::namespaced(owner.clone(), own).create(&PostParams::default(), &device).await?;

    // Secrets are written, never read: neither by reading nor by deleting
    refused("get a secret", secrets.get("core-1").await)?;
    refused("list secrets", secrets.list(&ListParams::default()).await)?;
    let patch = json!({"metadata": {"labels": {"a": "b"}}});
    refused("patch a secret", secrets.patch("core-1", &PatchParams::default(), &Patch::Merge(&patch)).await)?;
    for policy in [PropagationPolicy::Foreground, PropagationPolicy::Orphan] {
        let shown = DeleteParams { dry_run: true, propagation_policy: Some(policy), ..DeleteParams::default() };
        let message = refused("a deletion that shows the secret", secrets.delete("core-1", &shown).await)?;
        ensure!(message.contains("is deleted in the background"), "{message}");
    }
    let plain = secrets.delete("core-1", &DeleteParams { dry_run: true, ..DeleteParams::default() }).await?;
    ensure!(plain.is_right(), "a plain deletion is answered with a status");
    // the control: who may read it anyway is shown it, so it is the policy that refuses above
    let shown = DeleteParams { dry_run: true, propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
    let admins: Api<Secret> = Api::namespaced(stage.client.clone(), own);
    ensure!(admins.delete("core-1", &shown).await?.is_left(), "the apiserver answers such a deletion with the object");
    let token: Secret =
        serde_json::from_value(json!({"metadata": {"name": "t", "annotations": {"kubernetes.io/service-account.name": "collector"}},
        "type": "kubernetes.io/service-account-token"}))?;
    refused("a secret for the collector's token", secrets.create(&dry(), &token).await)?;

    // another group, the cluster, what isolates the group
    refused("another group's devices", Api::<Device>::namespaced(owner.clone(), elsewhere).list(&ListParams::default()).await)?;
    refused("another group's secrets", Api::<Secret>::namespaced(owner.clone(), elsewhere).create(&dry(), &credentials).await)?;
    refused("everybody's devices", Api::<Device>::all(owner.clone()).list(&ListParams::default()).await)?;
    refused("namespaces", Api::<Namespace>::all(owner.clone()).list(&ListParams::default()).await)?;
    let policies: Api<NetworkPolicy> = Api::namespaced(owner.clone(), own);
    refused("delete a policy", policies.delete(names::POLICY_DENY_ALL, &DeleteParams { dry_run: true, ..DeleteParams::default() }).await)?;
    refused("patch a policy", policies.patch(names::POLICY_DENY_ALL, &PatchParams::default().dry_run(), &Patch::Merge(&patch)).await)?;
    let account = Api::<ServiceAccount>::namespaced(owner.clone(), own);
    let short = TokenRequest { spec: Some(TokenRequestSpec::default()), ..TokenRequest::default() };
    refused("the collector's token", account.create_token_request(names::COLLECTOR, &PostParams::default(), &short).await)?;
    let pod: Pod = serde_json::from_value(
        json!({"metadata": {"name": "p"}, "spec": {"hostNetwork": true, "containers": [{"name": "c", "image": "i"}]}}),
    )?;
    let message = refused("a pod", Api::<Pod>::namespaced(owner.clone(), own).create(&dry(), &pod).await)?;
    ensure!(message.contains("cannot create resource \"pods\""), "by RBAC: {message}");
    // besides, and for whoever may create pods: Pod Security
    let message = refused("a pod of an administrator", Api::<Pod>::namespaced(stage.client.clone(), own).create(&dry(), &pod).await)?;
    ensure!(message.contains("violates PodSecurity"), "{message}");

    other.erase().await?;
    group.erase().await
}

/// C13: the condition and the command say that all holds; and when an owner is bound to something strong, both say so, until it is undone.
#[tokio::test(flavor = "multi_thread")]
async fn too_strong_an_owner_is_told_and_heals() -> Result<()> {
    let stage = Stage::find().await?;
    let _together = Stage::together().await;
    let (group, _) = owned(&stage, "conform-strong", 133).await?;
    password_secret(&stage, &group.namespace, "core-1", "conform-secret").await?;
    group.device("core-1", "CNF-2", json!({"host": "172.20.133.11", "credentialsSecretRef": {"name": "core-1"}})).await?;
    let good = within(&group, "True").await?;
    ensure!(good.contains("denied by RBAC"), "{good}");
    let answer = stage.tsujiban(&["conformance", "conform-strong"]).await?;
    ensure!(answer.code == 0, "{} {}", answer.out, answer.err);
    let report = answer.json()?;
    for (id, result) in [
        ("MTB-PL1-CC-CPI-1", "Holds"),
        ("MTB-PL1-BC-CPI-5", "DeniedByRbac"),
        ("MTB-PL2-BC-OPS-4", "NotApplicable"),
        ("TSJ-OPS-1", "Holds"),
        ("TSJ-DI-2", "Holds"),
        ("TSJ-DI-3", "Holds"),
        ("TSJ-NI-2", "Holds"),
    ] {
        ensure!(result_of(&report, id)? == result, "{id} in {}", answer.out);
    }

    // somebody binds the owner to everything
    let subject = json!({"kind": "ServiceAccount", "name": "owner-conform-strong", "namespace": ACCOUNTS});
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"});
    let bindings: Api<ClusterRoleBinding> = Api::all(stage.client.clone());
    let strong: ClusterRoleBinding =
        serde_json::from_value(json!({"metadata": {"name": "conform-strong"}, "roleRef": role, "subjects": [subject]}))?;
    bindings.create(&PostParams::default(), &strong).await?;
    let told = within(&group, "False").await;
    let tried = stage.tsujiban(&["conformance", "conform-strong"]).await;
    bindings.delete("conform-strong", &DeleteParams::default()).await?;
    let (told, tried) = (told?, tried?);
    ensure!(told.contains("MTB-PL1-CC-CPI-1") && told.contains("conform-strong"), "the binding is named: {told}");
    ensure!(tried.code == 4, "exit code {}: {}", tried.code, tried.err);
    let report = tried.json()?;
    for id in ["MTB-PL1-CC-CPI-1", "MTB-PL1-CC-TI-2", "TSJ-DI-1", "TSJ-CPI-2"] {
        ensure!(result_of(&report, id)? == "Fails", "{id} in {}", tried.out);
    }
    // the group is isolated and backed up all the same
    group.condition("Ready", "True").await?;
    within(&group, "True").await?;

    // a binding in the namespace is seen too, whatever it gives
    let weak: RoleBinding = serde_json::from_value(json!({"metadata": {"name": "stray"}, "subjects": [subject],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}}))?;
    let inside: Api<RoleBinding> = Api::namespaced(stage.client.clone(), &group.namespace);
    inside.create(&PostParams::default(), &weak).await?;
    let told = within(&group, "False").await;
    inside.delete("stray", &DeleteParams::default()).await?;
    ensure!(told.as_ref().is_ok_and(|told| told.contains("TSJ-TI-3") && told.contains("stray")), "{told:?}");
    within(&group, "True").await?;
    group.erase().await
}

/// Who may not impersonate is told which right that needs.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_impersonate_it_is_said() -> Result<()> {
    let stage = Stage::find().await?;
    let _together = Stage::together().await;
    let (group, _) = owned(&stage, "conform-staff", 134).await?;
    let context = stage.kubectl(&["config", "view", "--raw", "-o", "json"]).await?.ok()?.json()?;
    let token = stage.kubectl(&["create", "token", "-n", ACCOUNTS, "owner-conform-staff"]).await?.ok()?;
    let mut config = context;
    let user = config.pointer_mut("/users/0/user").context("no user")?;
    *user = json!({"token": token.out.trim()});
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), config.to_string())?;
    // an account that may read what the command reads, and impersonate nobody
    let reader: ClusterRoleBinding = serde_json::from_value(json!({"metadata": {"name": "conform-reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "conform-reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "owner-conform-staff", "namespace": ACCOUNTS}]}))?;
    let role = [
        "create",
        "clusterrole",
        "conform-reader",
        "--verb=get,list",
        "--resource=tenants.tsujiban.dev,namespaces,resourcequotas,limitranges,networkpolicies.networking.k8s.io,rolebindings.rbac.authorization.k8s.io",
    ];
    stage.kubectl(&role).await?.ok()?;
    let bindings: Api<ClusterRoleBinding> = Api::all(stage.client.clone());
    bindings.create(&PostParams::default(), &reader).await?;
    let answer = until("the account may read", SOON, || async {
        let answer = stage.tsujiban_with(file.path(), &["conformance", "conform-staff"]).await?;
        Ok(answer.err.contains("impersonate").then_some(answer))
    })
    .await;
    bindings.delete("conform-reader", &DeleteParams::default()).await?;
    stage.kubectl(&["delete", "clusterrole", "conform-reader"]).await?.ok()?;
    let answer = answer?;
    ensure!(answer.code == 1, "{answer:?}");
    ensure!(answer.err.contains("serviceaccounts (core) named owner-conform-staff in namespace default"), "{}", answer.err);
    group.erase().await
}

fn result_of(report: &Value, id: &str) -> Result<String> {
    let rows = report.get("checks").and_then(Value::as_array).context("no checks")?;
    let row = rows.iter().find(|row| row.get("id").is_some_and(|found| found == id)).with_context(|| format!("no check {id}"))?;
    Ok(row.get("result").and_then(Value::as_str).context("no result")?.to_owned())
}

/// Waits until the condition has this status, and answers what it says.
async fn within(group: &Group<'_>, status: &str) -> Result<String> {
    until(&format!("tenant {} has {CONFORMANT}={status}", group.name), NOTICED, || async {
        let tenant = group.tenants().get(&group.name).await?;
        let newest = tenant.metadata.generation;
        let conditions = tenant.status.map(|status| status.conditions).unwrap_or_default();
        let found = conditions.into_iter().find(|condition| condition.type_ == CONFORMANT).context("no condition yet")?;
        ensure!(found.status == status && found.observed_generation == newest, "{found:?}");
        Ok(Some(found.message))
    })
    .await
}
