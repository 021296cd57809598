//! What every reconcile is given.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::{mpsc, watch};
use tsujiban_api::{Device, Tenant, names};
use tsujiban_core::address::Forbidden;
use tsujiban_core::clock::Clock;
use tsujiban_core::id::GroupId;
use tsujiban_sealing::Random;

use crate::attempts::Book;
use crate::backoff::Backoff;
use crate::backup_client::BackupClient;
use crate::metrics::Metrics;
use crate::pki::Keys;
use crate::report::Facts;
use crate::tenant::build::Platform;

/// The world, as far as reconciling needs it.
pub struct Context {
    pub client: Client,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub platform: Platform,
    pub forbidden: Forbidden,
    pub backup: BackupClient,
    pub metrics: Arc<Metrics>,
    pub backoff: Backoff,
    pub recorder: Recorder,
    /// Caches. What is erased is never decided by them.
    pub tenants: Store<Tenant>,
    pub devices: Store<Device>,
    /// Whether the caches hold their first lists. Not asked of the Store: of several who wait for one at once, it wakes the last alone.
    pub tenants_filled: watch::Receiver<bool>,
    pub devices_filled: watch::Receiver<bool>,
    /// What the backup service knows of each device.
    pub book: Book,
    /// What the backup service reported last.
    pub facts: watch::Receiver<Option<Arc<Facts>>>,
    /// The certificates of the internal CA.
    pub ca_bundle: watch::Receiver<Option<String>>,
    /// Whether the master key and the epoch keys are there.
    pub keys: watch::Receiver<Keys>,
    /// Tenants to look at again.
    pub to_tenants: mpsc::UnboundedSender<ObjectRef<Tenant>>,
    /// Devices to look at again.
    pub to_devices: mpsc::UnboundedSender<ObjectRef<Device>>,
}

impl Context {
    /// Tells people about something that happened to an object. Best effort: nothing depends on it.
    pub async fn event(&self, about: &ObjectReference, type_: EventType, reason: &str, note: String) {
        let event = Event { type_, reason: reason.to_owned(), note: Some(note), action: "Reconcile".to_owned(), secondary: None };
        if let Err(error) = self.recorder.publish(&event, about).await {
            tracing::debug!(error = %error, reason, "an event could not be published");
        }
    }

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
