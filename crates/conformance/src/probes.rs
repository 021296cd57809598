//! Requests that an owner's rights allow and that admission policies have to refuse.

use serde_json::{Value, json};
use tsujiban_api::names;

use crate::access::{PROBE, ScopeNames};

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Probe {
    /// A Secret into which Kubernetes writes a token of the collector.
    TokenSecret,
    OpaqueSecret,
    /// A Secret that says the operator made it.
    GeneratedSecret,
    /// A deletion in the foreground: its answer would show the Secret.
    ForegroundDeletion,
    /// An orphaning deletion: its answer would show the Secret, too.
    OrphaningDeletion,
}

/// A request, independent of the client that sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    pub method: &'static str,
    pub path: String,
    pub query: &'static str,
    pub body: Option<Value>,
}

impl Probe {
    pub const fn describe(self) -> &'static str {
        match self {
            Self::TokenSecret => "make a Secret into which Kubernetes writes the collector's token",
            Self::OpaqueSecret => "make a Secret that is no device's credentials",
            Self::GeneratedSecret => "make a Secret that passes for a generated one",
            Self::ForegroundDeletion => "have a Secret shown by a dry deletion in the foreground",
            Self::OrphaningDeletion => "have a Secret shown by a dry deletion that orphans",
        }
    }

    /// Whether it needs a Secret that is there already.
    pub const fn needs_secret(self) -> bool {
        matches!(self, Self::ForegroundDeletion | Self::OrphaningDeletion)
    }

    /// The request. `secret` is one that owners made.
    pub fn request(self, scopes: &ScopeNames, secret: &str) -> Sent {
        let collection = format!("/api/v1/namespaces/{}/secrets", scopes.own);
        let create = |more: Value| {
            let mut body = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": PROBE},
                "type": names::CREDENTIALS_TYPE, "stringData": {"username": PROBE, "password": PROBE}});
            if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
                body.extend(more);
            }
            Sent { method: "POST", path: collection.clone(), query: "dryRun=All", body: Some(body) }
        };
        let delete = |query: &'static str| Sent { method: "DELETE", path: format!("{collection}/{secret}"), query, body: None };
        match self {
            Self::TokenSecret => create(json!({
                "type": "kubernetes.io/service-account-token", "stringData": {},
                "metadata": {"name": PROBE, "annotations": {"kubernetes.io/service-account.name": names::COLLECTOR}},
            })),
            Self::OpaqueSecret => create(json!({"type": "Opaque"})),
            Self::GeneratedSecret => create(json!({"metadata": {"name": PROBE, "labels": {names::LABEL_MANAGED_BY: names::MANAGED_BY}}})),
            Self::ForegroundDeletion => delete("dryRun=All&propagationPolicy=Foreground"),
            Self::OrphaningDeletion => delete("dryRun=All&propagationPolicy=Orphan"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing is left behind: no request is meant.
    #[test]
    fn every_probe_is_dry() {
        let scopes = ScopeNames::new("acme", "tn-acme", None, "tsujiban-system");
        for probe in [Probe::TokenSecret, Probe::OpaqueSecret, Probe::GeneratedSecret, Probe::ForegroundDeletion, Probe::OrphaningDeletion]
        {
            let sent = probe.request(&scopes, "core-1");
            assert!(sent.query.starts_with("dryRun=All"), "{sent:?}");
            assert_eq!(sent.path.ends_with("/core-1"), probe.needs_secret(), "{sent:?}");
        }
    }
}
