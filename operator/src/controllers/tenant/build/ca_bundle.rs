//! The certificates of the internal CA, by which the collector knows the backup service.

use k8s_openapi::api::core::v1::ConfigMap;
use tsujiban_api::names::CA_CONFIGMAP;

use super::labels;
use crate::controllers::tenant::validate::Identity;

pub fn ca_bundle(id: &Identity, bundle: &str) -> ConfigMap {
    ConfigMap {
        metadata: labels::object(id, CA_CONFIGMAP),
        data: Some([("ca.crt".to_owned(), bundle.to_owned())].into()),
        ..ConfigMap::default()
    }
}
