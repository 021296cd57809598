//! What the chart has installed, read live.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::DynamicObject;
use kube::{Api, Client};
use tsujiban_api::names::CONFIGMAP_POLICIES;

use super::Workload;
use super::policies::Wanted;
use crate::apply::{ApplyError, failed};

/// The key of the ConfigMap with the policies as the chart has them.
const KEY: &str = "policies.json";

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    #[error(transparent)]
    Read(#[from] ApplyError),
    #[error("key policies.json of ConfigMap tsujiban-policies is not what the chart writes")]
    Text(#[source] serde_json::Error),
}

/// The installation of one chart.
#[derive(Clone)]
pub struct Chart {
    pub client: Client,
    /// The system namespace.
    pub namespace: String,
}

impl Chart {
    /// The StatefulSet of a service.
    pub(super) async fn workload(&self, name: &str) -> Result<Workload, ApplyError> {
        let api: Api<StatefulSet> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = api.get_opt(name).await.map_err(failed::<StatefulSet>("read", Some(&self.namespace), name))?;
        Ok(match found {
            None => Workload::Missing,
            Some(found) if found.spec.replicas == Some(0) => Workload::ScaledDown,
            Some(_) => Workload::Standing,
        })
    }

    /// The policies as the chart has them; `None` without the ConfigMap that lists them.
    pub(super) async fn policies(&self) -> Result<Option<Vec<Wanted>>, LookError> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let failed = failed::<ConfigMap>("read", Some(&self.namespace), CONFIGMAP_POLICIES);
        let found = api.get_opt(CONFIGMAP_POLICIES).await.map_err(failed)?;
        let text = found.and_then(|mut found| found.data.as_mut()?.remove(KEY));
        text.map(|text| Wanted::parse(&text).map_err(LookError::Text)).transpose()
    }

    /// A policy or a binding as it is now.
    pub(super) async fn live(&self, wanted: &Wanted) -> Result<Option<DynamicObject>, ApplyError> {
        let resource = wanted.resource();
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let failed =
            |source| ApplyError::Api { verb: "read", what: format!("{} {}", resource.kind, wanted.name), source: Box::new(source) };
        api.get_opt(&wanted.name).await.map_err(failed)
    }
}
