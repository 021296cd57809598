//! Decides to whom a namespace with a group's name belongs. Pure.

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use tsujiban_api::names::{ANNOTATION_HISTORY_LOG, LABEL_MANAGED_BY, LABEL_TENANT, LABEL_TENANT_UID, MANAGED_BY};
use tsujiban_core::id::IncarnationId;
use tsujiban_history::LogId;

use super::validate::Identity;
use crate::namespace::{belongs_to_group, incarnation, is_terminating};

/// What to do about a group's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// There is none: create it.
    Create,
    /// It was made for this Tenant.
    Ours,
    /// It was made for an earlier Tenant of the same group, and retained. It may be reclaimed once a live read confirms that this is the
    /// group's Tenant now.
    Retained,
    /// It is terminating; wait until it is gone.
    Terminating,
    /// It does not belong to this Tenant, for this reason, and is never touched.
    Taken(&'static str),
}

/// Decides by the labels, which only the operator can write on a namespace `tn-*` (a policy of the chart enforces that).
pub fn claim(id: &Identity, live: Option<&Namespace>) -> Claim {
    let Some(live) = live else { return Claim::Create };
    let label = |key: &str| live.labels().get(key).map(String::as_str);
    if label(LABEL_MANAGED_BY) != Some(MANAGED_BY) {
        return Claim::Taken("the operator did not make it");
    }
    if label(LABEL_TENANT) != Some(id.group.as_str()) {
        return Claim::Taken("it was made for another group");
    }
    if is_terminating(live) {
        return Claim::Terminating;
    }
    if label(LABEL_TENANT_UID) == Some(id.uid.as_str()) {
        return Claim::Ours;
    }
    if incarnation(live).is_some() {
        Claim::Retained
    } else {
        Claim::Taken("it was made for an earlier Tenant and holds no retained group")
    }
}

/// What a group's namespace says about the group's data, so that a recreated Tenant finds it again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Noted {
    /// The incarnation under which the services keep the data.
    pub incarnation: Option<IncarnationId>,
    /// The log that holds the group's operation history.
    pub log: Option<LogId>,
}

impl Noted {
    pub fn of(namespace: &Namespace) -> Self {
        let log = namespace.annotations().get(ANNOTATION_HISTORY_LOG).and_then(|log| log.parse().ok());
        Self { incarnation: incarnation(namespace), log }
    }
}

/// Whether the operator made a namespace for this Tenant object, by its UID.
pub fn belongs_to(namespace: &Namespace, id: &Identity) -> bool {
    belongs_to_group(namespace, &id.group) && namespace.labels().get(LABEL_TENANT_UID) == Some(&id.uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tsujiban_api::names::ANNOTATION_INCARNATION;

    fn namespace(managed: &str, tenant: &str, uid: &str, incarnation: Option<&str>) -> Namespace {
        let annotations = incarnation.map(|id| json!({ANNOTATION_INCARNATION: id}));
        serde_json::from_value(json!({"metadata": {
            "name": "tn-acme", "labels": {LABEL_MANAGED_BY: managed, LABEL_TENANT: tenant, LABEL_TENANT_UID: uid}, "annotations": annotations,
        }}))
        .unwrap()
    }

    const INCARNATION: Option<&str> = Some("0123456789abcdef0123456789abcdef");

    /// C7: a namespace is never taken over.
    #[test]
    fn every_case() {
        let id = Identity { group: "acme".parse().unwrap(), uid: "new".into() };
        let by = |live: &Namespace| claim(&id, Some(live));
        assert_eq!(claim(&id, None), Claim::Create);
        assert_eq!(by(&namespace(MANAGED_BY, "acme", "new", None)), Claim::Ours);
        assert_eq!(by(&namespace(MANAGED_BY, "acme", "old", INCARNATION)), Claim::Retained);
        assert!(matches!(by(&namespace(MANAGED_BY, "acme", "old", None)), Claim::Taken(_)));
        assert!(matches!(by(&namespace(MANAGED_BY, "acme", "old", Some("x"))), Claim::Taken(_)));
        assert!(matches!(by(&namespace(MANAGED_BY, "other", "new", INCARNATION)), Claim::Taken(_)));
        assert!(matches!(by(&namespace("Helm", "acme", "new", INCARNATION)), Claim::Taken(_)));
        assert!(matches!(by(&Namespace::default()), Claim::Taken(_)));
        let mut going = namespace(MANAGED_BY, "acme", "new", None);
        going.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(by(&going), Claim::Terminating);
    }
}
