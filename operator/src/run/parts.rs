//! All parts of the leader. Only [`lead`](super::lead) and tests hold all of them: every controller and every task is given just the parts
//! that it needs.

use std::sync::Arc;

use tokio::sync::watch;
use tsujiban_api::{Device, Site, Tenant};
use tsujiban_core::address::Forbidden;
use tsujiban_sealing::Random;

use crate::attempts::AttemptPoller;
use crate::cache::Cache;
use crate::context::Shared;
use crate::controllers::device::DeviceContext;
use crate::controllers::site::SiteContext;
use crate::controllers::tenant::TenantContext;
use crate::controllers::tenant::build::Platform;
use crate::controllers::tenant::sync_cache::SyncCache;
use crate::history::{Acknowledged, PlatformLog, Queues, Recorder, Sender, Takeover};
use crate::installation::{Chart, Inspector, Installation, Stamps};
use crate::pki::Keys;
use crate::pki::restored::RestoredKeys;
use crate::report::ReportPoller;
use crate::retained::RetainedGroups;
use crate::services::Services;
use crate::state::attempts::AttemptCache;
use crate::state::conformance::AccessReviewCache;
use crate::state::reports::Reports;
use crate::state::serials::Serials;
use crate::state::unreadable::UnreadableObjects;

pub struct Parts {
    pub platform: Platform,
    /// Networks in which no device may be.
    pub forbidden: Forbidden,
    pub shared: Shared,
    pub random: Arc<dyn Random>,
    pub services: Arc<Services>,
    pub recorder: Recorder,
    /// What the history has acknowledged and no root list covers yet.
    pub kept: Acknowledged,
    /// Decides whether to trust the apiserver's stamps of who changed declared objects.
    pub stamps: Arc<Stamps>,
    pub tenants: Cache<Tenant>,
    pub devices: Cache<Device>,
    pub sites: Cache<Site>,
    pub unreadable_devices: UnreadableObjects,
    pub queues: Queues,
    pub serials: Arc<Serials>,
    pub attempts: Arc<AttemptCache>,
    pub reports: watch::Receiver<Reports>,
    pub installation: watch::Receiver<Installation>,
    pub ca_bundle: watch::Receiver<Option<String>>,
    pub keys: watch::Receiver<Keys>,
}

impl Parts {
    pub fn tenant_context(&self) -> TenantContext {
        TenantContext {
            shared: self.shared.clone(),
            recorder: self.recorder.clone(),
            services: Arc::clone(&self.services),
            platform: self.platform.clone(),
            forbidden: self.forbidden.clone(),
            tenants: self.tenants.clone(),
            devices: self.devices.clone(),
            device_queue: self.queues.devices.clone(),
            reports: self.reports.clone(),
            installation: self.installation.clone(),
            ca_bundle: self.ca_bundle.clone(),
            keys: self.keys.clone(),
            access_reviews: Arc::new(AccessReviewCache::default()),
            sync_cache: Arc::new(SyncCache::default()),
            attempts: Arc::clone(&self.attempts),
        }
    }

    pub fn device_context(&self) -> DeviceContext {
        DeviceContext {
            shared: self.shared.clone(),
            recorder: self.recorder.clone(),
            services: Arc::clone(&self.services),
            random: Arc::clone(&self.random),
            forbidden: self.forbidden.clone(),
            tenants: self.tenants.clone(),
            devices: self.devices.clone(),
            sites: self.sites.clone(),
            tenant_queue: self.queues.tenants.clone(),
            device_queue: self.queues.devices.clone(),
            serials: Arc::clone(&self.serials),
            unreadable: self.unreadable_devices.clone(),
            attempts: Arc::clone(&self.attempts),
            reports: self.reports.clone(),
        }
    }

    pub fn site_context(&self, taken_over: watch::Receiver<bool>) -> SiteContext {
        SiteContext { shared: self.shared.clone(), recorder: self.recorder.clone(), taken_over }
    }

    pub fn report_poller(&self, reports: watch::Sender<Reports>) -> ReportPoller {
        ReportPoller {
            services: Arc::clone(&self.services),
            clock: Arc::clone(&self.shared.clock),
            metrics: Arc::clone(&self.shared.metrics),
            devices: self.devices.clone(),
            device_queue: self.queues.devices.clone(),
            retained: self.retained_groups(),
            reports,
        }
    }

    pub fn retained_groups(&self) -> RetainedGroups {
        RetainedGroups {
            client: self.shared.client.clone(),
            services: Arc::clone(&self.services),
            reports: self.reports.clone(),
            tenants: self.tenants.clone(),
            is_history_kept: self.recorder.journal.is_kept(),
        }
    }

    pub fn attempt_poller(&self) -> AttemptPoller {
        AttemptPoller {
            services: Arc::clone(&self.services),
            reports: self.reports.clone(),
            attempts: Arc::clone(&self.attempts),
            devices: self.devices.clone(),
            device_queue: self.queues.devices.clone(),
        }
    }

    pub fn inspector(&self) -> Inspector {
        Inspector {
            chart: self.chart(),
            services: Arc::clone(&self.services),
            stamps: Arc::clone(&self.stamps),
            log: self.platform_log(),
            clock: Arc::clone(&self.shared.clock),
            metrics: Arc::clone(&self.shared.metrics),
        }
    }

    pub fn restored_keys(&self) -> RestoredKeys {
        RestoredKeys {
            client: self.shared.client.clone(),
            namespace: self.platform.system_namespace.clone(),
            installation: self.installation.clone(),
            log: self.platform_log(),
            clock: Arc::clone(&self.shared.clock),
        }
    }

    pub fn sender(&self) -> Sender {
        Sender {
            services: Arc::clone(&self.services),
            journal: Arc::clone(&self.recorder.journal),
            kept: self.kept.clone(),
            chart: self.chart(),
            stamps: Arc::clone(&self.stamps),
            clock: Arc::clone(&self.shared.clock),
            metrics: Arc::clone(&self.shared.metrics),
            queues: self.queues.clone(),
        }
    }

    pub fn takeover(&self, taken_over: watch::Sender<bool>) -> Takeover {
        Takeover {
            client: self.shared.client.clone(),
            journal: Arc::clone(&self.recorder.journal),
            clock: Arc::clone(&self.shared.clock),
            sites: self.sites.clone(),
            taken_over,
        }
    }

    fn chart(&self) -> Chart {
        Chart { client: self.shared.client.clone(), namespace: self.platform.system_namespace.clone() }
    }

    fn platform_log(&self) -> PlatformLog {
        PlatformLog { services: Arc::clone(&self.services), kept: self.kept.clone(), clock: Arc::clone(&self.shared.clock) }
    }
}
