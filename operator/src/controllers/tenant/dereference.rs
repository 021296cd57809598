//! What a Tenant's namespace depends on, read live.

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client};
use tsujiban_core::id::GroupId;

use super::build::ApiserverAddress;
use crate::apply::{ApplyError, failed};
use crate::namespace::live_namespace;

/// The EndpointSlice with the addresses of the apiserver.
pub const APISERVER_NAMESPACE: &str = "default";
pub const APISERVER: &str = "kubernetes";

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DereferenceError {
    #[error(transparent)]
    Read(#[from] ApplyError),
    #[error("EndpointSlice default/kubernetes names no address, so the collector's way to the apiserver cannot be opened")]
    NoApiserver,
}

/// What was read.
#[derive(Debug, Clone)]
pub struct Found {
    pub namespace: Option<Namespace>,
    pub apiserver: Vec<ApiserverAddress>,
}

pub async fn dereference(client: &Client, group: &GroupId) -> Result<Found, DereferenceError> {
    let namespace = live_namespace(client, group).await?;
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), APISERVER_NAMESPACE);
    let slice = slices.get_opt(APISERVER).await.map_err(failed::<EndpointSlice>("read", Some(APISERVER_NAMESPACE), APISERVER))?;
    let apiserver = slice.as_ref().map(addresses).unwrap_or_default();
    if apiserver.is_empty() {
        return Err(DereferenceError::NoApiserver);
    }
    Ok(Found { namespace, apiserver })
}

/// Every address with every port, in a fixed order.
pub fn addresses(slice: &EndpointSlice) -> Vec<ApiserverAddress> {
    let ports: Vec<u16> = slice.ports.iter().flatten().filter_map(|port| u16::try_from(port.port?).ok()).collect();
    let endpoints = slice.endpoints.iter().flatten().filter(|endpoint| {
        endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true) // unknown counts as ready
    });
    let ips = endpoints.flat_map(|endpoint| &endpoint.addresses).filter_map(|address| address.parse().ok());
    let mut all: Vec<ApiserverAddress> = ips.flat_map(|ip| ports.iter().map(move |port| ApiserverAddress { ip, port: *port })).collect();
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ready_addresses_with_their_ports_in_order() {
        let slice = serde_json::from_value(json!({
            "addressType": "IPv4", "ports": [{"name": "https", "port": 6443}],
            "endpoints": [{"addresses": ["10.0.0.2"]}, {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
                          {"addresses": ["10.0.0.3"], "conditions": {"ready": false}}],
        }))
        .unwrap();
        let found: Vec<String> = addresses(&slice).iter().map(|a| format!("{}:{}", a.ip, a.port)).collect();
        assert_eq!(found, ["10.0.0.1:6443", "10.0.0.2:6443"]);
    }
}
