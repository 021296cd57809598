//! The cache of a kind, which a watch fills.

use std::sync::Arc;

use kube::Resource;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::watch;

/// The objects of a kind as the watch has reported them. It can be stale, so no data is erased because of what it holds. Clones share it.
#[derive(Clone)]
pub struct Cache<K: Resource<DynamicType = ()> + Clone + 'static> {
    store: Store<K>,
    /// Whether the first list is complete. The store does not serve for this: of several tasks that wait for a store, kube wakes only the
    /// last one.
    synced: watch::Receiver<bool>,
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Cache<K> {
    pub fn new(store: Store<K>, synced: watch::Receiver<bool>) -> Self {
        Self { store, synced }
    }

    /// A cache that is not filled by a watch.
    pub fn synced(store: Store<K>) -> Self {
        Self { store, synced: watch::channel(true).1 }
    }

    /// Whether the cache holds every object.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Waits until the cache holds every object.
    pub async fn wait_for_sync(&self) {
        let _stopping = self.synced.clone().wait_for(|synced| *synced).await.is_err(); // fails only while the process ends
    }

    pub fn get(&self, object: &ObjectRef<K>) -> Option<Arc<K>> {
        self.store.get(object)
    }

    /// All objects.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.store.state()
    }

    /// The objects of a namespace.
    pub fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        self.list().into_iter().filter(|object| object.meta().namespace.as_deref() == Some(namespace)).collect()
    }

    /// The store, for a controller of kube.
    pub fn store(&self) -> Store<K> {
        self.store.clone()
    }
}
