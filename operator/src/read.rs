//! What a watch of our kinds says, object by object: those that this version understands go on to the cache, the others are told of.

use std::sync::Arc;

use kube::Resource;
use kube::runtime::events::EventType;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Event;
use tsujiban_api::{Decoded, Unreadable};

use crate::events::Events;
use crate::metrics::Metrics;
use crate::state::unreadable::UnreadableObjects;

/// The reason of the Event of an object that is not understood.
const NOT_UNDERSTOOD: &str = "NotUnderstood";

/// Reads the events of one kind.
#[derive(Clone)]
pub struct Reader<K: Resource<DynamicType = ()> + Clone + 'static> {
    pub cache: Store<K>,
    pub unreadable: UnreadableObjects,
    pub events: Arc<Events>,
    pub metrics: Arc<Metrics>,
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Reader<K> {
    /// The event as the cache has to hear it; `None`: it need not.
    pub fn read(&self, event: Event<Decoded<K>>) -> Option<Event<K>> {
        let read = match event {
            Event::Init => {
                self.unreadable.clear();
                Some(Event::Init)
            }
            Event::InitDone => Some(Event::InitDone),
            Event::InitApply(object) => self.object(object).map(Event::InitApply),
            // one that was understood in an earlier state stays in the cache as it was, until everything is listed anew
            Event::Apply(object) => self.object(object).map(Event::Apply),
            Event::Delete(object) => {
                self.unreadable.forget(object.meta());
                match object.read() {
                    Ok(object) => Some(Event::Delete(object)),
                    Err(unreadable) => self.cached(&unreadable).map(Event::Delete),
                }
            }
        };
        self.metrics.unreadable_objects(&K::kind(&()), self.unreadable.count());
        read
    }

    fn object(&self, object: Decoded<K>) -> Option<K> {
        match object.read() {
            Ok(object) => {
                self.unreadable.forget(object.meta());
                Some(object)
            }
            Err(unreadable) => {
                if self.unreadable.note(&unreadable.metadata) {
                    self.tell(*unreadable);
                }
                None
            }
        }
    }

    fn cached(&self, Unreadable { metadata, .. }: &Unreadable) -> Option<K> {
        let reference = ObjectRef::new(metadata.name.as_deref().unwrap_or_default());
        let reference = match &metadata.namespace {
            Some(namespace) => reference.within(namespace),
            None => reference,
        };
        self.cache.get(&reference).map(|object| (*object).clone())
    }

    fn tell(&self, Unreadable { metadata, why }: Unreadable) {
        let kind = K::kind(&());
        let (namespace, name) = (metadata.namespace.clone(), metadata.name.clone().unwrap_or_default());
        tracing::error!(%kind, namespace, name, why, "an object is not understood by this version; it is left as it is, and all others go on");
        let object: Decoded<K> = Decoded::Unreadable(Box::new(Unreadable { metadata, why: String::new() }));
        let (about, events) = (kube::Resource::object_ref(&object, &()), Arc::clone(&self.events));
        let note = format!(
            "this version of Tsujiban does not understand the {kind}: {why}. It is left as it is; install the version that wrote it, or correct it"
        );
        tokio::spawn(async move { events.tell(&about, EventType::Warning, NOT_UNDERSTOOD, note).await });
    }
}
