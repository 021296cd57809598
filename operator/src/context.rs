//! What every reconcile is given.

use std::sync::Arc;

use kube::Client;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::{mpsc, watch};
use tsujiban_api::{Device, Site, Tenant, names};
use tsujiban_core::address::Forbidden;
use tsujiban_core::clock::Clock;
use tsujiban_core::id::GroupId;
use tsujiban_sealing::Random;

use crate::backoff::Backoff;
use crate::controllers::tenant::build::Platform;
use crate::controllers::tenant::sync_cache::SyncCache;
use crate::events::Events;
use crate::history::{Acknowledged, Journal};
use crate::installation::{Installation, Stamps};
use crate::metrics::Metrics;
use crate::pki::Keys;
use crate::services::Services;
use crate::state::attempts::AttemptCache;
use crate::state::conformance;
use crate::state::reports::Reports;
use crate::state::serials::Serials;
use crate::state::unreadable::UnreadableObjects;

/// The world, as far as reconciling needs it.
pub struct Context {
    pub client: Client,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub platform: Platform,
    pub forbidden: Forbidden,
    pub services: Services,
    pub metrics: Arc<Metrics>,
    pub backoff: Backoff,
    pub events: Arc<Events>,
    /// Caches. What is erased is never decided by them.
    pub tenants: Store<Tenant>,
    pub devices: Store<Device>,
    pub sites: Store<Site>,
    /// Which Devices share a serial number.
    pub serials: Serials,
    /// Devices that this version does not understand.
    pub unreadable_devices: UnreadableObjects,
    pub listed: CacheSync,
    /// What the backup service knows of each device.
    pub attempts: AttemptCache,
    /// What is to be recorded in the operation history.
    pub journal: Journal,
    /// What the history has acknowledged and no root list covers yet.
    pub kept: Acknowledged,
    /// Whether what operators before noted of recorded Sites is taken over. Never without a history.
    pub sites_taken_over: watch::Receiver<bool>,
    /// What the apiserver writes down of who changed what people declare, and whether that is believed.
    pub stamps: Stamps,
    /// What the chart has installed.
    pub installation: watch::Receiver<Installation>,
    /// What the authorizer answered about each group's owners.
    pub conformance: conformance::AccessReviewCache,
    /// What each group's objects looked like when all was right.
    pub sync_cache: SyncCache,
    /// What the services reported last.
    pub reports: watch::Receiver<Reports>,
    /// The certificates of the internal CA.
    pub ca_bundle: watch::Receiver<Option<String>>,
    /// Whether the master key and the epoch keys are there.
    pub keys: watch::Receiver<Keys>,
    /// Tenants to look at again.
    pub to_tenants: mpsc::UnboundedSender<ObjectRef<Tenant>>,
    /// Devices to look at again.
    pub to_devices: mpsc::UnboundedSender<ObjectRef<Device>>,
    /// Sites to look at again.
    pub to_sites: mpsc::UnboundedSender<ObjectRef<Site>>,
}

/// Whether the caches hold everything. Asked here and not of the stores: of many who wait for a store, kube wakes the last one alone.
#[derive(Debug, Clone)]
pub struct CacheSync {
    pub tenants: watch::Receiver<bool>,
    pub devices: watch::Receiver<bool>,
    pub sites: watch::Receiver<bool>,
}

impl CacheSync {
    /// Waits until a cache holds everything.
    pub async fn wait(cache: &watch::Receiver<bool>) {
        let mut cache = cache.clone();
        let _stopping = cache.wait_for(|listed| *listed).await.is_err(); // fails only while the process ends
    }

    /// Caches that are filled by other means.
    pub fn already() -> Self {
        let (_, listed) = watch::channel(true);
        Self { tenants: listed.clone(), devices: listed.clone(), sites: listed }
    }
}

impl Context {
    /// The cached Devices of a group.
    pub fn devices_of(&self, group: &GroupId) -> Vec<Arc<Device>> {
        let namespace = names::namespace(group);
        self.devices.state().into_iter().filter(|device| device.metadata.namespace.as_ref() == Some(&namespace)).collect()
    }

    /// Has a Device looked at again soon.
    pub fn wake_device(&self, device: &Device) {
        let _closed = self.to_devices.send(ObjectRef::from_obj(device)); // fails only while the process ends
    }

    /// Has a Tenant looked at again soon.
    pub fn wake_tenant(&self, name: &str) {
        let _closed = self.to_tenants.send(ObjectRef::new(name)); // fails only while the process ends
    }
}
