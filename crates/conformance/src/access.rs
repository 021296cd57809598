//! One thing that an owner might be able to do: a verb on a resource somewhere.

use serde_json::{Value, json};
use tsujiban_api::names;
use tsujiban_core::workload::Service;

/// API group and version.
pub type Api = (&'static str, &'static str);

pub const CORE: Api = ("", "v1");
pub const APPS: Api = ("apps", "v1");
pub const BATCH: Api = ("batch", "v1");
pub const NETWORKING: Api = ("networking.k8s.io", "v1");
pub const RBAC: Api = ("rbac.authorization.k8s.io", "v1");
pub const OURS: Api = (names::GROUP, "v1alpha1");
/// What staff may do at the backup service: resources that exist in RBAC only.
pub const STAFF: Api = (Service::Backup.row().audience, "v1");

/// The name of the objects that the checks try to create.
pub const PROBE: &str = "tsujiban-conformance";

/// Where it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// On cluster-scoped objects, or in all namespaces at once.
    Cluster,
    /// In the group's own namespace.
    Own,
    /// In the namespace of another group.
    Other,
    /// In the namespace of Tsujiban.
    System,
}

/// Which object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    Any,
    Fixed(&'static str),
    /// The group's own Tenant.
    Tenant,
    /// The group's own Namespace.
    Namespace,
}

/// Who checks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Depth {
    /// The operator, repeatedly, and `tsujiban conformance`.
    Core,
    /// Only `tsujiban conformance`.
    Full,
}

/// A verb on a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Access {
    pub verb: &'static str,
    pub api: Api,
    pub resource: &'static str,
    pub subresource: &'static str,
    pub name: Name,
    pub scope: Scope,
    pub depth: Depth,
}

/// The names that the scopes have for one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeNames {
    pub tenant: String,
    pub own: String,
    pub other: String,
    pub system: String,
}

impl ScopeNames {
    /// `other` is another group's namespace. Without one, a name that no namespace has is used: a right on all namespaces includes it.
    pub fn new(tenant: &str, own: &str, other: Option<&str>, system: &str) -> Self {
        let other = other.unwrap_or("tn-no-such-group");
        Self { tenant: tenant.to_owned(), own: own.to_owned(), other: other.to_owned(), system: system.to_owned() }
    }
}

impl Access {
    pub const fn new(scope: Scope, verb: &'static str, api: Api, resource: &'static str) -> Self {
        Self { verb, api, resource, subresource: "", name: Name::Any, scope, depth: Depth::Core }
    }

    #[must_use]
    pub const fn sub(self, subresource: &'static str) -> Self {
        Self { subresource, ..self }
    }

    #[must_use]
    pub const fn named(self, name: &'static str) -> Self {
        Self { name: Name::Fixed(name), ..self }
    }

    #[must_use]
    pub const fn of(self, name: Name) -> Self {
        Self { name, ..self }
    }

    #[must_use]
    pub const fn full(self) -> Self {
        Self { depth: Depth::Full, ..self }
    }

    /// Whether it can be tried by a request. The rest is asked of the authorizer: verbs that no request has, resources that exist in RBAC
    /// only, and proxies, whose answers come from behind the apiserver.
    pub fn can_be_tried(&self) -> bool {
        !matches!(self.verb, "impersonate" | "bind" | "escalate") && self.api != STAFF && self.subresource != "proxy"
    }

    /// The namespace; empty for the whole cluster.
    pub fn namespace<'a>(&self, scopes: &'a ScopeNames) -> &'a str {
        match self.scope {
            Scope::Cluster => "",
            Scope::Own => &scopes.own,
            Scope::Other => &scopes.other,
            Scope::System => &scopes.system,
        }
    }

    /// The object's name; empty for any.
    pub fn object<'a>(&self, scopes: &'a ScopeNames) -> &'a str {
        match self.name {
            Name::Any => "",
            Name::Fixed(name) => name,
            Name::Tenant => &scopes.tenant,
            Name::Namespace => &scopes.own,
        }
    }

    /// `pods/exec`.
    pub fn what(&self) -> String {
        if self.subresource.is_empty() { self.resource.to_owned() } else { format!("{}/{}", self.resource, self.subresource) }
    }

    /// `patch networkpolicies deny-all in namespace tn-acme`.
    pub fn describe(&self, scopes: &ScopeNames) -> String {
        let mut text = format!("{} {}", self.verb, self.what());
        for part in [".", self.api.0] {
            if self.api == STAFF {
                text.push_str(part);
            }
        }
        if !self.object(scopes).is_empty() {
            text = format!("{text} {}", self.object(scopes));
        }
        let namespace = self.namespace(scopes);
        if namespace.is_empty() { text } else { format!("{text} in namespace {namespace}") }
    }

    /// The path of the request. Where the verb needs a name and any will do, a name that no object has.
    pub fn path(&self, scopes: &ScopeNames) -> String {
        let (group, version) = self.api;
        let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        let namespace = self.namespace(scopes);
        let mut path = if namespace.is_empty() { root } else { format!("{root}/namespaces/{namespace}") };
        path = format!("{path}/{}", self.resource);
        let of_collection = matches!(self.verb, "list" | "watch" | "create" | "deletecollection") && self.subresource.is_empty();
        if !of_collection {
            let name = self.object(scopes);
            path = format!("{path}/{}", if name.is_empty() { PROBE } else { name });
        }
        if self.subresource.is_empty() { path } else { format!("{path}/{}", self.subresource) }
    }

    /// The body of a request that creates an object. Owners may create two kinds; for every other kind a name is enough for the refusal.
    pub fn body(&self) -> Value {
        let (group, version) = self.api;
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        let mut body = json!({"apiVersion": api_version, "kind": self.kind(), "metadata": {"name": PROBE}});
        let more = match (self.resource, self.subresource) {
            ("sites", _) => json!({"spec": {"displayName": PROBE}}),
            ("secrets", _) => json!({"type": names::CREDENTIALS_TYPE, "stringData": {"username": PROBE, "password": PROBE}}),
            // shorter than the apiserver grants: past authorization it is refused, and no token is made
            ("serviceaccounts", "token") => json!({"spec": {"audiences": [PROBE], "expirationSeconds": 1}}),
            ("services", _) => json!({"spec": {"type": "NodePort", "ports": [{"port": 8080}]}}),
            ("rolebindings" | "clusterrolebindings", _) => {
                json!({"roleRef": {"apiGroup": RBAC.0, "kind": "ClusterRole", "name": "cluster-admin"}})
            }
            _ => json!({}),
        };
        if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
            body.extend(more);
        }
        body
    }

    fn kind(&self) -> &'static str {
        match (self.resource, self.subresource) {
            ("serviceaccounts", "token") => "TokenRequest",
            ("sites", _) => "Site",
            ("devices", _) => "Device",
            ("tenants", _) => "Tenant",
            ("secrets", _) => "Secret",
            ("pods", _) => "Pod",
            ("services", _) => "Service",
            ("namespaces", _) => "Namespace",
            ("persistentvolumes", _) => "PersistentVolume",
            ("resourcequotas", _) => "ResourceQuota",
            ("replicationcontrollers", _) => "ReplicationController",
            ("deployments", _) => "Deployment",
            ("replicasets", _) => "ReplicaSet",
            ("statefulsets", _) => "StatefulSet",
            ("daemonsets", _) => "DaemonSet",
            ("jobs", _) => "Job",
            ("cronjobs", _) => "CronJob",
            ("roles", _) => "Role",
            ("rolebindings", _) => "RoleBinding",
            ("clusterrolebindings", _) => "ClusterRoleBinding",
            ("certificatesigningrequests", _) => "CertificateSigningRequest",
            ("validatingwebhookconfigurations", _) => "ValidatingWebhookConfiguration",
            _ => "Object",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes() -> ScopeNames {
        ScopeNames::new("acme", "tn-acme", None, "tsujiban-system")
    }

    #[test]
    fn requests_go_where_the_words_say() {
        let cases = [
            (Access::new(Scope::Cluster, "list", CORE, "nodes"), "/api/v1/nodes", "list nodes"),
            (
                Access::new(Scope::Own, "delete", NETWORKING, "networkpolicies").named("deny-all"),
                "/apis/networking.k8s.io/v1/namespaces/tn-acme/networkpolicies/deny-all",
                "delete networkpolicies deny-all in namespace tn-acme",
            ),
            (
                Access::new(Scope::Own, "create", CORE, "pods").sub("exec"),
                "/api/v1/namespaces/tn-acme/pods/tsujiban-conformance/exec",
                "create pods/exec in namespace tn-acme",
            ),
            (
                Access::new(Scope::Other, "list", OURS, "devices"),
                "/apis/tsujiban.dev/v1alpha1/namespaces/tn-no-such-group/devices",
                "list devices in namespace tn-no-such-group",
            ),
            (
                Access::new(Scope::Cluster, "patch", OURS, "tenants").sub("status").of(Name::Tenant),
                "/apis/tsujiban.dev/v1alpha1/tenants/acme/status",
                "patch tenants/status acme",
            ),
        ];
        for (access, path, words) in cases {
            assert_eq!((access.path(&scopes()).as_str(), access.describe(&scopes()).as_str()), (path, words));
        }
    }

    #[test]
    fn what_no_request_has_is_asked() {
        for access in [
            Access::new(Scope::Own, "bind", RBAC, "clusterroles"),
            Access::new(Scope::Cluster, "impersonate", CORE, "users"),
            Access::new(Scope::Cluster, "reveal", STAFF, "snapshots"),
        ] {
            assert!(!access.can_be_tried(), "{access:?}");
        }
        assert_eq!(Access::new(Scope::Cluster, "reveal", STAFF, "snapshots").describe(&scopes()), "reveal snapshots.backup.tsujiban.dev");
    }
}
