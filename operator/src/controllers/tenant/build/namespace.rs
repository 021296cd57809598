//! The namespace itself, under the restricted Pod Security Standard.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tsujiban_api::names::{self, ANNOTATION_HISTORY_LOG, ANNOTATION_INCARNATION};

use super::labels;
use crate::controllers::tenant::claim::Noted;
use crate::controllers::tenant::validate::Identity;

const MODES: [&str; 3] = ["enforce", "audit", "warn"];

/// The desired namespace. An annotation is left out only until the services have answered its value.
pub fn namespace(id: &Identity, noted: &Noted) -> Namespace {
    let mut labels = labels::claim(id);
    for mode in MODES {
        labels.insert(format!("pod-security.kubernetes.io/{mode}"), "restricted".to_owned());
        labels.insert(format!("pod-security.kubernetes.io/{mode}-version"), "latest".to_owned());
    }
    let mut annotations = BTreeMap::new();
    annotations.extend(noted.incarnation.as_ref().map(|id| (ANNOTATION_INCARNATION.to_owned(), id.to_string())));
    annotations.extend(noted.log.as_ref().map(|id| (ANNOTATION_HISTORY_LOG.to_owned(), id.to_string())));
    let annotations = (!annotations.is_empty()).then_some(annotations);
    Namespace {
        metadata: ObjectMeta { name: Some(names::namespace(&id.group)), labels: Some(labels), annotations, ..ObjectMeta::default() },
        ..Namespace::default()
    }
}
