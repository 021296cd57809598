//! The parts of a request by which faults are decided.

use std::fmt;

use http::{Method, Uri};
use serde_json::Value;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub method: Method,
    pub path: String,
    pub query: String,
    /// As in `networkpolicies`.
    pub resource: String,
    pub namespace: Option<String>,
    /// The name of the object; for a creation the name in its body.
    pub name: Option<String>,
    pub subresource: Option<String>,
}

impl Call {
    pub fn new(method: &Method, uri: &Uri, body: &Value) -> Self {
        let path = uri.path().to_owned();
        let mut segments = path.split('/').filter(|segment| !segment.is_empty());
        let skipped = if segments.next() == Some("apis") { 2 } else { 1 }; // group and version, or the version alone
        let rest: Vec<&str> = segments.skip(skipped).collect();
        let at = |index: usize| rest.get(index).map(|segment| (*segment).to_owned());
        let is_inside = rest.first() == Some(&"namespaces") && rest.get(2).is_some_and(|it| !matches!(*it, "status" | "finalize"));
        let (namespace, first) = if is_inside { (at(1), 2) } else { (None, 0) };
        let given = || body.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned);
        Self {
            method: method.clone(),
            query: uri.query().unwrap_or_default().to_owned(),
            resource: at(first).unwrap_or_default(),
            namespace,
            name: at(first + 1).or_else(given),
            subresource: at(first + 2),
            path,
        }
    }

    pub fn is_watch(&self) -> bool {
        self.query.split('&').any(|part| matches!(part, "watch=true" | "watch=1"))
    }

    /// A read that is answered once.
    pub fn is_read(&self) -> bool {
        self.method == Method::GET && !self.is_watch()
    }

    /// A write of an object that lasts: no Event, no Lease, and no review, which is a question in the form of a creation.
    pub fn is_write(&self) -> bool {
        let passing = matches!(self.resource.as_str(), "events" | "leases") || self.resource.ends_with("reviews");
        self.method != Method::GET && !passing
    }

    /// The group that the request is about.
    pub fn group(&self) -> Option<&str> {
        match (self.namespace.as_deref(), self.resource.as_str(), self.name.as_deref()) {
            (Some(namespace), ..) => namespace.strip_prefix("tn-"),
            (None, "namespaces", Some(name)) => name.strip_prefix("tn-"),
            (None, "tenants", name) => name,
            _ => None,
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{} {}/{}", self.method, self.resource, self.name.as_deref().unwrap_or("*"))?;
        self.subresource.iter().try_for_each(|part| write!(to, "/{part}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn call(method: &Method, uri: &str, body: &Value) -> Call {
        Call::new(method, &uri.parse().unwrap(), body)
    }

    #[test]
    fn paths_of_every_shape() {
        for (uri, shown, group) in [
            ("/api/v1/namespaces", "GET namespaces/*", None),
            ("/api/v1/namespaces/tn-acme", "GET namespaces/tn-acme", Some("acme")),
            ("/api/v1/namespaces/tn-acme/status", "GET namespaces/tn-acme/status", Some("acme")),
            ("/api/v1/namespaces/tn-acme/secrets/x?y=z", "GET secrets/x", Some("acme")),
            ("/api/v1/namespaces/default/secrets", "GET secrets/*", None),
            ("/apis/tsujiban.dev/v1alpha1/tenants/acme/status", "GET tenants/acme/status", Some("acme")),
            ("/apis/tsujiban.dev/v1alpha1/namespaces/tn-acme/devices", "GET devices/*", Some("acme")),
            ("/apis/tsujiban.dev/v1alpha1/devices?watch=true", "GET devices/*", None),
        ] {
            let call = call(&Method::GET, uri, &Value::Null);
            assert_eq!((call.to_string().as_str(), call.group()), (shown, group), "{uri}");
        }
        let made = call(&Method::POST, "/api/v1/namespaces", &json!({"metadata": {"name": "tn-acme"}}));
        assert_eq!((made.to_string().as_str(), made.group()), ("POST namespaces/tn-acme", Some("acme")));
    }

    #[test]
    fn what_counts_as_a_write() {
        let is = |method: &Method, uri: &str| call(method, uri, &Value::Null).is_write();
        assert!(is(&Method::PATCH, "/apis/tsujiban.dev/v1alpha1/tenants/acme"));
        assert!(is(&Method::DELETE, "/api/v1/namespaces/tn-acme"));
        assert!(!is(&Method::POST, "/apis/events.k8s.io/v1/namespaces/default/events"));
        assert!(!is(&Method::PUT, "/apis/coordination.k8s.io/v1/namespaces/s/leases/l"));
        assert!(!is(&Method::POST, "/apis/authentication.k8s.io/v1/tokenreviews"));
        assert!(!is(&Method::GET, "/api/v1/namespaces/tn-acme"));
        assert!(call(&Method::GET, "/api/v1/namespaces?&watch=true&x=y", &Value::Null).is_watch());
    }
}
