//! The world of a test: an apiserver, a backup service, a clock, and the operator's controllers and tasks on top of them.

use std::io::Write as _;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::{self, store::Writer};
use kube::runtime::{controller::Action, watcher};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tsujiban_api::{Device, Site, Tenant};
use tsujiban_core::address::Forbidden;
use tsujiban_core::clock::{Clock, ManualClock};
use tsujiban_core::workload::Service;
use tsujiban_operator::cache::Cache;
use tsujiban_operator::context::Shared;
use tsujiban_operator::controllers::device::{self, DeviceContext};
use tsujiban_operator::controllers::site::{self, SiteContext};
use tsujiban_operator::controllers::tenant::build::Platform;
use tsujiban_operator::controllers::tenant::{self, TenantContext};
use tsujiban_operator::events::Events;
use tsujiban_operator::history::{Journal, Queues, Recorder};
use tsujiban_operator::installation::{Inspector, Installation, Observation, Stamps};
use tsujiban_operator::metrics::Metrics;
use tsujiban_operator::pki::Keys;
use tsujiban_operator::pki::restored::RestoredKeys;
use tsujiban_operator::queue::Queue;
use tsujiban_operator::reconcile::Failure;
use tsujiban_operator::retained::RetainedGroups;
use tsujiban_operator::run::parts::Parts;
use tsujiban_operator::services::Services;
use tsujiban_operator::services::client::ServiceClient;
use tsujiban_operator::state::attempts::AttemptCache;
use tsujiban_operator::state::reports::{Facts, Reports};
use tsujiban_operator::state::unreadable::UnreadableObjects;
use tsujiban_plane::backup::Backup;
use tsujiban_plane::history::History;
use tsujiban_sealing::SystemRandom;

use crate::apiserver::Apiserver;

/// No write, no call.
pub const NOTHING: [&str; 0] = [];

pub const TENANT: &str = "/apis/tsujiban.dev/v1alpha1/tenants/acme";
pub const NAMESPACE: &str = "/api/v1/namespaces/tn-acme";
pub const DEVICE: &str = "/apis/tsujiban.dev/v1alpha1/namespaces/tn-acme/devices/r1";
pub const SITE: &str = "/apis/tsujiban.dev/v1alpha1/namespaces/tn-acme/sites/tokyo";
pub const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

pub const POLICY: &str = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies/tsujiban-changed-by";
pub const BINDING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings/tsujiban-changed-by";
pub const POLICIES: &str = "/api/v1/namespaces/tsujiban-system/configmaps/tsujiban-policies";
pub const BACKUP_SET: &str = "/apis/apps/v1/namespaces/tsujiban-system/statefulsets/tsujiban-backup";
pub const AUDIT_SET: &str = "/apis/apps/v1/namespaces/tsujiban-system/statefulsets/tsujiban-audit";

pub struct World {
    pub apiserver: Arc<Apiserver>,
    pub backup: Backup,
    /// The audit service, in a world with an operation history.
    pub history: Option<History>,
    pub clock: Arc<ManualClock>,
    pub tenant: Arc<TenantContext>,
    pub device: Arc<DeviceContext>,
    pub site: Arc<SiteContext>,
    pub metrics: Arc<Metrics>,
    pub journal: Arc<Journal>,
    pub attempts: Arc<AttemptCache>,
    pub inspector: Inspector,
    pub restored_keys: RestoredKeys,
    pub retained: RetainedGroups,
    pub reports: watch::Sender<Reports>,
    pub keys: watch::Sender<Keys>,
    pub installation: watch::Sender<Installation>,
    tenants: Writer<Tenant>,
    devices: Writer<Device>,
    sites: Writer<Site>,
    _bundle: watch::Sender<Option<String>>,
    _token: tempfile::NamedTempFile,
    _queued_tenants: UnboundedReceiver<reflector::ObjectRef<Tenant>>,
    queued_devices: UnboundedReceiver<reflector::ObjectRef<Device>>,
    queued_sites: UnboundedReceiver<reflector::ObjectRef<Site>>,
    _tasks: JoinSet<()>,
}

impl World {
    /// Without an operation history.
    pub async fn new() -> Self {
        Self::empty(None).await
    }

    pub async fn with_history() -> Self {
        Self::empty(Some(History::default())).await
    }

    /// The operator is ended and another one begins: what it kept in memory is lost.
    pub async fn restarted(self) -> Self {
        Self::begin(self.apiserver, self.backup, self.history, self.clock).await
    }

    /// The same, and the history is switched off.
    pub async fn restarted_without_history(self) -> Self {
        Self::begin(self.apiserver, self.backup, None, self.clock).await
    }

    async fn empty(history: Option<History>) -> Self {
        let clock = Arc::new(ManualClock::new("2026-02-10T00:00:00.123456789Z".parse().unwrap()));
        let apiserver = Arc::new(Apiserver::default());
        apiserver.put(
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes",
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.97.0.1"]}], "ports": [{"name": "https", "port": 6443}]}),
        );
        for name in ["tenants", "sites", "devices"] {
            let spec = json!({"group": "tsujiban.dev", "scope": "Cluster", "names": {"kind": "K", "plural": name}, "versions": []});
            apiserver.put(&format!("{CRDS}/{name}.tsujiban.dev"), json!({"metadata": {}, "spec": spec}));
        }
        install_policies(&apiserver);
        Self::begin(apiserver, Backup::default(), history, clock).await
    }

    async fn begin(apiserver: Arc<Apiserver>, backup: Backup, history: Option<History>, clock: Arc<ManualClock>) -> Self {
        let client = apiserver.client();
        let ((tenant_store, tenants), (device_store, devices)) = (reflector::store(), reflector::store());
        let (site_store, sites) = reflector::store();
        let (reports_in, reports) = watch::channel(Reports::default());
        let (installation_in, installation) = watch::channel(Installation::default());
        let (keys_in, keys) = watch::channel(Keys::Ready);
        let (bundle_in, bundle) = watch::channel(Some("-----BEGIN CERTIFICATE-----".to_owned()));
        let ((tenant_queue, queued_tenants), (device_queue, queued_devices)) = (Queue::new(), Queue::new());
        let (site_queue, queued_sites) = Queue::new();
        let (taken_over_in, taken_over) = watch::channel(false);
        let mut token = tempfile::NamedTempFile::new().unwrap();
        token.write_all(b"token").unwrap();
        let client_of = |service, endpoint| ServiceClient::new(service, endpoint, token.path().to_owned(), bundle.clone());
        let mut clients = vec![client_of(Service::Backup, backup.serve().await.unwrap())];
        if let Some(history) = &history {
            clients.push(client_of(Service::Audit, history.serve().await.unwrap()));
        }
        let metrics = Arc::new(Metrics::new().unwrap());
        let journal = Arc::new(Journal::new(history.is_some()));
        let parts = Parts {
            platform: Platform {
                system_namespace: "tsujiban-system".into(),
                collector_image: "tsujiban-collector:0.1.0".into(),
                backup_endpoint: "https://tsujiban-backup.tsujiban-system.svc:8443".into(),
            },
            forbidden: Forbidden::new(["10.244.0.0/16".parse().unwrap()]),
            shared: Shared {
                client: client.clone(),
                clock: clock.clone(),
                metrics: Arc::clone(&metrics),
                backoff: Arc::default(),
                events: Arc::new(Events::new(client)),
            },
            random: Arc::new(SystemRandom::new()),
            services: Arc::new(Services::new(clients)),
            recorder: Recorder { journal: Arc::clone(&journal), clock: clock.clone(), changes_are_stamped: true },
            kept: metrics.keeper().unwrap(),
            stamps: Arc::new(Stamps::new(true)),
            tenants: Cache::synced(tenant_store),
            devices: Cache::synced(device_store),
            sites: Cache::synced(site_store),
            unreadable_devices: UnreadableObjects::default(),
            queues: Queues { tenants: tenant_queue, devices: device_queue, sites: site_queue },
            serials: Arc::default(),
            attempts: Arc::default(),
            reports,
            installation,
            ca_bundle: bundle,
            keys,
        };
        parts.stamps.restore(Observation::Nothing);
        let mut tasks = JoinSet::new();
        tasks.spawn(parts.sender().run());
        tasks.spawn(parts.takeover(taken_over_in).run());
        let mut world = Self {
            apiserver,
            backup,
            history,
            clock,
            tenant: Arc::new(parts.tenant_context()),
            device: Arc::new(parts.device_context()),
            site: Arc::new(parts.site_context(taken_over)),
            metrics,
            journal,
            inspector: parts.inspector(),
            restored_keys: parts.restored_keys(),
            retained: parts.retained_groups(),
            attempts: parts.attempts,
            reports: reports_in,
            keys: keys_in,
            installation: installation_in,
            tenants,
            devices,
            sites,
            _bundle: bundle_in,
            _token: token,
            _queued_tenants: queued_tenants,
            queued_devices,
            queued_sites,
            _tasks: tasks,
        };
        world.sync();
        world
    }

    /// Declares Tenant acme.
    pub fn declare_tenant(&mut self, uid: &str, change: impl FnOnce(&mut Value)) {
        let mut spec = json!({
            "displayName": "Acme", "plan": "Prime", "contact": {"email": "a@example.co.jp"},
            "owners": [{"kind": "User", "name": "yamada@example.co.jp"}],
            "network": {"deviceCIDRs": ["172.20.1.0/24"]}, "quota": {"cpu": "2000m"},
        });
        change(&mut spec);
        let metadata = json!({"uid": uid, "generation": 1});
        self.apiserver.put(TENANT, json!({"apiVersion": "tsujiban.dev/v1alpha1", "kind": "Tenant", "metadata": metadata, "spec": spec}));
        self.sync();
    }

    /// Marks an object as being deleted.
    pub fn delete(&mut self, path: &str) {
        self.apiserver.edit(path, |object| object["metadata"]["deletionTimestamp"] = json!("2026-02-10T00:00:00Z"));
        self.sync();
    }

    /// Makes the caches know of no Tenant, as they do for a moment after one was declared.
    pub fn forget_tenant(&mut self) {
        refill(&mut self.tenants, None);
    }

    /// Brings the caches up to date with the apiserver.
    pub fn sync(&mut self) {
        refill(&mut self.tenants, self.apiserver.get(TENANT));
        refill(&mut self.devices, self.apiserver.get(DEVICE));
        self.device.devices.list().iter().for_each(|device| self.device.serials.observe(&watcher::Event::Apply((**device).clone())));
        refill(&mut self.sites, self.apiserver.get(SITE));
    }

    /// The Devices that were added to the queue since this was asked last.
    pub fn queued_devices(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.queued_devices.try_recv().ok()).map(|device| device.name).collect()
    }

    /// The audit service.
    pub fn audit(&self) -> &History {
        self.history.as_ref().unwrap()
    }

    /// The Sites that were added to the queue since this was asked last.
    pub fn queued_sites(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.queued_sites.try_recv().ok()).map(|site| site.name).collect()
    }

    /// Reconciles the Tenant as often as it takes to settle.
    pub async fn settle_tenant(&mut self) {
        for _ in 0..4 {
            let _waiting = self.reconcile_tenant().await.unwrap();
        }
    }

    /// Reconciles the Tenant after something was heard of its objects: what, nobody watches here.
    pub async fn reconcile_tenant(&mut self) -> Result<Option<Action>, Failure> {
        self.tenant.sync_cache.invalidate("acme");
        self.look_at_tenant().await
    }

    /// Reconciles the Tenant when nothing was heard of its objects.
    pub async fn look_at_tenant(&mut self) -> Result<Option<Action>, Failure> {
        self.sync();
        let Some(tenant) = self.tenant.tenants.list().first().cloned() else { return Ok(None) };
        let result = tenant::reconcile(tenant, Arc::clone(&self.tenant)).await;
        self.sync();
        result.map(Some)
    }

    pub async fn reconcile_device(&mut self) {
        self.sync();
        if let Some(device) = self.device.devices.list().first().cloned() {
            let _next = device::reconcile(device, Arc::clone(&self.device)).await.unwrap();
        }
        self.sync();
    }

    pub async fn reconcile_site(&mut self) {
        self.sync();
        if let Some(site) = self.device.sites.list().first().cloned() {
            let _next = site::reconcile(site, Arc::clone(&self.site)).await.unwrap();
        }
        self.sync();
    }

    /// Reconciles the Site until its status says that this generation is in the history.
    pub async fn site_is_recorded(&mut self, generation: i64) {
        for _ in 0..5 {
            self.reconcile_site().await;
            if self.apiserver.get(SITE).unwrap_or_default()["status"]["recorded"]["generation"] == json!(generation) {
                return;
            }
        }
        panic!("generation {generation} of the Site is not recorded");
    }

    /// Reconciles the Site as often as it takes to settle.
    pub async fn settle_site(&mut self) {
        for _ in 0..3 {
            self.reconcile_site().await;
        }
    }

    /// What the backup service reports, as if it had been polled now.
    pub fn poll_report(&self) {
        let facts = Arc::new(Facts::from_wire(&self.backup.report_now(), self.clock.now()));
        self.reports.send_modify(|known| {
            known.take(Service::Backup, facts);
        });
    }

    /// Status and reason of a condition.
    pub fn condition(&self, path: &str, type_: &str) -> String {
        let object = self.apiserver.get(path).unwrap();
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|condition| condition["type"] == json!(type_));
        found.map_or_else(
            || "absent".to_owned(),
            |found| format!("{} {}", found["status"].as_str().unwrap(), found["reason"].as_str().unwrap()),
        )
    }

    pub fn pass(&self, hours: i64) -> Timestamp {
        self.clock.advance(SignedDuration::from_hours(hours));
        self.clock.now()
    }
}

/// What the chart installs besides the operator: the services, and the policy that stamps who changed what.
fn install_policies(apiserver: &Apiserver) {
    let made = json!({"creationTimestamp": "2025-12-01T00:00:00Z", "generation": 1});
    let specs = [("Policy", json!({"failurePolicy": "Fail"})), ("PolicyBinding", json!({"policyName": "tsujiban-changed-by"}))];
    let mut wanted = Vec::new();
    for ((kind, spec), path) in specs.into_iter().zip([POLICY, BINDING]) {
        let kind = format!("MutatingAdmission{kind}");
        wanted.push(json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "name": "tsujiban-changed-by", "spec": spec}));
        apiserver.put(path, json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": made, "spec": spec}));
    }
    apiserver.put(POLICIES, json!({"data": {"policies.json": json!(wanted).to_string()}}));
    for path in [BACKUP_SET, AUDIT_SET] {
        apiserver.put(path, json!({"spec": {"replicas": 1, "selector": {}, "template": {}}}));
    }
}

fn refill<K>(writer: &mut Writer<K>, object: Option<Value>)
where
    K: kube::Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + 'static,
{
    writer.apply_watcher_event(&watcher::Event::Init);
    if let Some(object) = object {
        writer.apply_watcher_event(&watcher::Event::InitApply(serde_json::from_value(object).unwrap()));
    }
    writer.apply_watcher_event(&watcher::Event::InitDone);
}
