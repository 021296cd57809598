//! What the leader does: three controllers and the tasks that feed them.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{LimitRange, Namespace, ResourceQuota, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::core::PartialObjectMeta;
use kube::runtime::PredicateConfig;
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{Predicate as _, WatchStreamExt, predicates, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::{UnboundedReceiverStream, WatchStream};
use tsujiban_api::{Decoded, Device, Site, Tenant};
use tsujiban_core::clock::Clock;
use tsujiban_core::workload::Service;
use tsujiban_sealing::Random;

use crate::backoff::Backoff;
use crate::context::{CacheSync, Context};
use crate::controllers::tenant::build::Platform;
use crate::controllers::tenant::children::{WatchScope, follow, tenant_of};
use crate::controllers::tenant::dereference::{APISERVER, APISERVER_NAMESPACE};
use crate::controllers::{device, site, tenant};
use crate::events::Events;
use crate::fence::Fence;
use crate::history::{self, Declared, Journal};
use crate::installation::{self, Installation, Stamps};
use crate::metrics::Metrics;
use crate::pki::{Keeper, Keys, restored};
use crate::read::Reader;
use crate::reconcile::after_error;
use crate::services::Services;
use crate::services::client::ServiceClient;
use crate::settings::{Installed, Settings};
use crate::state::attempts::AttemptCache;
use crate::state::reports::Reports;
use crate::state::serials::Serials;
use crate::state::unreadable::UnreadableObjects;
use crate::{attempts, deadline, report, stall, state, sweep};

/// A watch is begun anew after this long, and one on a dead connection is noticed 5 s later. Less than [`stall::STALLED`].
const WATCH_SECONDS: u32 = 30;
const PAGE: u32 = 100;

/// A task that should run for ever ended.
#[derive(Debug, thiserror::Error)]
#[error("task {0} ended unexpectedly; this is a bug")]
pub struct Ended(&'static str);

/// The world that the operator acts in.
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
    let (to_tenants, tenants_to_wake) = mpsc::unbounded_channel();
    let (to_devices, devices_to_wake) = mpsc::unbounded_channel();
    let (to_sites, sites_to_wake) = mpsc::unbounded_channel();
    let (taken_over, sites_taken_over) = watch::channel(false);
    let ((tenants, tenants_listed, tenant_feed), (devices, devices_listed, device_feed)) = (cache(), cache());
    let (sites, sites_listed, site_feed) = cache();
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
    let context = Arc::new(Context {
        client: client.clone(),
        clock: world.clock,
        random: world.random,
        platform: Platform {
            system_namespace: settings.namespace.clone(),
            collector_image: settings.collector_image.clone(),
            backup_endpoint: settings.endpoint_of(Service::Backup),
        },
        forbidden: settings.forbidden(),
        services,
        metrics: world.metrics,
        backoff: Backoff::default(),
        events: Arc::new(Events::new(client.clone())),
        tenants: tenants.clone(),
        devices: devices.clone(),
        sites: sites.clone(),
        serials: Serials::default(),
        unreadable_devices: device_feed.unreadable.clone(),
        listed: CacheSync { tenants: tenants_listed, devices: devices_listed, sites: sites_listed },
        attempts: AttemptCache::default(),
        journal: Journal::new(settings.is_installed(Service::Audit)),
        kept: world.kept,
        sites_taken_over,
        stamps: Stamps::new(settings.changes_are_stamped),
        installation,
        conformance: state::conformance::AccessReviewCache::default(),
        sync_cache: tenant::sync_cache::SyncCache::default(),
        reports: reports.clone(),
        ca_bundle: ca_bundle.clone(),
        keys: keys.clone(),
        to_tenants,
        to_devices,
        to_sites,
    });

    let everything = everything(&context);
    let (tenants_again, devices_again) = (Arc::clone(&tenant_feed.again), Arc::clone(&device_feed.again));
    let sites_again = Arc::clone(&site_feed.again);
    let unread = (tenant_feed.unreadable.clone(), device_feed.unreadable.clone(), site_feed.unreadable.clone());
    let listening = |kind| stall::listening(&client, kind, &context.metrics);
    let tenant_stream = main_stream(Api::all(listening(tenant::KIND)), tenant_feed, &context, |_| ());
    let hearing = Arc::clone(&context);
    let hear = move |event: &watcher::Event<Device>| hearing.serials.hear(event);
    let device_stream = main_stream(Api::all(listening(device::KIND)), device_feed, &context, hear);
    let waking = Arc::clone(&context);
    let wake = move |event: &watcher::Event<Site>| site::wake_devices(&waking, event);
    let site_stream = main_stream(Api::all(listening(site::KIND)), site_feed, &context, wake);

    let mut tasks = JoinSet::new();
    tasks.spawn(named("keys and certificates", keeper.run()));
    for service in context.services.names() {
        tasks.spawn(named("report", report::poll(Arc::clone(&context), service, reports_in.clone())));
    }
    tasks.spawn(named("installation", installation::run(Arc::clone(&context), installation_in)));
    tasks.spawn(named("restored keys", restored::run(Arc::clone(&context))));
    tasks.spawn(named("history", history::run(Arc::clone(&context))));
    tasks.spawn(named("takeover of sites", history::take_over(Arc::clone(&context), taken_over)));
    tasks.spawn(named("attempts", attempts::poll(Arc::clone(&context))));
    tasks.spawn(named("cluster role bindings", tenant::conformance::follow(Arc::clone(&context))));
    tasks.spawn(named("sweep of generated objects", tenant::children::sweep(Arc::clone(&context))));
    tasks.spawn(named("watchdog", stall::keep(Arc::clone(&context))));
    let CacheSync { tenants: tenants_listed, devices: devices_listed, sites: sites_listed } = context.listed.clone();
    tasks.spawn(named("sweep of tenants", sweep::run(Api::all(client.clone()), tenants.clone(), tenants_listed, tenants_again, unread.0)));
    tasks.spawn(named("sweep of devices", sweep::run(Api::all(client.clone()), devices.clone(), devices_listed, devices_again, unread.1)));
    tasks.spawn(named("sweep of sites", sweep::run(Api::all(client), sites.clone(), sites_listed, sites_again, unread.2)));
    tasks.spawn(named("tenants", tenant_controller(tenant_stream, tenants, everything, tenants_to_wake, Arc::clone(&context))));
    tasks.spawn(named("devices", device_controller(device_stream, devices, devices_to_wake, Arc::clone(&context))));
    tasks.spawn(named("sites", site_controller(site_stream, sites, sites_to_wake, context)));
    let ended = tasks.join_next().await.and_then(Result::ok).unwrap_or("unknown");
    Err(Ended(ended)) // dropping the set stops the others
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

/// What fills a cache.
struct Feed<K: Resource<DynamicType = ()> + Clone + 'static> {
    writer: reflector::store::Writer<K>,
    unreadable: UnreadableObjects,
    /// Told when the cache holds everything.
    listed: watch::Sender<bool>,
    /// Has the watch begin from the beginning.
    again: Arc<Notify>,
}

fn cache<K: Resource<DynamicType = ()> + Clone + 'static>() -> (Store<K>, watch::Receiver<bool>, Feed<K>) {
    let ((store, writer), (listed, is_listed)) = (reflector::store(), watch::channel(false));
    (store, is_listed, Feed { writer, unreadable: UnreadableObjects::default(), listed, again: Arc::default() })
}

/// Says whenever something changes on which every group depends: its objects, or its status alone.
fn everything(context: &Arc<Context>) -> impl Stream<Item = ()> + Send + use<> {
    let foundations = futures::stream::select_all([
        WatchStream::from_changes(context.ca_bundle.clone()).map(|_| ()).boxed(),
        WatchStream::from_changes(context.keys.clone()).map(|_| ()).boxed(),
        apiserver_moves(&context.client).boxed(),
    ]);
    let doubting = Arc::clone(context);
    let foundations = foundations.inspect(move |()| doubting.sync_cache.invalidate_all());
    let installation = WatchStream::from_changes(context.installation.clone()).map(|_| ());
    futures::stream::select_all([
        foundations.boxed(),
        WatchStream::from_changes(context.reports.clone()).map(|_| ()).boxed(),
        installation.boxed(),
    ])
}

async fn named(name: &'static str, task: impl Future<Output = ()>) -> &'static str {
    task.await;
    name
}

fn watch_config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE).streaming_lists()
}

/// Watches one of our kinds into its cache, and has each event heard. Changes of status and of anything else that is not declared do not
/// reconcile.
fn main_stream<K, H>(
    api: Api<Decoded<K>>,
    feed: Feed<K>,
    context: &Context,
    hear: H,
) -> impl Stream<Item = Result<K, watcher::Error>> + Send + use<K, H>
where
    H: Fn(&watcher::Event<K>) + Send,
    K: Declared + Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (Feed { writer, unreadable, listed, again }, is_history_kept) = (feed, context.journal.is_kept());
    let (cache, events, metrics) = (writer.as_reader(), Arc::clone(&context.events), Arc::clone(&context.metrics));
    let reader = Reader { cache, unreadable, events, metrics };
    let begin = move || {
        let again = Arc::clone(&again);
        watcher(api.clone(), watch_config()).default_backoff().take_until(async move { again.notified().await })
    };
    futures::stream::repeat_with(begin)
        .flatten()
        .filter_map(move |event| futures::future::ready(event.map(|event| reader.read(event)).transpose()))
        .modify(move |object| history::trim(object, is_history_kept))
        .reflect(writer)
        .inspect(move |event| {
            let Ok(event) = event else { return };
            hear(event);
            if matches!(event, watcher::Event::InitDone) {
                listed.send_replace(true);
            }
        })
        .applied_objects()
        .predicate_filter(predicates::generation.combine(predicates::finalizers), PredicateConfig::default())
}

/// Says whenever the apiserver answers at other addresses.
fn apiserver_moves(client: &Client) -> impl Stream<Item = ()> + Send + use<> {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), APISERVER_NAMESPACE);
    let config = watcher::Config::default().timeout(WATCH_SECONDS).fields(&format!("metadata.name={APISERVER}"));
    watcher(api, config).default_backoff().touched_objects().filter_map(|slice| futures::future::ready(slice.is_ok().then_some(())))
}

async fn tenant_controller(
    stream: impl Stream<Item = Result<Tenant, watcher::Error>> + Send + 'static,
    store: Store<Tenant>,
    everything: impl Stream<Item = ()> + Send + 'static,
    wake: mpsc::UnboundedReceiver<ObjectRef<Tenant>>,
    context: Arc<Context>,
) {
    let (generated, everybody) = (WatchScope::Generated, WatchScope::All);
    Controller::for_stream(stream, store)
        .with_config(controller::Config::default().concurrency(8).debounce(Duration::from_millis(200)))
        .watches_stream(follow::<PartialObjectMeta<Namespace>>(generated, watch_config(), &context), |object| tenant_of(&object))
        .watches_stream(follow::<PartialObjectMeta<NetworkPolicy>>(everybody, watch_config(), &context), |object| tenant_of(&object))
        .watches_stream(follow::<ResourceQuota>(generated, watch_config(), &context), |object| tenant_of(&object))
        .watches_stream(follow::<PartialObjectMeta<LimitRange>>(generated, watch_config(), &context), |object| tenant_of(&object))
        .watches_stream(follow::<PartialObjectMeta<ServiceAccount>>(generated, watch_config(), &context), |object| tenant_of(&object))
        .watches_stream(follow::<PartialObjectMeta<RoleBinding>>(everybody, watch_config(), &context), |object| tenant_of(&object))
        .watches_stream(follow::<PartialObjectMeta<CronJob>>(generated, watch_config(), &context), |object| tenant_of(&object))
        .reconcile_all_on(everything)
        .reconcile_on(UnboundedReceiverStream::new(wake))
        .run(tenant::reconcile, |tenant, error, context| after_error(tenant::KIND, &*tenant, error, &context), context)
        .for_each(|result| {
            log(&result);
            futures::future::ready(())
        })
        .await;
}

async fn device_controller(
    stream: impl Stream<Item = Result<Device, watcher::Error>> + Send + 'static,
    store: Store<Device>,
    wake: mpsc::UnboundedReceiver<ObjectRef<Device>>,
    context: Arc<Context>,
) {
    Controller::for_stream(stream, store)
        .with_config(controller::Config::default().concurrency(16).debounce(Duration::from_millis(300)))
        .reconcile_on(UnboundedReceiverStream::new(wake))
        .run(device::reconcile, |device, error, context| after_error(device::KIND, &*device, error, &context), context)
        .for_each(|result| {
            log(&result);
            futures::future::ready(())
        })
        .await;
}

async fn site_controller(
    stream: impl Stream<Item = Result<Site, watcher::Error>> + Send + 'static,
    store: Store<Site>,
    wake: mpsc::UnboundedReceiver<ObjectRef<Site>>,
    context: Arc<Context>,
) {
    Controller::for_stream(stream, store)
        .with_config(controller::Config::default().concurrency(8).debounce(Duration::from_millis(300)))
        .reconcile_on(UnboundedReceiverStream::new(wake))
        .run(site::reconcile, |site, error, context| after_error(site::KIND, &*site, error, &context), context)
        .for_each(|result| {
            log(&result);
            futures::future::ready(())
        })
        .await;
}

/// Errors of reconciles are logged where the back-off is decided; an object that has gone meanwhile is none.
fn log<K: Resource, E: std::error::Error + 'static>(result: &Result<(ObjectRef<K>, Action), controller::Error<E, watcher::Error>>)
where
    K::DynamicType: std::hash::Hash + Eq + Debug + Clone,
{
    if let Err(controller::Error::QueueError(error)) = result {
        tracing::warn!(error = tsujiban_core::error::chain(error), "a watch was interrupted; it starts again by itself");
    }
}
