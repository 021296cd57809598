//! The namespace itself, under the restricted Pod Security Standard.

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tsujiban_api::names::{self, ANNOTATION_INCARNATION};
use tsujiban_core::id::IncarnationId;

use super::labels;
use crate::tenant::validate::Identity;

const MODES: [&str; 3] = ["enforce", "audit", "warn"];

/// The namespace as it must be. The incarnation is left out only until the services have answered one.
pub fn namespace(id: &Identity, incarnation: Option<&IncarnationId>) -> Namespace {
    let mut labels = labels::claim(id);
    for mode in MODES {
        labels.insert(format!("pod-security.kubernetes.io/{mode}"), "restricted".to_owned());
        labels.insert(format!("pod-security.kubernetes.io/{mode}-version"), "latest".to_owned());
    }
    let annotations = incarnation.map(|id| [(ANNOTATION_INCARNATION.to_owned(), id.to_string())].into());
    Namespace {
        metadata: ObjectMeta { name: Some(names::namespace(&id.group)), labels: Some(labels), annotations, ..ObjectMeta::default() },
        ..Namespace::default()
    }
}
