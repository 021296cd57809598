//! What a reconcile of a Device needs.

use std::sync::Arc;

use tokio::sync::watch;
use tsujiban_api::{Device, Site, Tenant};
use tsujiban_core::address::Forbidden;
use tsujiban_sealing::Random;

use crate::cache::Cache;
use crate::context::Shared;
use crate::history::Recorder;
use crate::queue::Queue;
use crate::services::Services;
use crate::state::attempts::AttemptCache;
use crate::state::reports::Reports;
use crate::state::serials::Serials;
use crate::state::unreadable::UnreadableObjects;

pub struct DeviceContext {
    pub shared: Shared,
    pub recorder: Recorder,
    pub services: Arc<Services>,
    /// For key pairs.
    pub random: Arc<dyn Random>,
    /// Networks in which no device may be.
    pub forbidden: Forbidden,
    pub tenants: Cache<Tenant>,
    pub devices: Cache<Device>,
    pub sites: Cache<Site>,
    /// A Tenant is reconciled when the status of one of its Devices has changed.
    pub tenant_queue: Queue<Tenant>,
    /// Queues Devices with the same serial number as the reconciled one, and Devices whose Site was created or deleted.
    pub device_queue: Queue<Device>,
    /// Which Devices share a serial number.
    pub serials: Arc<Serials>,
    /// Devices that this version cannot parse.
    pub unreadable: UnreadableObjects,
    /// What the backup service knows of each device.
    pub attempts: Arc<AttemptCache>,
    /// What the services reported last.
    pub reports: watch::Receiver<Reports>,
}
