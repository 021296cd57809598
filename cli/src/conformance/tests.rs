//! The command against an apiserver that authorizes as the chart's role of owners does, and as each scenario wants it.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tower::service_fn;

use super::*;
use crate::output::Format;

const OWNER: &str = "yamada@example.co.jp";

/// What differs from a group in which all is well.
#[derive(Default, Clone)]
struct Scenario {
    /// The person who asks may not impersonate.
    no_impersonation: bool,
    /// A proxy in between drops the headers.
    drops_headers: bool,
    /// The owner may do everything.
    is_strong: bool,
    /// Pods may be made, and Pod Security refuses them.
    may_create_pods: bool,
    /// A Secret's deletion shows it.
    shows_secrets: bool,
    /// The namespace enforces no Pod Security.
    is_unrestricted: bool,
    owners: Value,
}

type Log = Arc<Mutex<Vec<(String, String, String)>>>;

fn apiserver(scenario: Scenario) -> (Cluster, Log) {
    let log: Log = Arc::default();
    let seen = Arc::clone(&log);
    let service = service_fn(move |request: Request<Body>| {
        let (scenario, log) = (scenario.clone(), Arc::clone(&log));
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let user = parts.headers.get("impersonate-user").map(|user| user.to_str().unwrap().to_owned());
            let groups: Vec<String> =
                parts.headers.get_all("impersonate-group").iter().map(|group| group.to_str().unwrap().to_owned()).collect();
            let (path, query) = (parts.uri.path().to_owned(), parts.uri.query().unwrap_or_default().to_owned());
            if let Some(user) = &user {
                log.lock().unwrap().push((parts.method.to_string(), format!("{path}?{query}"), user.clone()));
            }
            let (code, answer) = match user {
                None => (200, as_staff(&scenario, &path)),
                Some(_) if scenario.no_impersonation => status(
                    403,
                    r#"users "x" is forbidden: User "me" cannot impersonate resource "users" in API group "" at the cluster scope"#,
                ),
                Some(user) => as_owner(&scenario, &user, &groups, parts.method.as_str(), &path, &query, body),
            };
            Ok::<_, Infallible>(Response::builder().status(code).body(Body::from(answer.to_string().into_bytes())).unwrap())
        }
    });
    (Cluster { client: Client::new(service, "default"), system_namespace: "tsujiban-system".into() }, seen)
}

fn status(code: u16, message: &str) -> (u16, Value) {
    (code, json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": "Forbidden", "message": message}))
}

/// What the person who asks reads.
fn as_staff(scenario: &Scenario, path: &str) -> Value {
    let tenant = |name: &str, owners: &Value| {
        json!({"apiVersion": "tsujiban.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}, "spec": {"displayName": name, "plan": "Free",
            "contact": {"email": "a@example.jp"}, "network": {"deviceCIDRs": ["192.0.2.0/24"]}, "owners": owners}})
    };
    let list = |items: Vec<Value>| json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items});
    let owners = if scenario.owners.is_null() { json!([{"kind": "User", "name": OWNER}]) } else { scenario.owners.clone() };
    let policy = |name: &str, spec: Value| json!({"metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "tsujiban-operator"}}, "spec": spec});
    let amounts = json!({"cpu": "1", "memory": "1", "ephemeral-storage": "1"});
    let level = if scenario.is_unrestricted { "privileged" } else { "restricted" };
    match path.rsplit('/').next().unwrap() {
        "tenants" => list(vec![tenant("acme", &owners), tenant("globex", &json!([]))]),
        "tn-acme" => json!({"metadata": {"name": "tn-acme", "labels": {"pod-security.kubernetes.io/enforce": level}}}),
        "networkpolicies" => list(vec![
            policy("deny-all", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}))
                .as_object()
                .map(|policy| {
                    let mut policy = policy.clone();
                    policy["spec"]["ingress"] = json!([]);
                    policy["spec"]["egress"] = json!([]);
                    json!(policy)
                })
                .unwrap(),
        ]),
        "limitranges" => list(vec![
            json!({"metadata": {"name": "tenant"}, "spec": {"limits": [{"type": "Container", "default": amounts, "defaultRequest": amounts}]}}),
        ]),
        "resourcequotas" => {
            let names = [
                "requests.cpu",
                "limits.cpu",
                "requests.memory",
                "limits.memory",
                "requests.ephemeral-storage",
                "limits.ephemeral-storage",
                "requests.storage",
                "pods",
                "services",
                "replicationcontrollers",
                "resourcequotas",
                "secrets",
                "configmaps",
                "persistentvolumeclaims",
                "services.nodeports",
                "services.loadbalancers",
            ];
            let hard: serde_json::Map<String, Value> = names.iter().map(|name| ((*name).to_owned(), json!("0"))).collect();
            list(vec![json!({"metadata": {"name": "tenant"}, "spec": {"hard": hard}})])
        }
        "rolebindings" => list(vec![]),
        "apis" => json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []}),
        "api" => json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        "v1" => json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [
            {"name": "nodes", "singularName": "node", "namespaced": false, "kind": "Node", "verbs": ["get", "list", "proxy-none"]},
            {"name": "endpoints", "singularName": "endpoints", "namespaced": true, "kind": "Endpoints", "verbs": ["list"]}]}),
        other => panic!("{other}: {path}"),
    }
}

/// What an owner is answered.
fn as_owner(scenario: &Scenario, user: &str, groups: &[String], method: &str, path: &str, query: &str, body: Value) -> (u16, Value) {
    if path.ends_with("/selfsubjectreviews") {
        let name = if scenario.drops_headers { "me" } else { user };
        return (201, json!({"status": {"userInfo": {"username": name, "groups": groups}}}));
    }
    if path.ends_with("/selfsubjectaccessreviews") {
        let mut body = body;
        body["status"] = json!({"allowed": scenario.is_strong, "reason": if scenario.is_strong { "RBAC: allowed by ClusterRoleBinding \"strong\"" } else { "" }});
        return (201, body);
    }
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let own = path.contains("/namespaces/tn-acme/");
    let after = parts.iter().position(|part| *part == "tn-acme").map_or("", |at| parts.get(at + 1).copied().unwrap_or_default());
    let granted = own
        && match after {
            "devices" | "sites" => !path.ends_with("/status") && !path.ends_with("/finalizers"),
            "secrets" => matches!(method, "POST" | "DELETE") && !query.contains("labelSelector"),
            "jobs" => method == "GET",
            "pods" => scenario.may_create_pods && method == "POST" && path.ends_with("/pods"),
            _ => false,
        };
    if !granted && !scenario.is_strong {
        return status(403, &format!(r#"x is forbidden: User "{user}" cannot do resource "x" in API group """#));
    }
    let refused = |why: &str| status(403, &format!("x is forbidden: {why}"));
    if after == "pods" && method == "POST" && path.ends_with("/pods") && !scenario.is_strong {
        let keeps_images = body.pointer("/spec/containers/0/imagePullPolicy") == Some(&json!("IfNotPresent"));
        return if keeps_images { (201, body) } else { refused("violates PodSecurity \"restricted:latest\": x") };
    }
    if after == "secrets" {
        let is_credentials = body["type"] == "tsujiban.dev/device-credentials" && body["metadata"]["labels"].is_null();
        let shows = query.contains("propagationPolicy");
        if method == "POST" && !is_credentials || shows && !scenario.shows_secrets {
            return refused("ValidatingAdmissionPolicy 'p' with binding 'p' denied request: no");
        }
    }
    if after == "devices" && method == "GET" {
        return (200, json!({"items": [{"spec": {"connection": {"credentialsSecretRef": {"name": "core-1"}}}}]}));
    }
    (200, json!({}))
}

async fn run(scenario: Scenario) -> (Result<Value, Failure>, Option<Verdict>, Vec<(String, String, String)>) {
    let (cluster, log) = apiserver(scenario);
    let answer = check(&cluster, &"acme".parse().unwrap(), &[], Language::En, Format::Json).await;
    let verdict = answer.as_ref().ok().map(|answer| answer.verdict);
    let log = log.lock().unwrap().clone();
    (answer.map(|answer| serde_json::from_str(&answer.text).unwrap()), verdict, log)
}

fn result(report: &Value, id: &str) -> (String, String) {
    let row = report["checks"].as_array().unwrap().iter().find(|row| row["id"] == id).unwrap_or_else(|| panic!("{id} in {report:#}"));
    (row["result"].as_str().unwrap().to_owned(), row["note"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_group_in_which_all_is_well_conforms_and_nothing_was_meant() {
    let (report, verdict, log) = run(Scenario::default()).await;
    let report = report.unwrap();
    assert_eq!(verdict, Some(Verdict::Good), "{report:#}");
    assert_eq!(report["checks"].as_array().unwrap().len(), catalogue::all().count());
    assert_eq!(result(&report, "MTB-PL1-BC-CPI-5").0, "DeniedByRbac");
    assert_eq!(result(&report, "MTB-PL2-BC-OPS-3").0, "NotApplicable");
    assert_eq!(result(&report, "TSJ-DI-2").0, "Holds");
    // everything was tried as the owner; what could change something was dry, of a pod that is not there, or a question
    assert!(log.len() > 100 && log.iter().all(|(_, _, user)| user == OWNER));
    for (method, uri, _) in &log {
        let harmless = uri.contains("dryRun=All") || uri.contains("/pods/tsujiban-conformance/") || uri.contains("/selfsubject");
        assert!(method == "GET" || harmless, "{method} {uri}");
    }
}

/// Exit code 4, and the binding that is to blame.
#[tokio::test]
async fn an_owner_who_may_do_too_much_fails() {
    let (report, verdict, _) = run(Scenario { is_strong: true, ..Scenario::default() }).await;
    let report = report.unwrap();
    assert_eq!(verdict.map(Verdict::exit_code), Some(4));
    for id in ["MTB-PL1-CC-CPI-1", "MTB-PL1-BC-CPI-5", "MTB-PL1-CC-TI-2", "TSJ-DI-1", "TSJ-CPI-2", "TSJ-CPI-4"] {
        assert_eq!(result(&report, id).0, "Fails", "{id}");
    }
    assert!(result(&report, "TSJ-DI-1").1.contains("ClusterRoleBinding \"strong\""), "{report:#}");
    assert_eq!(report["conforms"], false);
}

#[tokio::test]
async fn a_secret_that_its_deletion_shows_fails() {
    let (report, verdict, _) = run(Scenario { shows_secrets: true, ..Scenario::default() }).await;
    let report = report.unwrap();
    let failing: Vec<&Value> =
        report["checks"].as_array().unwrap().iter().filter(|row| row["result"] == "Fails").map(|row| &row["id"]).collect();
    assert_eq!((failing, verdict), (vec![&json!("TSJ-DI-2")], Some(Verdict::NotConformant)));
}

/// What refuses a pod is told as it is.
#[tokio::test]
async fn the_label_of_pods_is_honest() {
    let (report, ..) = run(Scenario { may_create_pods: true, ..Scenario::default() }).await;
    let report = report.unwrap();
    assert_eq!(result(&report, "MTB-PL1-BC-CPI-5"), ("Holds".to_owned(), "refused by Pod Security".to_owned()));
    assert_eq!(result(&report, "MTB-PL1-CC-DI-1").0, "Fails");
    let (report, ..) = run(Scenario { is_unrestricted: true, ..Scenario::default() }).await;
    let report = report.unwrap();
    let row = report["checks"].as_array().unwrap().iter().find(|row| row["id"] == "MTB-PL1-BC-CPI-5").unwrap();
    assert_eq!((&row["result"], &row["also"]), (&json!("DeniedByRbac"), &Value::Null));
    assert_eq!(result(&report, "TSJ-HI-1").0, "Fails");
}

#[tokio::test]
async fn without_the_right_to_impersonate_it_is_said_which_one() {
    let owners = json!([{"kind": "ServiceAccount", "name": "deployer", "namespace": "ci"}]);
    let (report, ..) = run(Scenario { no_impersonation: true, owners, ..Scenario::default() }).await;
    let error = report.unwrap_err().to_string();
    assert!(error.contains("impersonate on serviceaccounts (core) named deployer in namespace ci"), "{error}");
    let owners = json!([{"kind": "Group", "name": "acme-admins"}]);
    let (report, ..) = run(Scenario { no_impersonation: true, owners, ..Scenario::default() }).await;
    let error = report.unwrap_err().to_string();
    assert!(error.contains("users (core) named tsujiban-conformance, and on groups (core) named acme-admins"), "{error}");
}

/// A way to the apiserver that drops the headers would let everything be tried as staff: nothing is.
#[tokio::test]
async fn nothing_is_tried_as_somebody_else() {
    let (report, _, log) = run(Scenario { drops_headers: true, ..Scenario::default() }).await;
    let error = report.unwrap_err().to_string();
    assert!(error.contains("took you for me"), "{error}");
    assert_eq!(log.len(), 1);
}

#[tokio::test]
async fn people_read_it_in_their_language() {
    let (cluster, _) = apiserver(Scenario::default());
    for (language, words) in
        [(Language::En, ["denied by RBAC", "Pod Security would refuse it too"]), (Language::Ja, ["RBAC で拒否", "対象外"])]
    {
        let answer = check(&cluster, &"acme".parse().unwrap(), &[], language, Format::Table).await.unwrap();
        for word in words {
            assert!(answer.text.contains(word), "{word} in {}", answer.text);
        }
    }
    let unknown = check(&cluster, &"nobody".parse().unwrap(), &[], Language::En, Format::Table).await.unwrap_err();
    assert!(unknown.to_string().contains("no Tenant nobody"), "{unknown}");
}
