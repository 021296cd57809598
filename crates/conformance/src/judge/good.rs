//! A group in which nothing is wrong, for tests.

use serde_json::{Value, json};
use tsujiban_api::tenant::{Owner, OwnerKind};

use crate::live::{Live, Wanted};

pub fn owner() -> Owner {
    Owner { kind: OwnerKind::User, name: "yamada@example.co.jp".to_owned(), namespace: None }
}

pub fn wanted() -> Wanted {
    Wanted {
        namespace: "tn-acme".to_owned(),
        system_namespace: "tsujiban-system".to_owned(),
        owners: vec![owner()],
        others: ["User globex".to_owned()].into(),
        networks: vec!["172.20.1.0/24".parse().unwrap()],
    }
}

/// The namespace as the operator makes it, with a change.
pub fn live(change: impl FnOnce(&mut Value)) -> Live {
    let nobody = json!({"podSelector": {"matchExpressions": [{"key": "tsujiban.dev/none", "operator": "In", "values": ["none"]}]}});
    let ours = json!({"app.kubernetes.io/managed-by": "tsujiban-operator", "tsujiban.dev/tenant": "acme"});
    let amounts = json!({"cpu": "25m", "memory": "32Mi", "ephemeral-storage": "16Mi"});
    let label = |key: &str, value: &str| json!({"matchLabels": {key: value}});
    let role = |name: &str, subject: Value| {
        json!({"metadata": {"name": name, "labels": ours}, "subjects": [subject],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}})
    };
    let account = |namespace: &str, name: &str| json!({"kind": "ServiceAccount", "name": name, "namespace": namespace});
    let mut all = json!({
        "namespace": {"metadata": {"name": "tn-acme", "labels": {
            "pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "latest"}}},
        "resourceQuotas": [{"metadata": {"name": "tenant"}, "spec": {"hard": {
            "requests.cpu": "2", "limits.cpu": "2", "requests.memory": "1Gi", "limits.memory": "1Gi", "requests.ephemeral-storage": "2Gi",
            "limits.ephemeral-storage": "2Gi", "requests.storage": "0", "pods": "10", "services": "0", "replicationcontrollers": "0",
            "resourcequotas": "1", "secrets": "1000", "configmaps": "10", "persistentvolumeclaims": "0", "services.nodeports": "0",
            "services.loadbalancers": "0"}}}],
        "limitRanges": [{"metadata": {"name": "tenant"}, "spec": {"limits": [{"type": "Container", "default": amounts, "defaultRequest": amounts}]}}],
        "networkPolicies": [
            {"metadata": {"name": "deny-all", "labels": ours}, "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"from": [nobody]}], "egress": [{"to": [nobody]}]}},
            {"metadata": {"name": "dns", "labels": ours}, "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{
                "to": [{"namespaceSelector": label("kubernetes.io/metadata.name", "kube-system"), "podSelector": label("k8s-app", "kube-dns")}],
                "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}]}},
            {"metadata": {"name": "collector", "labels": ours}, "spec": {
                "podSelector": label("app.kubernetes.io/component", "collector"), "policyTypes": ["Egress"], "egress": [
                {"to": [{"ipBlock": {"cidr": "10.97.0.1/32"}}], "ports": [{"protocol": "TCP", "port": 6443}]},
                {"to": [{"namespaceSelector": label("kubernetes.io/metadata.name", "tsujiban-system"),
                    "podSelector": label("app.kubernetes.io/component", "backup")}], "ports": [{"protocol": "TCP", "port": 8443}]},
                {"to": [{"ipBlock": {"cidr": "172.20.1.0/24", "except": ["172.20.1.7/32"]}}], "ports": [{"protocol": "TCP", "port": 22}]}]}},
        ],
        "roleBindings": [
            role("tsujiban-operator-tenant", account("tsujiban-system", "tsujiban-operator")),
            role("tsujiban-collector", account("tn-acme", "collector")),
            role("tsujiban-tenant-owner", json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "yamada@example.co.jp"})),
        ],
    });
    change(&mut all);
    let part = |name: &str| all[name].clone();
    Live {
        namespace: serde_json::from_value(part("namespace")).unwrap(),
        resource_quotas: serde_json::from_value(part("resourceQuotas")).unwrap(),
        limit_ranges: serde_json::from_value(part("limitRanges")).unwrap(),
        network_policies: serde_json::from_value(part("networkPolicies")).unwrap(),
        role_bindings: serde_json::from_value(part("roleBindings")).unwrap(),
    }
}
