//! Whether a group's namespace may be deleted, as far as its Sites are concerned.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use tsujiban_api::Site;
use tsujiban_api::names::ANNOTATION_SITES;

use crate::apply::{ApplyError, failed};
use crate::finalizer;

/// Whether every Site of a namespace waits, by its finalizer, until its deletion is recorded. A Site that was not looked at yet would go
/// along with its namespace unrecorded; so would what an older operator noted on the namespace.
pub async fn namespace_is_deletable(client: &Client, is_history_kept: bool, namespace: &Namespace) -> Result<bool, ApplyError> {
    if !is_history_kept {
        return Ok(true);
    }
    if namespace.annotations().contains_key(ANNOTATION_SITES) {
        return Ok(false); // it is being taken over
    }
    let name = namespace.name_any();
    let api: Api<Site> = Api::namespaced(client.clone(), &name);
    let listed = api.list_metadata(&ListParams::default()).await.map_err(failed::<Site>("list", Some(&name), ""))?;
    Ok(listed.items.iter().all(|site| finalizer::is_set(site) || site.metadata.deletion_timestamp.is_some()))
}
