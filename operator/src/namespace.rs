//! The namespace of a group, and what its labels and annotations say.

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, ResourceExt};
use tsujiban_api::names::{self, ANNOTATION_INCARNATION, LABEL_MANAGED_BY, LABEL_TENANT, MANAGED_BY};
use tsujiban_core::id::{GroupId, IncarnationId};

use crate::apply::{ApplyError, failed};

/// The namespace that has the group's name, whoever made it.
pub async fn live_namespace(client: &Client, group: &GroupId) -> Result<Option<Namespace>, ApplyError> {
    let name = names::namespace(group);
    Api::<Namespace>::all(client.clone()).get_opt(&name).await.map_err(failed::<Namespace>("read", None, &name))
}

/// The incarnation that the namespace's annotation names.
pub fn incarnation(namespace: &Namespace) -> Option<IncarnationId> {
    namespace.annotations().get(ANNOTATION_INCARNATION)?.parse().ok()
}

/// Whether the namespace is terminating.
pub fn is_terminating(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    namespace.metadata.deletion_timestamp.is_some() || phase == Some("Terminating")
}

/// Whether the operator made a namespace for this group, whatever the UID of its Tenant.
pub fn belongs_to_group(namespace: &Namespace, group: &GroupId) -> bool {
    let label = |key: &str| namespace.labels().get(key).map(String::as_str);
    label(LABEL_MANAGED_BY) == Some(MANAGED_BY) && label(LABEL_TENANT) == Some(group.as_str())
}
