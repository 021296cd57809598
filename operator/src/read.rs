//! Reads the watch events of our kinds: objects that this version can parse go on to the cache, the others are reported.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::runtime::events::EventType;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Event;
use tsujiban_api::{Decoded, Unreadable};

use crate::events::Events;
use crate::metrics::Metrics;
use crate::state::unreadable::UnreadableObjects;

/// The reason of the Event of an object that cannot be parsed.
const NOT_UNDERSTOOD: &str = "NotUnderstood";

/// For at most how many unreadable objects of a kind there are Events. The log and the metric cover all of them.
const TOLD: usize = 100;

/// Reads the events of one kind.
#[derive(Clone)]
pub struct Reader<K: Resource<DynamicType = ()> + Clone + 'static> {
    pub cache: Store<K>,
    pub unreadable: UnreadableObjects,
    pub events: Arc<Events>,
    pub metrics: Arc<Metrics>,
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Reader<K> {
    /// The event for the cache. `None` if the cache does not need it.
    pub fn read(&self, event: Event<Decoded<K>>) -> Option<Event<K>> {
        let read = match event {
            Event::Init => {
                self.unreadable.begin_list();
                Some(Event::Init)
            }
            Event::InitDone => {
                self.unreadable.end_list();
                Some(Event::InitDone)
            }
            Event::InitApply(object) => self.object(object).ok().map(Event::InitApply),
            // an object that could be parsed in an earlier state leaves the cache, so that no reconcile acts on that state
            Event::Apply(object) => {
                self.object(object).map_or_else(|metadata| self.cached(&metadata).map(Event::Delete), |it| Some(Event::Apply(it)))
            }
            Event::Delete(object) => {
                self.unreadable.forget(object.meta());
                match object.read() {
                    Ok(object) => Some(Event::Delete(object)),
                    Err(unreadable) => self.cached(&unreadable.metadata).map(Event::Delete),
                }
            }
        };
        self.metrics.unreadable_objects(&K::kind(&()), self.unreadable.count());
        read
    }

    fn object(&self, object: Decoded<K>) -> Result<K, Box<ObjectMeta>> {
        match object.read() {
            Ok(object) => {
                self.unreadable.forget(object.meta());
                Ok(object)
            }
            Err(unreadable) => {
                if self.unreadable.note(&unreadable) {
                    self.tell(&unreadable);
                }
                Err(Box::new(unreadable.metadata))
            }
        }
    }

    fn cached(&self, metadata: &ObjectMeta) -> Option<K> {
        let reference = ObjectRef::new(metadata.name.as_deref().unwrap_or_default());
        let reference = match &metadata.namespace {
            Some(namespace) => reference.within(namespace),
            None => reference,
        };
        self.cache.get(&reference).map(|object| (*object).clone())
    }

    fn tell(&self, unreadable: &Unreadable) {
        let Unreadable { metadata, why, .. } = unreadable;
        let kind = K::kind(&());
        let (namespace, name) = (metadata.namespace.clone(), metadata.name.clone().unwrap_or_default());
        tracing::error!(%kind, namespace, name, why, "an object is not understood by this version; it is left as it is, and all others go on");
        if self.unreadable.count() > TOLD {
            return;
        }
        let object: Decoded<K> = Decoded::Unreadable(Box::new(unreadable.clone()));
        let (about, events) = (kube::Resource::object_ref(&object, &()), Arc::clone(&self.events));
        let note = format!(
            "this version of Tsujiban does not understand the {kind}: {why}. It is left as it is; install the version that wrote it, or correct it"
        );
        tokio::spawn(async move { events.tell(&about, EventType::Warning, NOT_UNDERSTOOD, note).await });
    }
}
