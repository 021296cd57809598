//! Checks and renews keys and certificates every 30 s, so that a loss is reported within a minute.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use tsujiban_api::names::{
    ANNOTATION_INCARNATION, CA_CONFIGMAP, LABEL_MANAGED_BY, MANAGED_BY, SECRET_CA, SECRET_EPOCH_KEYS, SECRET_MASTER_KEY,
};
use tsujiban_core::clock::Clock;
use tsujiban_core::error::chain;
use tsujiban_core::id::EnvironmentName;
use tsujiban_core::workload::Service;
use tsujiban_sealing::{MasterKey, Random};

use super::authority::Authority;
use super::certificate::CertificateError;
use super::epochs::{self, EpochError, Evidence};
use super::master::{self, Absence, MasterError};
use super::secrets::{Properties, Read, Secrets};
use super::{Keys, Layer, Loss, serving};
use crate::apply::{ApplyError, ensure, failed};
use crate::metrics::Metrics;
use crate::state::reports::Reports;

const EVERY: Duration = Duration::from_secs(30);
const AFTER_ERROR: Duration = Duration::from_secs(5);
const DEADLINE: Duration = Duration::from_secs(30);

/// Why keys or certificates are not in order.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("the internal CA cannot be used; delete Secret tsujiban-ca to have a new one made")]
    Ca(#[source] CertificateError),
    #[error("Secret tsujiban-ca is incomplete; delete it to have a new CA made")]
    CaIncomplete,
    #[error("the certificate of the {service} could not be made")]
    Serving {
        service: Service,
        #[source]
        source: CertificateError,
    },
    #[error("the master key could not be made")]
    MakeMaster(#[source] tsujiban_sealing::SealingError),
    #[error(transparent)]
    Lost(Loss),
    #[error(transparent)]
    Epochs(EpochError),
    #[error("the apiserver did not answer within 30 s")]
    Deadline,
}

/// Keeps the keys and certificates of an installation.
pub struct Keeper {
    pub client: Client,
    pub namespace: String,
    pub environment: EnvironmentName,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub metrics: Arc<Metrics>,
    /// The services that are installed.
    pub services: Vec<Service>,
    pub reports: watch::Receiver<Reports>,
    pub ca_bundle: watch::Sender<Option<String>>,
    pub keys: watch::Sender<Keys>,
}

impl Keeper {
    /// Checks and renews them for ever.
    pub async fn run(self) {
        loop {
            let pause = match tokio::time::timeout(DEADLINE, self.round()).await.unwrap_or(Err(KeeperError::Deadline)) {
                Ok(()) => EVERY,
                Err(error) => {
                    tracing::error!(error = chain(&error), "keys and certificates are not in order");
                    if matches!(error, KeeperError::Lost(_)) { EVERY } else { AFTER_ERROR }
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// One round. Certificates first: they are needed also while a key is missing.
    pub async fn round(&self) -> Result<(), KeeperError> {
        let secrets = Secrets { api: Api::<Secret>::namespaced(self.client.clone(), &self.namespace), namespace: self.namespace.clone() };
        let authority = self.authority(&secrets).await?;
        for service in &self.services {
            self.serving(&secrets, &authority, *service).await?;
        }
        let keys = self.keys(&secrets).await;
        match &keys {
            Ok(()) => self.say(&Keys::Ready),
            Err(KeeperError::Lost(loss)) => self.say(&Keys::Missing(loss.clone())),
            Err(_) => {} // nothing new is known: the last state stays
        }
        keys
    }

    fn say(&self, keys: &Keys) {
        self.metrics.keys_ready.set(i64::from(*keys == Keys::Ready));
        self.keys.send_if_modified(|known| std::mem::replace(known, keys.clone()) != *keys);
    }

    async fn authority(&self, secrets: &Secrets) -> Result<Authority, KeeperError> {
        let now = self.clock.now();
        let read = if let Some(read) = secrets.get(SECRET_CA).await? {
            read
        } else {
            secrets.create(SECRET_CA, Authority::make(now).map_err(KeeperError::Ca)?.to_data(), Properties::default()).await?;
            secrets.get(SECRET_CA).await?.ok_or(KeeperError::CaIncomplete)?
        };
        let there = Authority::from_data(&read.data).ok_or(KeeperError::CaIncomplete)?;
        let (authority, changed) = there.advance(now).map_err(KeeperError::Ca)?;
        if changed {
            tracing::info!(announced = authority.next.is_some(), "the internal CA is being changed");
            secrets.put(SECRET_CA, Some(read), authority.to_data()).await?;
        }
        let bundle = Some(authority.bundle.clone());
        self.ca_bundle.send_if_modified(|known| std::mem::replace(known, bundle.clone()) != bundle);
        ensure(&Api::namespaced(self.client.clone(), &self.namespace), &self.published(&authority.bundle)).await?;
        Ok(authority)
    }

    /// The bundle where the CLI finds it.
    fn published(&self, bundle: &str) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(CA_CONFIGMAP.to_owned()),
                namespace: Some(self.namespace.clone()),
                labels: Some([(LABEL_MANAGED_BY.to_owned(), MANAGED_BY.to_owned())].into()),
                ..ObjectMeta::default()
            },
            data: Some([("ca.crt".to_owned(), bundle.to_owned())].into()),
            ..ConfigMap::default()
        }
    }

    async fn serving(&self, secrets: &Secrets, authority: &Authority, service: Service) -> Result<(), KeeperError> {
        let read = secrets.get(service.row().tls_secret).await?;
        let there = read.as_ref().map(|read| &read.data);
        let names = serving::dns_names(service, &self.namespace);
        let settled = serving::settle(there, authority, &names, self.clock.now());
        let (data, runs_out) = settled.map_err(|source| KeeperError::Serving { service, source })?;
        secrets.put(service.row().tls_secret, read, data).await?;
        self.metrics.certificate_expires(service, runs_out);
        Ok(())
    }

    /// Every service that may hold data keys: those that are installed, and those that once were. A service that was switched off does not
    /// report any more, but what it has sealed must open once it is back.
    async fn holders(&self, secrets: &Secrets) -> Result<Vec<Service>, ApplyError> {
        let mut holders = self.services.clone();
        for service in Service::ALL.iter().copied().filter(|service| !self.services.contains(service)) {
            if secrets.get(service.row().tls_secret).await?.is_some() {
                holders.push(service);
            }
        }
        Ok(holders)
    }

    async fn keys(&self, secrets: &Secrets) -> Result<(), KeeperError> {
        let epochs = secrets.get(SECRET_EPOCH_KEYS).await?;
        let now = self.clock.now();
        let reports = self.reports.borrow().clone();
        let last_reported = reports.epochs_last_reported();
        let has_epochs = epochs.is_some() || last_reported.iter().any(|known| !known.is_empty());
        let master = self.master(secrets, has_epochs).await?;
        let in_use = reports.epochs_in_use(&self.holders(secrets).await?, now);
        let evidence = Evidence {
            has_prepared_groups: epochs.is_none() && self.has_prepared_groups().await?,
            last_reported: &last_reported,
            in_use: in_use.as_deref(),
        };
        let there = epochs.as_ref().map(|read| &read.data);
        let data = epochs::settle(there, &master, evidence, &*self.random, now).map_err(|error| match error.lost() {
            Some(layer) => KeeperError::Lost(Loss { layer, advice: chain(&error) }),
            None => KeeperError::Epochs(error),
        })?;
        Ok(secrets.put(SECRET_EPOCH_KEYS, epochs, data).await?)
    }

    async fn master(&self, secrets: &Secrets, has_epochs: bool) -> Result<MasterKey, KeeperError> {
        let lost = |advice: String| KeeperError::Lost(Loss { layer: Layer::Master, advice });
        if let Some(read) = secrets.get(SECRET_MASTER_KEY).await? {
            return self.checked(&read).map_err(|error| lost(chain(&error)));
        }
        if master::when_absent(has_epochs, self.has_prepared_groups().await?) == Absence::Refuse {
            return Err(lost(master::GONE.to_owned()));
        }
        let made = MasterKey::generate(&*self.random).map_err(KeeperError::MakeMaster)?;
        let annotations = [(master::ENVIRONMENT.to_owned(), self.environment.to_string())].into();
        if secrets.create(SECRET_MASTER_KEY, master::write(&made), Properties { immutable: true, annotations }).await? {
            tracing::info!(id = %made.id(), "the master key is made; export it once for escrow");
        }
        let read = secrets.get(SECRET_MASTER_KEY).await?.ok_or_else(|| lost(master::GONE.to_owned()))?;
        self.checked(&read).map_err(|error| lost(chain(&error)))
    }

    fn checked(&self, read: &Read) -> Result<MasterKey, MasterError> {
        master::check_environment(read.annotation(master::ENVIRONMENT), &self.environment)?;
        master::read(&read.data)
    }

    /// Whether a group was ever prepared: its namespace names an incarnation, under which data is sealed.
    async fn has_prepared_groups(&self) -> Result<bool, ApplyError> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let ours = ListParams::default().labels(&format!("{LABEL_MANAGED_BY}={MANAGED_BY}"));
        let found = api.list_metadata(&ours).await.map_err(failed::<Namespace>("list", None, ""))?;
        Ok(found.items.iter().any(|namespace| namespace.annotations().contains_key(ANNOTATION_INCARNATION)))
    }
}
