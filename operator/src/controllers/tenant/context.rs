//! What a reconcile of a Tenant needs.

use std::sync::Arc;

use tokio::sync::watch;
use tsujiban_api::{Device, Tenant};
use tsujiban_core::address::Forbidden;

use super::build::Platform;
use super::sync_cache::SyncCache;
use crate::cache::Cache;
use crate::context::Shared;
use crate::history::Recorder;
use crate::installation::Installation;
use crate::pki::Keys;
use crate::queue::Queue;
use crate::services::Services;
use crate::state::attempts::AttemptCache;
use crate::state::conformance::AccessReviewCache;
use crate::state::reports::Reports;

pub struct TenantContext {
    pub shared: Shared,
    pub recorder: Recorder,
    pub services: Arc<Services>,
    pub platform: Platform,
    /// Networks in which no device may be.
    pub forbidden: Forbidden,
    /// All Tenants: the owners of a group are checked to have no rights on another group.
    pub tenants: Cache<Tenant>,
    pub devices: Cache<Device>,
    /// Devices are reconciled when what they depend on has changed.
    pub device_queue: Queue<Device>,
    /// What the services reported last.
    pub reports: watch::Receiver<Reports>,
    /// What the chart has installed.
    pub installation: watch::Receiver<Installation>,
    /// The certificates of the internal CA.
    pub ca_bundle: watch::Receiver<Option<String>>,
    /// Whether the master key and the epoch keys exist.
    pub keys: watch::Receiver<Keys>,
    /// What the authorizer answered about each group's owners.
    pub access_reviews: Arc<AccessReviewCache>,
    /// Each group's objects, as the last full reconcile left them.
    pub sync_cache: Arc<SyncCache>,
    /// What the backup service knows of each device. Forgotten with the group.
    pub attempts: Arc<AttemptCache>,
}
