//! Whether our kinds stand. While one of them is going away, nothing is erased: what is deleted then was not meant.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client};

use crate::apply::{ApplyError, failed};

/// The kinds whose going would make erasure look intended: they come and go with one chart.
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
