//! What the collector reads of Kubernetes: the Devices of its namespace, and the Secrets they name.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use tokio::time::{Instant, timeout};
use tracing::warn;
use tsujiban_api::{Decoded, Device};
use tsujiban_core::backoff::Backoff;
use tsujiban_core::outcome::Reason;
use tsujiban_service::retry::{Retry, no_jitter};

use crate::credentials::{self, Credentials, Unusable};
use crate::outcome::Step;
use crate::target::Target;

const REQUEST: Duration = Duration::from_secs(10);
/// A new pod's network may take some seconds until the policies let it through.
const PATIENCE: Duration = Duration::from_secs(45);
const PAUSE: Backoff = Backoff::constant(Duration::from_secs(1));
const PAGE: u32 = 500;

/// Why the Devices could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum CannotList {
    #[error("the devices of namespace {namespace} cannot be listed")]
    Api { namespace: String, source: Box<kube::Error> },
    #[error("the apiserver does not answer within {} s; check the network policy and the apiserver", PATIENCE.as_secs())]
    Silent,
}

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum NoCredentials {
    #[error(
        "secret {secret} does not exist; create it with type {}, or remove credentialsSecretRef to have a key generated",
        tsujiban_api::names::CREDENTIALS_TYPE
    )]
    Missing { secret: String },
    #[error("secret {secret} cannot be read")]
    Api { secret: String, source: Box<kube::Error> },
    #[error("secret {secret} cannot be read: the apiserver does not answer within {} s", REQUEST.as_secs())]
    Silent { secret: String },
    #[error(transparent)]
    Unusable(#[from] Unusable),
}

impl Step for NoCredentials {
    fn reason(&self) -> Reason {
        Reason::Auth
    }
}

/// The group's namespace.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    namespace: String,
}

impl Cluster {
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.to_owned() }
    }

    /// The devices that are to be backed up now.
    pub async fn targets(&self) -> Result<Vec<Target>, CannotList> {
        let attempt = async || match timeout(REQUEST, self.list()).await {
            Ok(listed) => listed.map_err(|source| CannotList::Api { namespace: self.namespace.clone(), source: Box::new(source) }),
            Err(_) => Err(CannotList::Silent),
        };
        // what the apiserver refuses it will refuse again
        let is_transient = |error: &CannotList| !matches!(error, CannotList::Api { source, .. } if matches!(**source, kube::Error::Api(_)));
        Retry::until(Instant::now() + PATIENCE, PAUSE).run(no_jitter, attempt, is_transient).await
    }

    async fn list(&self) -> kube::Result<Vec<Target>> {
        let devices: Api<Decoded<Device>> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut targets = Vec::new();
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = devices.list(&params).await?;
            let metadata = page.metadata;
            for device in page.items {
                match device.read() {
                    Ok(device) => match Target::of(&device) {
                        Ok(target) => targets.extend(target),
                        Err(error) => warn!(device = device.name_any(), %error, "device left out"),
                    },
                    Err(unreadable) => {
                        let device = unreadable.metadata.name.unwrap_or_default();
                        warn!(device, error = unreadable.why, "device left out: this version does not understand it");
                    }
                }
            }
            match metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(targets),
            }
        }
    }

    /// The login that a device's Secret holds.
    pub async fn credentials(&self, secret: &str) -> Result<Credentials, NoCredentials> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let name = || secret.to_owned();
        match timeout(REQUEST, api.get(secret)).await {
            Ok(Ok(found)) => Ok(credentials::read(secret, found)?),
            Ok(Err(kube::Error::Api(status))) if status.is_not_found() => Err(NoCredentials::Missing { secret: name() }),
            Ok(Err(source)) => Err(NoCredentials::Api { secret: name(), source: Box::new(source) }),
            Err(_) => Err(NoCredentials::Silent { secret: name() }),
        }
    }
}
