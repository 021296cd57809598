//! Whether a group's namespace may be deleted, as far as its Sites are concerned.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use tsujiban_api::Site;
use tsujiban_api::names::ANNOTATION_SITES;

use crate::apply::{ApplyError, failed};
use crate::finalizer;

/// Whether every Site of a namespace has the finalizer that keeps it until its deletion is recorded. A Site that was not reconciled yet
/// would be deleted with its namespace without a record; so would the Sites that an operator of 0.1.x listed in the namespace's annotation.
pub async fn namespace_is_deletable(client: &Client, is_history_kept: bool, namespace: &Namespace) -> Result<bool, ApplyError> {
    if !is_history_kept {
        return Ok(true);
    }
    if namespace.annotations().contains_key(ANNOTATION_SITES) {
        return Ok(false); // the annotation is being taken over
    }
    let name = namespace.name_any();
    let api: Api<Site> = Api::namespaced(client.clone(), &name);
    let listed = api.list_metadata(&ListParams::default()).await.map_err(failed::<Site>("list", Some(&name), ""))?;
    Ok(listed.items.iter().all(|site| finalizer::is_set(site) || site.metadata.deletion_timestamp.is_some()))
}
