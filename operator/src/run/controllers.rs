//! The three controllers: what triggers a reconcile of each kind.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{LimitRange, Namespace, ResourceQuota, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::Resource;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_stream::wrappers::{UnboundedReceiverStream, WatchStream};
use tsujiban_api::{Device, Site, Tenant};

use super::watches::{apiserver_moves, watch_config};
use crate::cache::Cache;
use crate::controllers::device::{self, DeviceContext};
use crate::controllers::site::{self, SiteContext};
use crate::controllers::tenant::children::{WatchScope, follow, tenant_of};
use crate::controllers::tenant::{self, TenantContext};
use crate::reconcile::after_error;

/// Reconciles Tenants for ever.
pub async fn tenants(
    stream: impl Stream<Item = Result<Tenant, watcher::Error>> + Send + 'static,
    cache: Cache<Tenant>,
    queue: UnboundedReceiver<ObjectRef<Tenant>>,
    context: Arc<TenantContext>,
) {
    let (generated, all) = (WatchScope::Generated, WatchScope::All);
    let (client, sync_cache) = (&context.shared.client, &context.sync_cache);
    Controller::for_stream(stream, cache.store())
        .with_config(controller::Config::default().concurrency(8).debounce(Duration::from_millis(200)))
        .watches_stream(follow::<PartialObjectMeta<Namespace>>(generated, watch_config(), client, sync_cache), |object| tenant_of(&object))
        .watches_stream(follow::<PartialObjectMeta<NetworkPolicy>>(all, watch_config(), client, sync_cache), |object| tenant_of(&object))
        .watches_stream(follow::<ResourceQuota>(generated, watch_config(), client, sync_cache), |object| tenant_of(&object))
        .watches_stream(follow::<PartialObjectMeta<LimitRange>>(generated, watch_config(), client, sync_cache), |object| tenant_of(&object))
        .watches_stream(follow::<PartialObjectMeta<ServiceAccount>>(generated, watch_config(), client, sync_cache), |object| {
            tenant_of(&object)
        })
        .watches_stream(follow::<PartialObjectMeta<RoleBinding>>(all, watch_config(), client, sync_cache), |object| tenant_of(&object))
        .watches_stream(follow::<PartialObjectMeta<CronJob>>(generated, watch_config(), client, sync_cache), |object| tenant_of(&object))
        .reconcile_all_on(foundations(&context))
        .reconcile_on(UnboundedReceiverStream::new(queue))
        .run(tenant::reconcile, |tenant, error, context| after_error(tenant::KIND, &*tenant, error, &context.shared.backoff), context)
        .for_each(|result| {
            log(&result);
            futures::future::ready(())
        })
        .await;
}

/// Emits an item whenever something changes on which every group depends. A change that affects generated objects also invalidates the sync
/// cache; one that affects only the status does not.
fn foundations(context: &TenantContext) -> impl Stream<Item = ()> + Send + use<> {
    let objects = futures::stream::select_all([
        WatchStream::from_changes(context.ca_bundle.clone()).map(|_| ()).boxed(),
        WatchStream::from_changes(context.keys.clone()).map(|_| ()).boxed(),
        apiserver_moves(&context.shared.client).boxed(),
    ]);
    let sync_cache = Arc::clone(&context.sync_cache);
    let objects = objects.inspect(move |()| sync_cache.invalidate_all());
    let installation = WatchStream::from_changes(context.installation.clone()).map(|_| ());
    futures::stream::select_all([
        objects.boxed(),
        WatchStream::from_changes(context.reports.clone()).map(|_| ()).boxed(),
        installation.boxed(),
    ])
}

/// Reconciles Devices for ever.
pub async fn devices(
    stream: impl Stream<Item = Result<Device, watcher::Error>> + Send + 'static,
    cache: Cache<Device>,
    queue: UnboundedReceiver<ObjectRef<Device>>,
    context: Arc<DeviceContext>,
) {
    Controller::for_stream(stream, cache.store())
        .with_config(controller::Config::default().concurrency(16).debounce(Duration::from_millis(300)))
        .reconcile_on(UnboundedReceiverStream::new(queue))
        .run(device::reconcile, |device, error, context| after_error(device::KIND, &*device, error, &context.shared.backoff), context)
        .for_each(|result| {
            log(&result);
            futures::future::ready(())
        })
        .await;
}

/// Reconciles Sites for ever.
pub async fn sites(
    stream: impl Stream<Item = Result<Site, watcher::Error>> + Send + 'static,
    cache: Cache<Site>,
    queue: UnboundedReceiver<ObjectRef<Site>>,
    context: Arc<SiteContext>,
) {
    Controller::for_stream(stream, cache.store())
        .with_config(controller::Config::default().concurrency(8).debounce(Duration::from_millis(300)))
        .reconcile_on(UnboundedReceiverStream::new(queue))
        .run(site::reconcile, |site, error, context| after_error(site::KIND, &*site, error, &context.shared.backoff), context)
        .for_each(|result| {
            log(&result);
            futures::future::ready(())
        })
        .await;
}

/// Logs errors of watches. Errors of reconciles are logged in [`after_error`], and an object that is gone meanwhile is no error.
fn log<K: Resource, E: std::error::Error + 'static>(result: &Result<(ObjectRef<K>, Action), controller::Error<E, watcher::Error>>)
where
    K::DynamicType: std::hash::Hash + Eq + Debug + Clone,
{
    if let Err(controller::Error::QueueError(error)) = result {
        tracing::warn!(error = tsujiban_core::error::chain(error), "a watch was interrupted; it starts again by itself");
    }
}
