//! What the leader does: three controllers and the tasks that feed them.

mod controllers;
pub mod parts;
mod watches;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tsujiban_api::{Decoded, Device, Site, Tenant};
use tsujiban_core::clock::Clock;
use tsujiban_core::workload::Service;
use tsujiban_sealing::Random;

use crate::cache::Cache;
use crate::context::Shared;
use crate::controllers::device::{self, DeviceContext};
use crate::controllers::site::{self, SiteContext};
use crate::controllers::tenant::{self, build::Platform};
use crate::events::Events;
use crate::fence::Fence;
use crate::history::{self, Journal, Queues, Recorder};
use crate::installation::{self, Installation, Stamps};
use crate::metrics::Metrics;
use crate::pki::{Keeper, Keys};
use crate::queue::Queue;
use crate::services::Services;
use crate::services::client::ServiceClient;
use crate::settings::{Installed, Settings};
use crate::state::reports::Reports;
use crate::{deadline, stall, sweep};

use parts::Parts;
use watches::{Feed, cache, main_stream};

/// A task that should run for ever ended.
#[derive(Debug, thiserror::Error)]
#[error("task {0} ended unexpectedly; this is a bug")]
pub struct Ended(&'static str);

/// What the operator acts with.
pub struct World {
    pub client: Client,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub metrics: Arc<Metrics>,
    /// What the history has acknowledged and no root list covers yet.
    pub kept: history::Acknowledged,
    /// Shut when another replica may lead. The client is behind it already.
    pub fence: Fence,
}

/// Leads until it is dropped. Returns only when something is broken.
pub async fn lead(settings: &Settings, world: World) -> Result<(), Ended> {
    let (reports_in, reports) = watch::channel(Reports::default());
    let (installation_in, installation) = watch::channel(Installation::default());
    let (bundle_in, ca_bundle) = watch::channel(None);
    let (keys_in, keys) = watch::channel(Keys::Pending);
    let (taken_over_in, taken_over) = watch::channel(false);
    let ((tenant_queue, queued_tenants), (device_queue, queued_devices)) = (Queue::new(), Queue::new());
    let (site_queue, queued_sites) = Queue::new();
    let ((tenants, tenant_feed), (devices, device_feed), (sites, site_feed)) = (cache(), cache(), cache());
    let client = deadline::bounded(world.client);
    let services = connect(settings, &ca_bundle, &world.fence);
    world.metrics.watchdog.lead(&[tenant::KIND, site::KIND, device::KIND], Instant::now());
    let keeper = Keeper {
        client: client.clone(),
        namespace: settings.namespace.clone(),
        environment: settings.environment.clone(),
        clock: Arc::clone(&world.clock),
        random: Arc::clone(&world.random),
        metrics: Arc::clone(&world.metrics),
        services: services.names(),
        reports: reports.clone(),
        ca_bundle: bundle_in,
        keys: keys_in,
    };
    let parts = Parts {
        platform: Platform {
            system_namespace: settings.namespace.clone(),
            collector_image: settings.collector_image.clone(),
            backup_endpoint: settings.endpoint_of(Service::Backup),
        },
        forbidden: settings.forbidden(),
        random: world.random,
        services: Arc::new(services),
        recorder: Recorder {
            journal: Arc::new(Journal::new(settings.is_installed(Service::Audit))),
            clock: Arc::clone(&world.clock),
            changes_are_stamped: settings.changes_are_stamped,
        },
        kept: world.kept,
        stamps: Arc::new(Stamps::new(settings.changes_are_stamped)),
        tenants,
        devices,
        sites,
        unreadable_devices: device_feed.unreadable.clone(),
        queues: Queues { tenants: tenant_queue, devices: device_queue, sites: site_queue },
        serials: Arc::default(),
        attempts: Arc::default(),
        reports,
        installation,
        ca_bundle,
        keys,
        shared: Shared {
            events: Arc::new(Events::new(client.clone())),
            client,
            clock: world.clock,
            metrics: world.metrics,
            backoff: Arc::default(),
        },
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(named("keys and certificates", keeper.run()));
    let report_poller = Arc::new(parts.report_poller(reports_in));
    for service in parts.services.names() {
        tasks.spawn(named("report", Arc::clone(&report_poller).run(service)));
    }
    tasks.spawn(named("installation", installation::run(parts.inspector(), installation_in)));
    tasks.spawn(named("restored keys", parts.restored_keys().run()));
    tasks.spawn(named("history", parts.sender().run()));
    tasks.spawn(named("takeover of sites", parts.takeover(taken_over_in).run()));
    tasks.spawn(named("attempts", parts.attempt_poller().run()));
    let watchdog = stall::run(Arc::clone(&parts.shared.metrics), parts.tenants.clone(), parts.devices.clone(), parts.sites.clone());
    tasks.spawn(named("watchdog", watchdog));
    run_tenants(&mut tasks, &parts, tenant_feed, queued_tenants);
    let device_context = run_devices(&mut tasks, &parts, device_feed, queued_devices);
    run_sites(&mut tasks, &parts, site_feed, queued_sites, parts.site_context(taken_over), device_context);
    let ended = tasks.join_next().await.and_then(Result::ok).unwrap_or("unknown");
    Err(Ended(ended)) // dropping the set stops the others
}

type Tasks = JoinSet<&'static str>;
type Queued<K> = UnboundedReceiver<ObjectRef<K>>;

fn run_tenants(tasks: &mut Tasks, parts: &Parts, feed: Feed<Tenant>, queued: Queued<Tenant>) {
    let (client, cache, queue) = (&parts.shared.client, parts.tenants.clone(), &parts.queues.tenants);
    let context = Arc::new(parts.tenant_context());
    tasks.spawn(named("cluster role bindings", tenant::conformance::follow(Arc::clone(&context), queue.clone())));
    let sweep_of_objects = tenant::children::sweep(client.clone(), Arc::clone(&context.sync_cache), queue.clone());
    tasks.spawn(named("sweep of generated objects", sweep_of_objects));
    tasks.spawn(named("sweep of tenants", sweep(client, cache.clone(), &feed)));
    let stream = main_stream(watched(parts, tenant::KIND), feed, &parts.shared, parts.recorder.journal.is_kept(), |_| ());
    tasks.spawn(named("tenants", controllers::tenants(stream, cache, queued, context)));
}

fn run_devices(tasks: &mut Tasks, parts: &Parts, feed: Feed<Device>, queued: Queued<Device>) -> Arc<DeviceContext> {
    let cache = parts.devices.clone();
    let context = Arc::new(parts.device_context());
    tasks.spawn(named("sweep of devices", sweep(&parts.shared.client, cache.clone(), &feed)));
    let serials = Arc::clone(&parts.serials);
    let observe = move |event: &watcher::Event<Device>| serials.observe(event);
    let stream = main_stream(watched(parts, device::KIND), feed, &parts.shared, parts.recorder.journal.is_kept(), observe);
    tasks.spawn(named("devices", controllers::devices(stream, cache, queued, Arc::clone(&context))));
    context
}

fn run_sites(tasks: &mut Tasks, parts: &Parts, feed: Feed<Site>, queued: Queued<Site>, context: SiteContext, devices: Arc<DeviceContext>) {
    let cache = parts.sites.clone();
    tasks.spawn(named("sweep of sites", sweep(&parts.shared.client, cache.clone(), &feed)));
    let observe = move |event: &watcher::Event<Site>| device::sites::site_event(&devices, event);
    let stream = main_stream(watched(parts, site::KIND), feed, &parts.shared, parts.recorder.journal.is_kept(), observe);
    tasks.spawn(named("sites", controllers::sites(stream, cache, queued, Arc::new(context))));
}

/// The API for the watch of a kind. Its client notifies the watchdog when the apiserver answers.
fn watched<K: Resource<DynamicType = ()>>(parts: &Parts, kind: &'static str) -> Api<Decoded<K>>
where
    Decoded<K>: Resource<DynamicType = ()>,
{
    Api::all(stall::listening(&parts.shared.client, kind, &parts.shared.metrics))
}

/// Compares a cache with the apiserver for ever.
fn sweep<K>(client: &Client, cache: Cache<K>, feed: &Feed<K>) -> impl Future<Output = ()> + Send + use<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    sweep::run(Api::all(client.clone()), cache, Arc::clone(&feed.restart), feed.unreadable.clone())
}

/// The clients of the services that are installed.
fn connect(settings: &Settings, ca_bundle: &watch::Receiver<Option<String>>, fence: &Fence) -> Services {
    let client = |installed: &Installed| {
        let (endpoint, token) = (settings.endpoint(installed), settings.token_file(installed.service));
        let client = ServiceClient::new(installed.service, endpoint, token, ca_bundle.clone());
        client.behind(fence.clone()).reporting_at(settings.report_endpoint(installed))
    };
    Services::new(settings.services.iter().map(client).collect())
}

async fn named(name: &'static str, task: impl Future<Output = ()>) -> &'static str {
    task.await;
    name
}
