//! The identity of the collector's pods. Its tokens are projected into the pods that need them, and into no other.

use k8s_openapi::api::core::v1::ServiceAccount;
use tsujiban_api::names::COLLECTOR;

use super::labels;
use crate::controllers::tenant::validate::Identity;

pub fn collector(id: &Identity) -> ServiceAccount {
    ServiceAccount { metadata: labels::object(id, COLLECTOR), automount_service_account_token: Some(false), ..ServiceAccount::default() }
}
