//! Each rule about live objects, red once by a bad object. Whatever is not changed is as the operator makes it.

use serde_json::{Value, json};

use super::*;
use crate::judge::good;

fn judged(rule: LiveRule, change: impl FnOnce(&mut Value)) -> Result<String, Vec<String>> {
    judge(rule, &good::live(change), &good::wanted())
}

fn fails(rule: LiveRule, with: &str, change: impl FnOnce(&mut Value)) {
    let wrong = judged(rule, change).unwrap_err();
    assert!(wrong.iter().any(|sentence| sentence.contains(with)), "{with} in {wrong:#?}");
}

#[test]
fn what_the_operator_makes_is_good() {
    for rule in [
        LiveRule::ResourceQuotas,
        LiveRule::ObjectQuotas,
        LiveRule::Limits,
        LiveRule::PodSecurity,
        LiveRule::DefaultDeny,
        LiveRule::NothingElseOpen,
        LiveRule::Bindings,
    ] {
        judged(rule, |_| ()).unwrap_or_else(|wrong| panic!("{rule:?}: {wrong:#?}"));
    }
}

#[test]
fn quotas() {
    for name in ["requests.cpu", "limits.memory", "requests.ephemeral-storage", "requests.storage"] {
        fails(LiveRule::ResourceQuotas, name, |live| drop(live["resourceQuotas"][0]["spec"]["hard"].as_object_mut().unwrap().remove(name)));
    }
    for name in ["pods", "secrets", "services.nodeports", "resourcequotas"] {
        fails(LiveRule::ObjectQuotas, name, |live| drop(live["resourceQuotas"][0]["spec"]["hard"].as_object_mut().unwrap().remove(name)));
    }
    // a quota for some pods only bounds nothing
    fails(LiveRule::ObjectQuotas, "pods", |live| live["resourceQuotas"][0]["spec"]["scopes"] = json!(["BestEffort"]));
    fails(LiveRule::ResourceQuotas, "limits.cpu", |live| live["resourceQuotas"] = json!([]));
    fails(LiveRule::Limits, "memory", |live| {
        drop(live["limitRanges"][0]["spec"]["limits"][0]["default"].as_object_mut().unwrap().remove("memory"))
    });
    fails(LiveRule::Limits, "cpu", |live| live["limitRanges"] = json!([]));
    assert!(forbids_node_ports(&good::live(|_| ())));
    assert!(!forbids_node_ports(&good::live(|live| live["resourceQuotas"][0]["spec"]["hard"]["services.nodeports"] = json!("1"))));
}

#[test]
fn pod_security() {
    let label = |key: &str, value: Option<&str>| {
        let (key, value) = (format!("pod-security.kubernetes.io/{key}"), value.map(str::to_owned));
        move |live: &mut Value| {
            let labels = live["namespace"]["metadata"]["labels"].as_object_mut().unwrap();
            match value {
                Some(value) => drop(labels.insert(key, json!(value))),
                None => drop(labels.remove(&key)),
            }
        }
    };
    fails(LiveRule::PodSecurity, "baseline", label("enforce", Some("baseline")));
    fails(LiveRule::PodSecurity, "no level", label("enforce", None));
    fails(LiveRule::PodSecurity, "v1.20", label("enforce-version", Some("v1.20")));
    judged(LiveRule::PodSecurity, label("enforce-version", None)).unwrap();
    fails(LiveRule::PodSecurity, "not there", |live| live["namespace"] = Value::Null);
}

#[test]
fn the_network_is_closed() {
    fails(LiveRule::DefaultDeny, "Ingress", |live| drop(live["networkPolicies"].as_array_mut().unwrap().remove(0)));
    fails(LiveRule::DefaultDeny, "Ingress", |live| live["networkPolicies"][0]["spec"]["policyTypes"] = json!(["Egress"]));
    // the policy for DNS closes that direction too, as long as it selects every pod
    let only_some = json!({"matchLabels": {"a": "b"}});
    fails(LiveRule::DefaultDeny, "Egress", |live| {
        live["networkPolicies"][0]["spec"]["policyTypes"] = json!(["Ingress"]);
        live["networkPolicies"][1]["spec"]["podSelector"] = only_some;
    });
    fails(LiveRule::DefaultDeny, "Ingress", |live| live["networkPolicies"][0]["spec"]["podSelector"] = json!({"matchLabels": {"a": "b"}}));
}

#[test]
fn what_opens_the_network_is_named() {
    let stray = |spec: Value| {
        move |live: &mut Value| {
            live["networkPolicies"].as_array_mut().unwrap().push(json!({"metadata": {"name": "stray"}, "spec": spec}));
        }
    };
    let open = |spec: Value, with: &str| fails(LiveRule::NothingElseOpen, with, stray(spec));
    open(json!({"podSelector": {}, "ingress": [{}]}), "stray lets traffic in");
    open(json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {}}]}]}), "stray lets traffic in");
    open(json!({"podSelector": {}, "egress": [{}]}), "stray lets traffic out to everywhere");
    open(json!({"podSelector": {}, "egress": [{"to": [{"ipBlock": {"cidr": "172.20.1.0/24"}}]}]}), "172.20.1.0/24");
    // what opens nothing is nobody's business
    judged(LiveRule::NothingElseOpen, stray(json!({"podSelector": {}, "policyTypes": ["Ingress"]}))).unwrap();
    judged(LiveRule::NothingElseOpen, stray(json!({"podSelector": {}, "egress": []}))).unwrap();

    let policy = |index: usize, path: &'static str, value: Value| {
        move |live: &mut Value| *live["networkPolicies"][index]["spec"].pointer_mut(path).unwrap() = value
    };
    // the operator's own, opened by somebody
    fails(LiveRule::NothingElseOpen, "deny-all lets traffic in", policy(0, "/ingress", json!([{}])));
    fails(LiveRule::NothingElseOpen, "dns lets", policy(1, "/egress/0/ports", json!([{"protocol": "TCP", "port": 443}])));
    fails(LiveRule::NothingElseOpen, "dns lets", policy(1, "/egress/0/ports", json!([{"protocol": "TCP", "port": 1, "endPort": 65535}])));
    fails(LiveRule::NothingElseOpen, "dns lets", policy(1, "/egress/0/to/0/namespaceSelector", json!({})));
    fails(LiveRule::NothingElseOpen, "collector lets", policy(2, "/egress/2/to/0/ipBlock/cidr", json!("172.16.0.0/12")));
    fails(LiveRule::NothingElseOpen, "collector lets", policy(2, "/egress/0/ports", Value::Null));
    fails(LiveRule::NothingElseOpen, "collector lets", policy(2, "/egress/1/to/0/podSelector", json!({})));
    fails(LiveRule::NothingElseOpen, "collector lets", policy(2, "/podSelector", json!({})));
    // one that only bears the name
    fails(LiveRule::NothingElseOpen, "collector lets", |live| live["networkPolicies"][2]["metadata"]["labels"] = json!({}));
}

#[test]
fn who_else_is_bound_is_named() {
    let bound = |subject: Value| {
        move |live: &mut Value| {
            live["roleBindings"].as_array_mut().unwrap().push(json!({
                "metadata": {"name": "stray"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
                "subjects": [subject],
            }));
        }
    };
    let user = |name: &str| json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": name});
    let group = |name: &str| json!({"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": name});
    fails(LiveRule::Bindings, "stray gives ClusterRole edit to User yamada@example.co.jp, an owner", bound(user("yamada@example.co.jp")));
    fails(LiveRule::Bindings, "an owner of another group", bound(user("globex")));
    fails(LiveRule::Bindings, "everybody", bound(group("system:authenticated")));
    fails(LiveRule::Bindings, "everybody", bound(group("system:serviceaccounts:tn-globex")));
    fails(
        LiveRule::Bindings,
        "an account of a group",
        bound(json!({"kind": "ServiceAccount", "name": "collector", "namespace": "tn-globex"})),
    );
    // staff are nobody's owner
    let by = judged(LiveRule::Bindings, bound(group("platform-staff"))).unwrap();
    assert!(by.contains("1 RoleBindings besides"), "{by}");

    let subjects = |index: usize, subject: Value| move |live: &mut Value| live["roleBindings"][index]["subjects"] = json!([subject]);
    fails(LiveRule::Bindings, "tsujiban-tenant-owner names User mallory", subjects(2, user("mallory")));
    let collector = json!({"kind": "ServiceAccount", "name": "collector", "namespace": "tn-globex"});
    fails(LiveRule::Bindings, "tsujiban-collector names ServiceAccount tn-globex/collector", subjects(1, collector));
    fails(LiveRule::Bindings, "tsujiban-operator-tenant names", subjects(0, user("mallory")));
    fails(LiveRule::Bindings, "gives ClusterRole cluster-admin", |live| {
        live["roleBindings"][2]["roleRef"]["name"] = json!("cluster-admin")
    });
}
