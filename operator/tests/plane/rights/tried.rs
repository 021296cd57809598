//! The operator's own token, in the hands of somebody else.

use std::sync::Arc;

use anyhow::Result;
use http::Method;
use serde_json::{Value, json};

use super::{Held, RBAC};
use crate::attempt::{APPLY, Attempt, MERGE_PATCH, STRATEGIC_PATCH, Stop, granted, read, refused};

const RIGHTS: Stop = Stop::Rights;
const POLICY: Stop = Stop::Policy("tsujiban-operator");
const NAMESPACES: Stop = Stop::Policy("tsujiban-operator-namespaces");
const SECRETS: Stop = Stop::Policy("tsujiban-operator-secrets");
const BINDINGS: Stop = Stop::Policy("tsujiban-operator-rolebindings");
const DECLARED: Stop = Stop::Policy("tsujiban-operator-declared");
const OWN: [&str; 3] = ["tsujiban-operator-tenant", "tsujiban-collector", "tsujiban-tenant-owner"];

pub fn token_request() -> Value {
    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}})
}

fn binding(role: &str, subject: &Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "grab"}, "subjects": [subject],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}})
}

fn itself() -> Value {
    json!({"kind": "ServiceAccount", "name": "tsujiban-operator", "namespace": "tsujiban-system"})
}

/// The kinds of patches that the operator's role allows.
fn patches(path: &str, body: &Value, stop: Stop) -> Vec<Attempt> {
    let mut applied = body.clone();
    for (key, value) in [("apiVersion", "v1"), ("kind", "Namespace")] {
        if applied[key].is_null() {
            applied[key] = json!(value);
        }
    }
    applied["metadata"]["name"] = json!(path.rsplit('/').next());
    vec![
        Attempt::patch(MERGE_PATCH, path, body.clone(), stop),
        Attempt::patch(STRATEGIC_PATCH, path, body.clone(), stop),
        Attempt::patch(APPLY, &format!("{path}?fieldManager=tsujiban-operator&force=true"), applied, stop),
    ]
}

/// Above all, its own roles where Kubernetes lives.
pub async fn operator_gives_itself_rights(held: Arc<Held>) -> Result<()> {
    let mut attempts = Vec::new();
    for namespace in ["kube-system", "default", "tsujiban-system", "shop", "tn-foreign"] {
        let path = format!("{RBAC}/namespaces/{namespace}/rolebindings");
        // to whom the other policy would let it give them
        let collector = json!({"kind": "ServiceAccount", "name": "collector", "namespace": namespace});
        let person = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "somebody"});
        for (role, subject) in OWN.into_iter().zip([itself(), collector, person]) {
            attempts.push(Attempt::create(&path, binding(role, &subject), POLICY).called(role));
            let apply = format!("{path}/grab?fieldManager=tsujiban-operator&force=true");
            attempts.push(Attempt::patch(APPLY, &apply, binding(role, &subject), POLICY).called(role));
        }
        let mut unnamed = binding(OWN[0], &itself());
        unnamed["metadata"] = json!({"generateName": "grab-"});
        attempts.push(Attempt::create(&path, unnamed, POLICY));
        for role in ["cluster-admin", "admin", "edit", "view", "tsujiban-backup"] {
            attempts.push(Attempt::create(&path, binding(role, &itself()), Stop::Escalation).called(role));
        }
    }
    let path = format!("{RBAC}/namespaces/tn-acme/rolebindings");
    for role in ["cluster-admin", "admin", "edit", "view"] {
        attempts.push(Attempt::create(&path, binding(role, &itself()), Stop::Escalation).called(role));
    }
    // what it holds itself, RBAC lets it pass on; the policy does not
    let person = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "somebody"});
    let masters = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:authenticated"});
    let other = json!({"kind": "ServiceAccount", "name": "collector", "namespace": "tn-foreign"});
    for (role, subject) in [
        ("tsujiban-operator", &itself()),
        ("tsujiban-operator-tenant", &person),
        ("tsujiban-operator-tenant", &masters),
        ("tsujiban-collector", &other),
        ("tsujiban-collector", &person),
        ("tsujiban-tenant-owner", &masters),
        ("tsujiban-tenant-owner", &other),
        ("tsujiban-tenant-owner", &itself()),
    ] {
        attempts.push(Attempt::create(&path, binding(role, subject), BINDINGS).called(&format!("{role} to {subject}")));
    }
    let mut wider = binding("tsujiban-collector", &other);
    wider["metadata"] = json!({});
    for attempt in patches(&format!("{path}/tsujiban-collector"), &wider, BINDINGS) {
        attempts.push(attempt.called("another subject"));
    }
    let rules = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]);
    let role =
        |kind: &str| json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": "grab"}, "rules": rules});
    let mut everywhere = binding("tsujiban-operator-tenant", &itself());
    everywhere["kind"] = json!("ClusterRoleBinding");
    attempts.push(Attempt::create(&format!("{RBAC}/clusterrolebindings"), everywhere, RIGHTS));
    attempts.push(Attempt::create(&format!("{RBAC}/namespaces/tn-acme/roles"), role("Role"), RIGHTS));
    attempts.push(Attempt::create(&format!("{RBAC}/clusterroles"), role("ClusterRole"), RIGHTS));
    for name in OWN {
        let body = json!({"metadata": {"labels": {"a": "b"}}, "rules": rules});
        attempts.push(Attempt::patch(MERGE_PATCH, &format!("{RBAC}/clusterroles/{name}"), body, RIGHTS));
    }
    let path = format!("{RBAC}/clusterrolebindings/tsujiban-operator");
    attempts.push(Attempt::patch(MERGE_PATCH, &path, json!({"subjects": [person]}), RIGHTS));
    for namespace in ["tsujiban-system", "default"] {
        let path = format!("{RBAC}/namespaces/{namespace}/rolebindings/tsujiban-operator");
        let either = Stop::EitherPolicy("tsujiban-operator", "tsujiban-operator-rolebindings");
        attempts.push(Attempt::patch(MERGE_PATCH, &path, json!({"metadata": {"labels": {"a": "b"}}}), either));
        attempts.push(Attempt::delete(&path, Value::Null, POLICY));
    }
    refused(&held.operator, &held.control, &attempts).await?;
    // what it is there for, it can
    let own = Attempt::create(&format!("{RBAC}/namespaces/tn-acme/rolebindings"), binding("tsujiban-operator-tenant", &itself()), RIGHTS);
    granted(&held.operator, &own).await.map(|_| ())
}

pub async fn operator_reads_or_changes_secrets(held: Arc<Held>) -> Result<()> {
    let path = |namespace: &str| format!("/api/v1/namespaces/{namespace}/secrets");
    let secret = |name: &str, kind: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "annotations": {"kubernetes.io/service-account.name": "default"}},
            "type": kind, "stringData": {"username": "a", "password": "b"}})
    };
    let token = "kubernetes.io/service-account-token";
    let (system, group) = (path("tsujiban-system"), path("tn-acme"));
    let mut attempts = vec![
        Attempt::get("/api/v1/secrets", RIGHTS),
        Attempt::get(&format!("{}/theirs", path("tn-foreign")), RIGHTS),
        Attempt::get(&format!("{}/theirs", path("shop")), RIGHTS),
        Attempt::get(&format!("{system}/tsujiban-s3"), RIGHTS),
        Attempt::get(&format!("{system}?watch=true&timeoutSeconds=1"), RIGHTS),
        Attempt::delete(&group, Value::Null, RIGHTS),
    ];
    for namespace in ["kube-system", "default", "tsujiban-system", "tn-foreign", "tn-acme"] {
        attempts.push(Attempt::get(&path(namespace), RIGHTS));
    }
    for namespace in ["kube-system", "default", "tn-foreign"] {
        attempts.push(Attempt::create(&path(namespace), secret("grab", "Opaque"), RIGHTS));
    }
    // the keys to all customers' data, which policy tsujiban-keys guards against everybody but the operator
    let master = format!("{system}/tsujiban-master-key");
    let mut keys = patches(&master, &json!({"kind": "Secret", "metadata": {"annotations": {"a": "b"}}}), RIGHTS);
    keys.push(Attempt::new(Method::PUT, &master, read(&held.control, &master).await?, RIGHTS));
    for name in ["tsujiban-master-key", "tsujiban-epoch-keys"] {
        keys.push(Attempt::delete(&format!("{system}/{name}"), Value::Null, RIGHTS));
    }
    attempts.extend(keys.into_iter().map(Attempt::stopped_for_all_others));
    for name in ["tsujiban-ca", "tsujiban-backup-tls", "tsujiban-s3"] {
        attempts.push(Attempt::delete(&format!("{system}/{name}"), Value::Null, RIGHTS));
    }
    attempts.push(Attempt::create(&system, secret("grab", "Opaque"), POLICY));
    attempts.push(Attempt::create(&system, secret("grab", token), POLICY));
    // in a group's namespace: what is not the operator's
    attempts.push(Attempt::create(&group, secret("grab", token), SECRETS));
    attempts.push(Attempt::create(&group, secret("grab", "Opaque"), SECRETS));
    let ours = json!({"kind": "Secret", "metadata": {"labels": {"app.kubernetes.io/managed-by": "tsujiban-operator"}}});
    attempts.extend(patches(&format!("{group}/owners"), &ours, SECRETS));
    attempts.push(Attempt::delete(&format!("{group}/owners"), Value::Null, SECRETS));
    refused(&held.operator, &held.control, &attempts).await?;
    granted(&held.operator, &Attempt::get(&format!("{group}/device-r1-ssh"), RIGHTS)).await.map(|_| ())
}

pub async fn operator_takes_a_namespace(held: Arc<Held>) -> Result<()> {
    let path = |name: &str| format!("/api/v1/namespaces/{name}");
    let with = |name: &str, labels: Value| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
    let marked =
        |group: &str| json!({"metadata": {"labels": {"tsujiban.dev/tenant": group, "app.kubernetes.io/managed-by": "tsujiban-operator"}}});
    let mut attempts = vec![
        Attempt::create("/api/v1/namespaces", with("grab", json!({})), NAMESPACES),
        Attempt::create("/api/v1/namespaces", with("grab", json!({"tsujiban.dev/tenant": "grab"})), NAMESPACES),
        Attempt::create("/api/v1/namespaces", with("tn-grab", json!({})), NAMESPACES),
        Attempt::create("/api/v1/namespaces", with("tn-grab", json!({"tsujiban.dev/tenant": "acme"})), NAMESPACES),
        Attempt::delete(&path("shop"), Value::Null, NAMESPACES),
        Attempt::delete(&path("tn-foreign"), Value::Null, NAMESPACES),
    ];
    for (name, group) in
        [("kube-system", "acme"), ("default", "acme"), ("tsujiban-system", "acme"), ("shop", "shop"), ("tn-foreign", "foreign")]
    {
        attempts.extend(patches(&path(name), &marked(group), NAMESPACES));
    }
    attempts.extend(patches(&path("tn-acme"), &marked("other"), NAMESPACES));
    for subresource in ["status", "finalize"] {
        let live = read(&held.control, &path("tn-acme")).await?;
        attempts.push(Attempt::new(Method::PUT, &format!("{}/{subresource}", path("tn-acme")), live, RIGHTS));
    }
    attempts.push(Attempt::new(Method::PUT, &path("shop"), read(&held.control, &path("shop")).await?, RIGHTS));
    refused(&held.operator, &held.control, &attempts).await
}

pub async fn operator_runs_or_becomes_somebody(held: Arc<Held>) -> Result<()> {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "grab"}, "spec": {"containers": [{"name": "c", "image": "x",
        "securityContext": {"allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"}}, "resources": {"limits": {"cpu": "10m", "memory": "8Mi", "ephemeral-storage": "8Mi"}}}]}});
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "grab"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": pod["spec"]["containers"]}}}});
    let mut attempts = Vec::new();
    for namespace in ["kube-system", "default", "tsujiban-system", "tn-acme"] {
        let core = format!("/api/v1/namespaces/{namespace}");
        attempts.push(Attempt::create(&format!("{core}/pods"), pod.clone(), RIGHTS));
        attempts.push(Attempt::create(&format!("/apis/batch/v1/namespaces/{namespace}/jobs"), job.clone(), RIGHTS));
        attempts.push(Attempt::create(&format!("{core}/pods/any/exec?command=sh"), Value::Null, RIGHTS).without_effect());
        attempts.push(Attempt::create(&format!("{core}/pods/any/attach"), Value::Null, RIGHTS).without_effect());
        attempts.push(Attempt::create(&format!("{core}/pods/any/portforward"), Value::Null, RIGHTS).without_effect());
        attempts.push(Attempt::patch(MERGE_PATCH, &format!("{core}/pods/any/ephemeralcontainers"), json!({}), RIGHTS).without_effect());
    }
    for account in [
        "kube-system/serviceaccounts/default",
        "tsujiban-system/serviceaccounts/tsujiban-backup",
        "tsujiban-system/serviceaccounts/tsujiban-operator",
        "tsujiban-system/serviceaccounts/staff-tests",
        "tn-acme/serviceaccounts/collector",
    ] {
        attempts.push(Attempt::create(&format!("/api/v1/namespaces/{account}/token"), token_request(), RIGHTS));
    }
    attempts.push(Attempt::get("/api/v1/nodes", RIGHTS));
    attempts.push(Attempt::get("/api/v1/nodes/any/proxy/pods", RIGHTS).without_effect());
    refused(&held.operator, &held.control, &attempts).await?;
    let become_one = |user: &str| {
        let attempt = Attempt::get("/api/v1/namespaces/tn-acme/secrets", Stop::Words("cannot impersonate"));
        attempt.header("impersonate-user", user).called(user)
    };
    let users = [
        "system:admin",
        "system:serviceaccount:kube-system:default",
        "system:serviceaccount:tn-acme:collector",
        "owner@acme.example.co.jp",
    ];
    refused(&held.operator, &held.control, &users.map(become_one)).await?;
    let masters = Attempt::get("/api/v1/secrets", Stop::Words("cannot impersonate")).header("impersonate-user", "x");
    refused(&held.operator, &held.control, &[masters.header("impersonate-group", "system:masters")]).await
}

/// Policies, kinds, its own Deployment; and what people declare.
pub async fn operator_lifts_its_own_bounds(held: Arc<Held>) -> Result<()> {
    let admission = "/apis/admissionregistration.k8s.io/v1";
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    let mut attempts = Vec::new();
    for name in ["tsujiban-operator", "tsujiban-operator-rolebindings", "tsujiban-namespaces"] {
        for kinds in ["validatingadmissionpolicies", "validatingadmissionpolicybindings"] {
            attempts.push(Attempt::patch(MERGE_PATCH, &format!("{admission}/{kinds}/{name}"), label.clone(), RIGHTS));
            attempts.push(Attempt::delete(&format!("{admission}/{kinds}/{name}"), Value::Null, RIGHTS));
        }
    }
    for kind in ["ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"] {
        let body = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "grab"}});
        attempts.push(Attempt::create(&format!("{admission}/{}s", kind.to_lowercase()), body, RIGHTS));
    }
    for name in ["tenants", "devices", "sites"] {
        let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}.tsujiban.dev");
        attempts.push(Attempt::patch(MERGE_PATCH, &path, label.clone(), RIGHTS));
        attempts.push(Attempt::delete(&path, Value::Null, RIGHTS));
    }
    let deployment = "/apis/apps/v1/namespaces/tsujiban-system/deployments/tsujiban-operator";
    attempts.push(Attempt::get(deployment, RIGHTS));
    attempts.push(Attempt::patch(MERGE_PATCH, deployment, label.clone(), RIGHTS));
    attempts.push(Attempt::patch(
        MERGE_PATCH,
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes",
        label.clone(),
        RIGHTS,
    ));
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "grab"}});
    attempts.push(Attempt::create("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases", lease.clone(), RIGHTS));
    attempts.push(Attempt::create("/apis/coordination.k8s.io/v1/namespaces/tsujiban-system/leases", lease, POLICY));
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "grab"}});
    attempts.push(Attempt::create("/api/v1/namespaces/tsujiban-system/configmaps", map, POLICY));
    // what people declare
    let tsujiban = "/apis/tsujiban.dev/v1alpha1";
    let (tenant, device) = (format!("{tsujiban}/tenants/acme"), format!("{tsujiban}/namespaces/tn-acme/devices/r1"));
    let site = format!("{tsujiban}/namespaces/tn-acme/sites/hq");
    let mut copy = read(&held.control, &tenant).await?;
    copy["metadata"] = json!({"name": "grab"});
    attempts.push(Attempt::create(&format!("{tsujiban}/tenants"), copy, RIGHTS));
    attempts.push(Attempt::delete(&tenant, Value::Null, RIGHTS));
    attempts.push(Attempt::delete(&device, Value::Null, RIGHTS));
    attempts.push(Attempt::delete(&site, Value::Null, RIGHTS));
    let erase = json!({"spec": {"deletionPolicy": "Erase"}});
    let moved = json!({"spec": {"connection": {"host": "172.20.1.99"}}});
    let renamed = json!({"spec": {"displayName": "grab"}});
    for (kind, path, body) in [("Tenant", &tenant, erase), ("Site", &site, renamed), ("Device", &device, moved)] {
        let mut applied = body.clone();
        applied["apiVersion"] = json!("tsujiban.dev/v1alpha1");
        applied["kind"] = json!(kind);
        applied["metadata"] = json!({"name": path.rsplit('/').next()});
        attempts.push(Attempt::patch(MERGE_PATCH, path, body, DECLARED));
        attempts.push(Attempt::patch(APPLY, &format!("{path}?fieldManager=tsujiban-operator&force=true"), applied, DECLARED));
        attempts.push(Attempt::new(Method::PUT, path, read(&held.control, path).await?, RIGHTS).without_effect()); // or a conflict
    }
    refused(&held.operator, &held.control, &attempts).await
}
