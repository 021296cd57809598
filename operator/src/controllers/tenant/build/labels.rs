//! The names and labels of what is generated.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tsujiban_api::names::{LABEL_MANAGED_BY, LABEL_TENANT, LABEL_TENANT_UID, MANAGED_BY, namespace};
use tsujiban_core::id::GroupId;

use crate::controllers::tenant::validate::Identity;

/// The labels that mark an object as the operator's, and name the group and the UID of the Tenant for which it was made.
pub fn claim(id: &Identity) -> BTreeMap<String, String> {
    [(LABEL_MANAGED_BY, MANAGED_BY), (LABEL_TENANT, id.group.as_str()), (LABEL_TENANT_UID, &id.uid)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// The metadata of a generated object in the group's namespace.
pub fn object(id: &Identity, name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), namespace: Some(namespace(&id.group)), labels: Some(claim(id)), ..ObjectMeta::default() }
}

/// A selector of everything that the operator generated for a group, whatever the UID of its Tenant.
pub fn ours(group: &GroupId) -> String {
    format!("{LABEL_MANAGED_BY}={MANAGED_BY},{LABEL_TENANT}={group}")
}
