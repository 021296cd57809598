//! Whether our CRDs are established. While one of them is terminating, nothing is erased: objects that are deleted along with it were not
//! meant to be erased.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client};

use crate::apply::{ApplyError, failed};

/// The CRDs whose removal would look like an intended deletion of their objects. One chart installs and removes them all.
const WATCHED: [&str; 3] = ["tenants.tsujiban.dev", "sites.tsujiban.dev", "devices.tsujiban.dev"];

/// Reads, live, whether the CRDs of Tenant, Site and Device exist and are not terminating.
pub async fn established(client: &Client) -> Result<bool, ApplyError> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for name in WATCHED {
        let found = api.get_opt(name).await.map_err(failed::<CustomResourceDefinition>("read", None, name))?;
        if found.is_none_or(|crd| crd.metadata.deletion_timestamp.is_some()) {
            return Ok(false);
        }
    }
    Ok(true)
}
