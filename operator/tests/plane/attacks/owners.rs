//! Owners: what the operator does for them elsewhere, who they can be, and what they may besides.

use std::sync::Arc;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client};
use serde_json::{Value, json};
use tsujiban_plane::SYSTEM;
use tsujiban_plane::wait::until;

use super::stage::{ATTACKER, Stage, VICTIM, device, devices, namespace, secret, secrets, sites};
use crate::attempt::{APPLY, Attempt, MERGE_PATCH, Stop, granted, read, refused, ways};
use crate::world::SOON;

const TENANTS: &str = "/apis/tsujiban.dev/v1alpha1/tenants";

/// CVE-2026-22872, and what its first repair left open, CVE-2026-65835: nothing that an owner declares is carried out elsewhere than in
/// the owner's own namespace.
pub async fn operator_as_deputy_in_another_namespace(stage: Arc<Stage>) -> Result<()> {
    let elsewhere = |namespace: &str| {
        let mut body = device("deputy", "SN-DEPUTY", "172.20.1.50", None);
        body["metadata"]["namespace"] = json!(namespace);
        body
    };
    let own = devices(ATTACKER);
    let mut attempts = Vec::new();
    for other in ["tn-victim", "kube-system", SYSTEM, ""] {
        if !other.is_empty() {
            let words = Stop::Words("does not match the namespace");
            attempts.push(Attempt::create(&own, elsewhere(other), words).called(other));
        }
    }
    // there, the owner may not
    attempts.push(Attempt::create(&devices(VICTIM), elsewhere("tn-victim"), Stop::Rights));
    for list in ["DeviceList", "List"] {
        let body = json!({"apiVersion": "tsujiban.dev/v1alpha1", "kind": list, "items": [elsewhere("tn-victim")]});
        attempts.push(Attempt::create(&own, body, Stop::Words("")).called("as a list"));
    }
    // names that would be other paths, were they put into one
    let valid = read(&stage.owner, &format!("{own}/osaka")).await?;
    for name in paths() {
        let change = |it: &mut Value| it["spec"]["connection"]["credentialsSecretRef"] = json!({"name": name});
        attempts.extend(ways(&name, &valid, &format!("{own}/osaka"), change, Stop::Words("the name of a Secret"))?);
        let site = |it: &mut Value| it["spec"]["siteRef"]["name"] = json!(name);
        attempts.extend(ways(&name, &valid, &format!("{own}/osaka"), site, Stop::Words("the name of a Site"))?);
    }
    refused(&stage.owner, &stage.control, &attempts).await?;
    // those of no group at all, whoever declares them
    let nowhere = Stop::Policy("tsujiban-devices");
    let foreign = "/apis/tsujiban.dev/v1alpha1/namespaces/kube-system/devices";
    refused(&stage.world.admin, &stage.control, &[Attempt::create(foreign, elsewhere("kube-system"), nowhere)]).await
}

fn paths() -> Vec<String> {
    ["../../tn-victim/secrets/router-login", "device-osaka-ssh?x", "device-osaka-ssh/", "%64evice-osaka-ssh", "osaka#", "?watch=true", "."]
        .map(str::to_owned)
        .into()
}

/// Everything that the operator wrote during all attacks: in groups' namespaces, its own, and nowhere else.
pub async fn operator_wrote_nowhere_else(stage: Arc<Stage>) -> Result<()> {
    let writes = stage.world.plane.audit.writes_of("system:serviceaccount:tsujiban-system:tsujiban-operator")?;
    ensure!(writes.len() > 50, "only {} writes are on record", writes.len());
    let foreign = ["tn-taken/", "tn-alike/", "tn-another/", "tn-taken?", "tn-alike?", "tn-another?"];
    let places = [
        "/api/v1/namespaces/tn-",
        "/apis/networking.k8s.io/v1/namespaces/tn-",
        "/apis/rbac.authorization.k8s.io/v1/namespaces/tn-",
        "/apis/batch/v1/namespaces/tn-",
        "/apis/tsujiban.dev/v1alpha1/tenants/",
        "/apis/tsujiban.dev/v1alpha1/namespaces/tn-",
        "/apis/events.k8s.io/v1/namespaces/tn-",
        "/apis/events.k8s.io/v1/namespaces/default/events",
        "/api/v1/namespaces/tsujiban-system/secrets",
        "/api/v1/namespaces/tsujiban-system/configmaps",
    ];
    let is_right = |uri: &str| {
        let is_creation = uri.split('?').next() == Some("/api/v1/namespaces"); // of what name, its policy sees to
        is_creation || (places.iter().any(|place| uri.starts_with(place)) && !foreign.iter().any(|name| uri.contains(name)))
    };
    let wrong: Vec<_> = writes.iter().filter(|write| !is_right(&write.uri)).collect();
    ensure!(wrong.is_empty(), "{wrong:?}");
    Ok(())
}

/// CVE-2023-46254: the same name in another namespace is somebody else, as an owner and as a collector.
pub async fn same_service_account_name_in_two_namespaces(stage: Arc<Stage>) -> Result<()> {
    for (group, other) in [(ATTACKER, VICTIM), (VICTIM, ATTACKER)] {
        let owner = account(&stage, &format!("ci-{group}"), "deployer").await?;
        until("the account has its owner's rights", SOON, || async { Ok(Some(read(&owner, &devices(group)).await?)) }).await?;
        let collector = account(&stage, &format!("tn-{group}"), "collector").await?;
        read(&collector, &devices(group)).await?;
        let known = format!("{}/{}", secrets(group), if group == VICTIM { "router-login" } else { "own-login" });
        ensure!(read(&collector, &known).await?["data"]["password"].is_string(), "a collector reads its group's credentials");
        let theirs = format!("{}/{}", secrets(other), if other == VICTIM { "router-login" } else { "own-login" });
        let mut attempts = vec![Attempt::get(&theirs, Stop::Rights)];
        for path in [devices(other), sites(other), secrets(other), "/apis/tsujiban.dev/v1alpha1/devices".to_owned()] {
            attempts.push(Attempt::get(&path, Stop::Rights));
        }
        attempts.push(Attempt::create(&secrets(other), secret("planted", "x"), Stop::Rights));
        attempts.push(Attempt::create(&devices(other), device("planted", "SN-PLANTED", "172.20.1.77", None), Stop::Rights));
        refused(&owner, &stage.control, &attempts).await?;
        refused(&collector, &stage.control, &attempts).await?;
    }
    Ok(())
}

async fn account(stage: &Stage, namespace: &str, name: &str) -> Result<Client> {
    stage.world.plane.service_account(namespace, name).await?.client()
}

/// An owner who is one of those whom the policies let pass would be bound by none of them.
pub async fn owner_whom_no_policy_judges(stage: Arc<Stage>) -> Result<()> {
    let tenant = |owner: Value| {
        json!({"apiVersion": "tsujiban.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "wide"}, "spec": {
            "displayName": "Wide", "plan": "Free", "contact": {"email": "a@example.co.jp"}, "owners": [owner],
            "network": {"deviceCIDRs": ["172.20.9.0/24"]},
        }})
    };
    let account = |namespace: &str, name: &str| json!({"kind": "ServiceAccount", "name": name, "namespace": namespace});
    let policy = Stop::Policy("tsujiban-tenants");
    let system = Stop::Words("a system: subject cannot own a group");
    let owners = [
        (account("kube-system", "default"), policy),
        (account(SYSTEM, "tsujiban-operator"), policy),
        (account(SYSTEM, "tsujiban-backup"), policy),
        (account("tn-victim", "collector"), policy),
        (account("tn-wide", "collector"), policy),
        (json!({"kind": "Group", "name": "system:masters"}), system),
        (json!({"kind": "Group", "name": "system:serviceaccounts"}), system),
        (json!({"kind": "Group", "name": "system:serviceaccounts:tn-victim"}), system),
        (json!({"kind": "Group", "name": "system:authenticated"}), system),
        (json!({"kind": "User", "name": "system:serviceaccount:tn-victim:collector"}), system),
        (json!({"kind": "User", "name": "system:kube-controller-manager"}), system),
    ];
    let live = read(&stage.world.admin, &format!("{TENANTS}/{ATTACKER}")).await?;
    let mut attempts = Vec::new();
    for (owner, stop) in owners {
        attempts.push(Attempt::create(TENANTS, tenant(owner.clone()), stop).called(&owner.to_string()));
        let change = |it: &mut Value| it["spec"]["owners"] = json!([owner]);
        attempts.extend(ways(&owner.to_string(), &live, &format!("{TENANTS}/{ATTACKER}"), change, stop)?);
    }
    refused(&stage.world.admin, &stage.control, &attempts).await?;
    // and were such a Tenant there all the same, the operator would be refused the binding
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/tn-attacker/rolebindings";
    let binding = |subject: Value| {
        let body = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "wide"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "tsujiban-tenant-owner"}, "subjects": [subject]});
        Attempt::create(bindings, body, Stop::Policy("tsujiban-operator-rolebindings"))
    };
    let subject = |namespace: &str, name: &str| binding(json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}));
    let attempts = [subject("kube-system", "default"), subject(SYSTEM, "tsujiban-operator"), subject("tn-victim", "collector")];
    let operator = stage.world.plane.operator().await?.client()?;
    refused(&operator, &stage.control, &attempts).await?;
    // names that only look like one of Kubernetes' own are nobody, and give nobody more
    let lookalikes = json!([{"kind": "Group", "name": "System:masters"}, {"kind": "User", "name": "\u{455}ystem:admin"},
        {"kind": "ServiceAccount", "name": "deployer", "namespace": "ci-attacker"}]);
    stage.world.tenant("wide", json!({"owners": lookalikes})).await;
    stage.world.tenant_is("wide", "True").await;
    Ok(())
}

/// What an owner may is in the role, and nothing besides: the ways by which owners of other systems came to more.
pub async fn owner_with_more_rights_than_meant(stage: Arc<Stage>) -> Result<()> {
    let (core, rbac, batch) = (namespace(ATTACKER), "/apis/rbac.authorization.k8s.io/v1", "/apis/batch/v1/namespaces/tn-attacker");
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "mine"}, "spec": {
        "serviceAccountName": "collector", "containers": [{"name": "c", "image": "x", "securityContext": {
            "allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}},
            "resources": {"limits": {"cpu": "10m", "memory": "8Mi", "ephemeral-storage": "8Mi"}}}]}});
    let token = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": ["backup.tsujiban.dev"]}});
    let config_map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine"}});
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "mine"}, "rules": []});
    let bound = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "mine"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "tsujiban-collector"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "owner@attacker.example.co.jp"}]});
    let cron = read(&stage.control, &format!("{batch}/cronjobs/device-backup")).await?;
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "mine"}, "spec": cron["spec"]["jobTemplate"]["spec"]});
    let tenant = read(&stage.control, &format!("{TENANTS}/{ATTACKER}")).await?;
    let account: Api<ServiceAccount> = Api::namespaced(stage.world.admin.clone(), "tn-attacker");
    account.get("collector").await?; // it is there to ask a token for
    let rights = Stop::Rights;
    let mut attempts = vec![
        Attempt::create(&format!("{core}/pods"), pod, rights),
        Attempt::create(&format!("{core}/pods/any/exec?command=sh"), Value::Null, rights).without_effect(),
        Attempt::create(&format!("{core}/pods/any/attach"), Value::Null, rights).without_effect(),
        Attempt::create(&format!("{core}/pods/any/portforward"), Value::Null, rights).without_effect(),
        Attempt::patch(MERGE_PATCH, &format!("{core}/pods/any/ephemeralcontainers"), json!({}), rights).without_effect(),
        Attempt::get(&format!("{core}/pods/any/log"), rights).without_effect(),
        Attempt::create(&format!("{core}/serviceaccounts/collector/token"), token, rights),
        Attempt::create(&format!("{core}/configmaps"), config_map, rights),
        Attempt::get(&format!("{core}/configmaps/tsujiban-ca"), rights),
        Attempt::delete(&format!("{core}/resourcequotas/tenant"), json!({}), rights),
        Attempt::delete("/apis/networking.k8s.io/v1/namespaces/tn-attacker/networkpolicies/deny-all", json!({}), rights),
        Attempt::create(&format!("{rbac}/namespaces/tn-attacker/roles"), role, rights),
        Attempt::create(&format!("{rbac}/namespaces/tn-attacker/rolebindings"), bound, rights),
        Attempt::create(&format!("{batch}/jobs"), job, rights),
        Attempt::patch(MERGE_PATCH, &format!("{batch}/cronjobs/device-backup"), json!({"spec": {"suspend": true}}), rights),
        Attempt::patch(MERGE_PATCH, &format!("{batch}/jobs/any/status"), json!({}), rights).without_effect(),
        Attempt::delete(&core, json!({}), rights),
        Attempt::get("/api/v1/namespaces", rights),
        Attempt::get("/api/v1/nodes", rights),
        Attempt::get(TENANTS, rights),
        Attempt::get("/api/v1/secrets", rights),
        Attempt::delete(&devices(ATTACKER), json!({}), rights), // all at once
        Attempt::patch(APPLY, &format!("{TENANTS}/mine?fieldManager=mine"), applied(&tenant), rights),
    ];
    attempts.extend(ways(
        "changes its own Tenant",
        &tenant,
        &format!("{TENANTS}/{ATTACKER}"),
        |it| it["spec"]["plan"] = json!("Free"),
        rights,
    )?);
    refused(&stage.owner, &stage.control, &attempts).await?;
    let as_another = |user: &str| {
        let attempt = Attempt::get(&devices(VICTIM), Stop::Words("cannot impersonate"));
        attempt.header("impersonate-user", user).called(user)
    };
    let others = [
        "owner@victim.example.co.jp",
        "system:serviceaccount:tn-victim:collector",
        "system:serviceaccount:tsujiban-system:tsujiban-operator",
    ];
    refused(&stage.owner, &stage.control, &others.map(as_another)).await?;
    // what the role does grant works, so that the refusals above are not those of somebody without any right
    granted(&stage.owner, &Attempt::get(&format!("{batch}/jobs"), rights)).await.map(|_| ())
}

fn applied(tenant: &Value) -> Value {
    json!({"apiVersion": tenant["apiVersion"], "kind": "Tenant", "metadata": {"name": "mine"}, "spec": tenant["spec"]})
}
