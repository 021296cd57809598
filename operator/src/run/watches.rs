//! The watches that fill the caches.

use std::fmt::Debug;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{Predicate as _, PredicateConfig, WatchStreamExt, predicates, reflector, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};
use tsujiban_api::Decoded;

use crate::cache::Cache;
use crate::context::Shared;
use crate::controllers::tenant::dereference::{APISERVER, APISERVER_NAMESPACE};
use crate::history::{self, Declared};
use crate::read::Reader;
use crate::state::unreadable::UnreadableObjects;

/// A watch restarts after this long, and a dead connection is noticed 5 s later. Less than [`STALLED`](crate::stall::STALLED).
const WATCH_SECONDS: u32 = 30;
const PAGE: u32 = 100;

/// What fills a cache.
pub struct Feed<K: Resource<DynamicType = ()> + Clone + 'static> {
    pub writer: reflector::store::Writer<K>,
    pub unreadable: UnreadableObjects,
    /// Set to true when the cache holds every object.
    pub synced: watch::Sender<bool>,
    /// Restarts the watch.
    pub restart: Arc<Notify>,
}

/// An empty cache, and what fills it.
pub fn cache<K: Resource<DynamicType = ()> + Clone + 'static>() -> (Cache<K>, Feed<K>) {
    let ((store, writer), (synced, is_synced)) = (reflector::store(), watch::channel(false));
    (Cache::new(store, is_synced), Feed { writer, unreadable: UnreadableObjects::default(), synced, restart: Arc::default() })
}

pub fn watch_config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE).streaming_lists()
}

/// Watches one of our kinds into its cache, and passes each event to `observe`. A change of neither spec nor finalizers, such as of the
/// status, triggers no reconcile.
pub fn main_stream<K, H>(
    api: Api<Decoded<K>>,
    feed: Feed<K>,
    shared: &Shared,
    is_history_kept: bool,
    observe: H,
) -> impl Stream<Item = Result<K, watcher::Error>> + Send + use<K, H>
where
    H: Fn(&watcher::Event<K>) + Send,
    K: Declared + Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let Feed { writer, unreadable, synced, restart } = feed;
    let (cache, events, metrics) = (writer.as_reader(), Arc::clone(&shared.events), Arc::clone(&shared.metrics));
    let reader = Reader { cache, unreadable, events, metrics };
    let begin = move || {
        let restart = Arc::clone(&restart);
        watcher(api.clone(), watch_config()).default_backoff().take_until(async move { restart.notified().await })
    };
    futures::stream::repeat_with(begin)
        .flatten()
        .filter_map(move |event| futures::future::ready(event.map(|event| reader.read(event)).transpose()))
        .modify(move |object| history::trim(object, is_history_kept))
        .reflect(writer)
        .inspect(move |event| {
            let Ok(event) = event else { return };
            observe(event);
            if matches!(event, watcher::Event::InitDone) {
                synced.send_replace(true);
            }
        })
        .applied_objects()
        .predicate_filter(predicates::generation.combine(predicates::finalizers), PredicateConfig::default())
}

/// Emits an item whenever the addresses of the apiserver may have changed.
pub fn apiserver_moves(client: &Client) -> impl Stream<Item = ()> + Send + use<> {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), APISERVER_NAMESPACE);
    let config = watcher::Config::default().timeout(WATCH_SECONDS).fields(&format!("metadata.name={APISERVER}"));
    watcher(api, config).default_backoff().touched_objects().filter_map(|slice| futures::future::ready(slice.is_ok().then_some(())))
}
