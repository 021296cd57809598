//! What somebody changes by hand in a group's namespace who passes the policies, such as another controller of the cluster.
//!
//! What the operator does not promise to repair is not here: keys that others add to a map (a label, one more entry of a quota's
//! `hard`), fields that it does not set, and the label by which a namespace is known to be its own.

use serde::Serialize;
use serde_json::{Value, json};
use tsujiban_api::names;

use super::declared::Group;
use super::rng::Rng;

/// Stands for the name of the group.
const GROUP: &str = "<group>";
const RIGHTS: &str = "apis/rbac.authorization.k8s.io/v1";
const NETWORK: &str = "apis/networking.k8s.io/v1";
const CORE: &str = "api/v1";

/// One change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Drift {
    /// As in `api/v1/resourcequotas`; of a namespace itself, `api/v1`.
    pub resource: String,
    pub name: String,
    pub change: Change,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Change {
    Delete,
    /// A JSON merge patch.
    Merge(Value),
    /// Something new, or instead of what is there.
    Make(Value),
}

impl Drift {
    /// Whether the operator does not watch for it, and finds it when it looks at the Tenant next.
    pub fn is_seen_late(&self) -> bool {
        self.resource.ends_with("configmaps")
    }

    pub fn path(&self, group: &Group) -> String {
        match self.resource.as_str() {
            CORE => format!("/{CORE}/namespaces/{}", group.namespace()),
            resource => {
                let (version, kind) = resource.rsplit_once('/').expect("a resource");
                format!("/{version}/namespaces/{}/{kind}", group.namespace())
            }
        }
    }

    pub fn body(&self, group: &Group) -> Value {
        match &self.change {
            Change::Delete => Value::Null,
            Change::Merge(body) | Change::Make(body) => serde_json::from_str(&body.to_string().replace(GROUP, &group.name)).unwrap(),
        }
    }
}

pub fn any(rng: &mut Rng) -> Drift {
    rng.pick(&all()).clone()
}

pub fn seen_at_once(rng: &mut Rng) -> Drift {
    let at_once: Vec<Drift> = all().into_iter().filter(|drift| !drift.is_seen_late()).collect();
    rng.pick(&at_once).clone()
}

/// Everything that is generated, and where it is.
fn generated() -> Vec<(String, &'static str)> {
    let names = [
        (NETWORK, "networkpolicies", &names::POLICIES[..]),
        (CORE, "resourcequotas", &[names::QUOTA]),
        (CORE, "limitranges", &[names::LIMITS]),
        (CORE, "serviceaccounts", &[names::COLLECTOR]),
        (CORE, "configmaps", &[names::CA_CONFIGMAP]),
        (RIGHTS, "rolebindings", &names::ROLE_BINDINGS),
        ("apis/batch/v1", "cronjobs", &[names::CRONJOB]),
    ];
    let each = |(version, kind, names): (&str, &str, &'static [&'static str])| {
        let resource = format!("{version}/{kind}");
        names.iter().map(move |name| (resource.clone(), *name))
    };
    names.into_iter().flat_map(each).collect()
}

fn all() -> Vec<Drift> {
    let mut all = Vec::new();
    for (resource, name) in generated() {
        let mut say = |change| all.push(Drift { resource: resource.clone(), name: name.to_owned(), change });
        say(Change::Delete);
        for label in [names::LABEL_TENANT, names::LABEL_TENANT_UID, names::LABEL_MANAGED_BY] {
            say(Change::Merge(json!({"metadata": {"labels": {label: null}}})));
        }
        say(Change::Merge(json!({"metadata": {"labels": {names::LABEL_TENANT_UID: "another"}}})));
        for edit in edits(&resource, name) {
            say(Change::Merge(edit));
        }
    }
    let mut say = |resource: &str, name: &str, change| all.push(Drift { resource: resource.to_owned(), name: name.to_owned(), change });
    say(CORE, "", Change::Merge(json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}})));
    say(CORE, "", Change::Merge(json!({"metadata": {"labels": {"pod-security.kubernetes.io/warn": null}}})));
    say(CORE, "", Change::Merge(json!({"metadata": {"annotations": {names::ANNOTATION_INCARNATION: null}}})));
    for (resource, name, fields) in strays() {
        let labels = json!({names::LABEL_MANAGED_BY: names::MANAGED_BY, names::LABEL_TENANT: GROUP});
        let mut object = fields;
        object["metadata"] = json!({"name": name, "labels": labels});
        say(resource, name, Change::Make(object));
    }
    all
}

fn edits(resource: &str, name: &str) -> Vec<Value> {
    let mallory = json!([{"kind": "User", "name": "mallory", "apiGroup": "rbac.authorization.k8s.io"}]);
    match (resource.rsplit('/').next().unwrap_or_default(), name) {
        ("networkpolicies", names::POLICY_DENY_ALL) => {
            vec![
                json!({"spec": {"ingress": [{}]}}),
                json!({"spec": {"egress": [{}]}}),
                json!({"spec": {"podSelector": {"matchLabels": {"a": "b"}}}}),
            ]
        }
        ("networkpolicies", _) => vec![json!({"spec": {"egress": [{}]}}), json!({"spec": {"ingress": [{}]}})],
        ("resourcequotas", _) => vec![json!({"spec": {"hard": {"pods": "99"}}}), json!({"spec": {"hard": {"services": null}}})],
        ("limitranges", _) => vec![json!({"spec": {"limits": [{"type": "Container", "default": {"cpu": "7"}}]}})],
        ("serviceaccounts", _) => vec![json!({"automountServiceAccountToken": true})],
        ("configmaps", _) => vec![json!({"data": {"ca.crt": "another"}}), json!({"data": null})],
        ("rolebindings", _) => vec![json!({"subjects": mallory}), json!({"subjects": null})],
        ("cronjobs", _) => vec![
            json!({"spec": {"suspend": true}}),
            json!({"spec": {"suspend": false}}),
            json!({"spec": {"schedule": "0 0 1 1 *", "concurrencyPolicy": "Allow"}}),
            json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": [{"name": "collector", "image": "another"}]}}}}}}),
            json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": {"automountServiceAccountToken": true, "volumes": null,
                "containers": [{"name": "x", "image": "x"}, {"name": "collector", "image": "another"}]}}}}}}),
        ],
        _ => Vec::new(),
    }
}

/// Objects that say they are the operator's, and that it does not want; and a binding of ours to another role.
fn strays() -> Vec<(&'static str, &'static str, Value)> {
    let view = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"});
    let mallory = json!([{"kind": "User", "name": "mallory", "apiGroup": "rbac.authorization.k8s.io"}]);
    vec![
        ("apis/rbac.authorization.k8s.io/v1/rolebindings", "stray", json!({"roleRef": view, "subjects": mallory})),
        ("apis/rbac.authorization.k8s.io/v1/rolebindings", names::ROLE_COLLECTOR, json!({"roleRef": view, "subjects": mallory})),
        ("apis/networking.k8s.io/v1/networkpolicies", "allow-all", json!({"spec": {"podSelector": {}, "ingress": [{}], "egress": [{}]}})),
        ("api/v1/resourcequotas", "stray", json!({"spec": {"hard": {"pods": "0"}}})),
        ("api/v1/serviceaccounts", "stray", json!({})),
        ("api/v1/limitranges", "stray", json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "1m"}}]}})),
    ]
}
