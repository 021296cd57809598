//! What the shipped roles grant, taken apart; and what the operator must not be able to do, tried with its own token.

mod table;
mod tried;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Result, ensure};
use kube::Client;
use serde_json::{Value, json};
use tsujiban_plane::SYSTEM;

use crate::attacks::control;
use crate::attempt::{Attacks, Attempt, Stop, granted, read, refused, start};
use crate::operator::Operator;
use crate::world::World;

pub struct Held {
    world: World,
    operator: Client,
    control: Client,
    _running: Operator,
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_are_what_is_meant_and_no_more() {
    let held = Arc::new(set_up().await.unwrap());
    let mut attacks = Attacks::new();
    for running in [
        start("rights::no_rule_is_wider_than_a_rule_may_be", no_rule_is_wider_than_a_rule_may_be(Arc::clone(&held))),
        start("rights::every_right_is_in_the_table", every_right_is_in_the_table(Arc::clone(&held))),
        start("rights::every_binding_is_in_the_table", every_binding_is_in_the_table(Arc::clone(&held))),
        start("rights::operator_gives_itself_rights", tried::operator_gives_itself_rights(Arc::clone(&held))),
        start("rights::operator_reads_or_changes_secrets", tried::operator_reads_or_changes_secrets(Arc::clone(&held))),
        start("rights::operator_takes_a_namespace", tried::operator_takes_a_namespace(Arc::clone(&held))),
        start("rights::operator_runs_or_becomes_somebody", tried::operator_runs_or_becomes_somebody(Arc::clone(&held))),
        start("rights::operator_lifts_its_own_bounds", tried::operator_lifts_its_own_bounds(Arc::clone(&held))),
        start("rights::other_accounts_do_what_is_not_theirs", other_accounts_do_what_is_not_theirs(Arc::clone(&held))),
    ] {
        attacks.note(running).await;
    }
    attacks.end();
}

async fn set_up() -> Result<Held> {
    let world = World::new().await;
    let staff = r#"staff=[{"name":"tests","verbs":["list","get","verify","update","erase","reveal"],"subjects":[{"kind":"User","name":"tests@example.co.jp"}]}]"#;
    let chart = world.plane.checkout().join("charts/tsujiban").to_string_lossy().into_owned();
    world.plane.helm(&["upgrade", "tsujiban", &chart, "--namespace", SYSTEM, "--reuse-values", "--set-json", staff])?;
    let operator = world.plane.operator().await?.client()?;
    let running = Operator::start(operator.clone(), &world.endpoint);
    let control = control(&world)?;
    world.tenant("acme", json!({})).await;
    world.tenant_is("acme", "True").await;
    world.site("acme").await;
    world.device("acme", "r1", "SN1", 10).await;
    world.device_is("acme", "r1", "True").await;
    // a namespace with the name of a group's that the operator did not make, and one that is nobody's
    for name in ["tn-foreign", "shop"] {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        granted(&control, &Attempt::create("/api/v1/namespaces", body, Stop::Rights)).await?;
    }
    for (namespace, name) in [("tn-acme", "owners"), ("tn-foreign", "theirs"), ("shop", "theirs"), (SYSTEM, "tsujiban-s3")] {
        let body = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "tsujiban.dev/device-credentials",
            "stringData": {"username": "a", "password": "b"}});
        granted(&control, &Attempt::create(&format!("/api/v1/namespaces/{namespace}/secrets"), body, Stop::Rights)).await?;
    }
    Ok(Held { world, operator, control, _running: running })
}

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// The roles or bindings that are ours: all that do not belong to Kubernetes itself.
async fn ours(held: &Held, kinds: &str) -> Result<Vec<Value>> {
    let items = read(&held.control, &format!("{RBAC}/{kinds}")).await?["items"].as_array().cloned().unwrap_or_default();
    let of_kubernetes = |it: &Value| it["metadata"]["labels"]["kubernetes.io/bootstrapping"].is_string();
    Ok(items.into_iter().filter(|it| !of_kubernetes(it)).collect())
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().map(|it| it.as_str().unwrap_or_default().to_owned()).collect()
}

/// Kind, namespace and name.
fn title(kind: &str, metadata: &Value) -> String {
    let name = metadata["name"].as_str().unwrap_or_default();
    metadata["namespace"].as_str().map_or_else(|| format!("{kind} {name}"), |namespace| format!("{kind} {namespace}/{name}"))
}

/// No wildcard, nothing that amounts to one, `bind` by name alone, and no Secret in a role that holds in the whole cluster.
async fn no_rule_is_wider_than_a_rule_may_be(held: Arc<Held>) -> Result<()> {
    let everywhere: BTreeSet<String> =
        ours(&held, "clusterrolebindings").await?.iter().filter_map(|it| it["roleRef"]["name"].as_str().map(str::to_owned)).collect();
    ensure!(everywhere.contains("tsujiban-operator"), "{everywhere:?}");
    let mut seen = 0;
    for (kind, kinds) in [("ClusterRole", "clusterroles"), ("Role", "roles")] {
        for role in ours(&held, kinds).await? {
            let name = title(kind, &role["metadata"]);
            ensure!(role["aggregationRule"].is_null(), "{name} is put together of others");
            let labels = role["metadata"]["labels"].to_string();
            ensure!(!labels.contains("rbac.authorization.k8s.io/aggregate-to"), "{name} adds to a role of Kubernetes: {labels}");
            for rule in role["rules"].as_array().into_iter().flatten() {
                seen += 1;
                let (verbs, resources) = (texts(&rule["verbs"]), texts(&rule["resources"]));
                let groups = texts(&rule["apiGroups"]);
                ensure!(!verbs.iter().chain(&resources).chain(&groups).any(|text| text.contains('*')), "{name} has a wildcard: {rule}");
                ensure!(rule["nonResourceURLs"].is_null(), "{name} has paths: {rule}");
                let has = |verb: &str| verbs.iter().any(|it| it == verb);
                let on = |resource: &str| resources.iter().any(|it| it == resource);
                let by_name = !texts(&rule["resourceNames"]).is_empty();
                ensure!(!["escalate", "impersonate", "deletecollection", "approve", "sign"].iter().any(|verb| has(verb)), "{name}: {rule}");
                ensure!(!has("bind") || by_name && on("clusterroles") && resources.len() == 1, "{name} binds more than by name: {rule}");
                for resource in ["pods/exec", "pods/attach", "pods/ephemeralcontainers", "nodes", "nodes/proxy", "roles"] {
                    ensure!(!on(resource), "{name} has {resource}: {rule}");
                }
                let reads = verbs.iter().all(|verb| ["get", "list", "watch"].contains(&verb.as_str()));
                ensure!(!on("clusterrolebindings") || reads, "{name} gives rights in the whole cluster: {rule}");
                ensure!(!on("serviceaccounts/token") || by_name, "{name} makes any token: {rule}");
                ensure!(!on("clusterroles") || verbs == ["bind"], "{name} changes roles: {rule}");
                if kind == "ClusterRole" && everywhere.contains(role["metadata"]["name"].as_str().unwrap_or_default()) {
                    for resource in ["secrets", "configmaps", "pods", "jobs"] {
                        ensure!(!on(resource), "{name} has {resource} in the whole cluster: {rule}");
                    }
                }
            }
        }
    }
    ensure!(seen > 30, "only {seen} rules were looked at");
    Ok(())
}

async fn every_right_is_in_the_table(held: Arc<Held>) -> Result<()> {
    let mut found: BTreeMap<(String, String, String), BTreeSet<String>> = BTreeMap::new();
    for (kind, kinds) in [("ClusterRole", "clusterroles"), ("Role", "roles")] {
        for role in ours(&held, kinds).await? {
            for rule in role["rules"].as_array().into_iter().flatten() {
                let mut names = texts(&rule["resourceNames"]);
                names.sort();
                for group in texts(&rule["apiGroups"]) {
                    for resource in texts(&rule["resources"]) {
                        let key = (title(kind, &role["metadata"]), format!("{group}/{resource}"), names.join(" "));
                        found.entry(key).or_default().extend(texts(&rule["verbs"]));
                    }
                }
            }
        }
    }
    let found: BTreeSet<_> = found
        .into_iter()
        .map(|((role, resource, names), verbs)| format!("{role}: {resource} [{names}] {}", verbs.into_iter().collect::<Vec<_>>().join(" ")))
        .collect();
    let meant = table::RIGHTS.map(|(role, resource, names, verbs, why)| {
        assert!(!why.is_empty(), "{role}: {resource} has no reason");
        format!("{role}: {resource} [{names}] {verbs}")
    });
    compare(&found, &meant.into())
}

async fn every_binding_is_in_the_table(held: Arc<Held>) -> Result<()> {
    let mut found = BTreeSet::new();
    for (kind, kinds) in [("ClusterRoleBinding", "clusterrolebindings"), ("RoleBinding", "rolebindings")] {
        for binding in ours(&held, kinds).await? {
            let subjects: Vec<String> =
                binding["subjects"].as_array().into_iter().flatten().map(|it| title(it["kind"].as_str().unwrap_or_default(), it)).collect();
            let role = title(binding["roleRef"]["kind"].as_str().unwrap_or_default(), &binding["roleRef"]);
            found.insert(format!("{} gives {role} to {}", title(kind, &binding["metadata"]), subjects.join(", ")));
        }
    }
    let meant = table::BINDINGS.map(|(binding, role, subjects)| format!("{binding} gives {role} to {subjects}"));
    compare(&found, &meant.into())
}

fn compare(found: &BTreeSet<String>, meant: &BTreeSet<String>) -> Result<()> {
    let more: Vec<_> = found.difference(meant).collect();
    let less: Vec<_> = meant.difference(found).collect();
    ensure!(
        more.is_empty() && less.is_empty(),
        "not in the table, so write it there with a reason: {more:#?}; in the table alone: {less:#?}"
    );
    Ok(())
}

/// The accounts of the services, the collectors and staff.
async fn other_accounts_do_what_is_not_theirs(held: Arc<Held>) -> Result<()> {
    let rights = Stop::Rights;
    let everybody = vec![
        Attempt::get("/api/v1/namespaces/tsujiban-system/secrets/tsujiban-master-key", rights),
        Attempt::get("/api/v1/namespaces/tsujiban-system/secrets/tsujiban-epoch-keys", rights),
        Attempt::get("/api/v1/namespaces/tsujiban-system/secrets/tsujiban-s3", rights),
        Attempt::get("/api/v1/secrets", rights),
        Attempt::get("/api/v1/namespaces/tn-acme/secrets", rights),
        Attempt::get("/api/v1/namespaces", rights),
        Attempt::get("/apis/tsujiban.dev/v1alpha1/tenants", rights),
        Attempt::get("/apis/tsujiban.dev/v1alpha1/devices", rights),
        Attempt::delete("/apis/tsujiban.dev/v1alpha1/namespaces/tn-acme/devices/r1", Value::Null, rights),
        Attempt::patch(crate::attempt::MERGE_PATCH, "/apis/tsujiban.dev/v1alpha1/namespaces/tn-acme/devices/r1/status", json!({}), rights),
        Attempt::create("/api/v1/namespaces/tsujiban-system/serviceaccounts/tsujiban-operator/token", tried::token_request(), rights),
    ];
    for (namespace, name) in [(SYSTEM, "tsujiban-backup"), (SYSTEM, "tsujiban-audit"), (SYSTEM, "staff-tests"), ("tn-acme", "collector")] {
        let account = held.world.plane.service_account(namespace, name).await?.client()?;
        refused(&account, &held.control, &everybody).await?;
    }
    for (namespace, name) in [(SYSTEM, "tsujiban-backup"), (SYSTEM, "tsujiban-audit"), (SYSTEM, "staff-tests")] {
        let account = held.world.plane.service_account(namespace, name).await?.client()?;
        refused(&account, &held.control, &[Attempt::get("/api/v1/namespaces/tn-acme/secrets/owners", rights)]).await?;
    }
    // a person of staff obtains the token of their own account, and of no other
    let person = held.world.plane.person("tests@example.co.jp", None).await?.client()?;
    let token = |name: &str| format!("/api/v1/namespaces/tsujiban-system/serviceaccounts/{name}/token");
    granted(&person, &Attempt::create(&token("staff-tests"), tried::token_request(), rights)).await?;
    let others = ["tsujiban-operator", "tsujiban-backup", "tsujiban-audit", "default"];
    refused(&person, &held.control, &others.map(|name| Attempt::create(&token(name), tried::token_request(), rights))).await
}
