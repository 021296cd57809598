//! Objects of our kinds that this version does not understand: a newer one wrote them, before it was rolled back. They are in no cache, and nothing
//! is done with them: they are neither reconciled nor erased, and keep their finalizers. They are told of, and stop no others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Namespace and name.
type Key = (Option<String>, String);

/// The unreadable objects of one kind, each with the version in which it was seen. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct UnreadableObjects(Arc<Mutex<BTreeMap<Key, String>>>);

impl UnreadableObjects {
    /// Notes one. Answers whether that state of it is new.
    pub fn note(&self, metadata: &ObjectMeta) -> bool {
        let version = metadata.resource_version.clone().unwrap_or_default();
        self.objects().insert(key(metadata), version.clone()) != Some(version)
    }

    /// One that is understood now, or gone. Answers whether it was not before.
    pub fn forget(&self, metadata: &ObjectMeta) -> bool {
        self.objects().remove(&key(metadata)).is_some()
    }

    /// Everything is listed anew.
    pub fn clear(&self) {
        self.objects().clear();
    }

    /// Whether this state of the object, or a later one, was seen and not understood.
    pub fn knows(&self, namespace: Option<&str>, name: &str, version: u64) -> bool {
        let key = (namespace.map(str::to_owned), name.to_owned());
        self.objects().get(&key).and_then(|seen| seen.parse().ok()).is_some_and(|seen: u64| seen >= version)
    }

    pub fn count(&self) -> usize {
        self.objects().len()
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<Key, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(metadata: &ObjectMeta) -> Key {
    (metadata.namespace.clone(), metadata.name.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(version: &str) -> ObjectMeta {
        let named = ObjectMeta { namespace: Some("tn-acme".into()), name: Some("tokyo-1".into()), ..ObjectMeta::default() };
        ObjectMeta { resource_version: Some(version.into()), ..named }
    }

    #[test]
    fn each_state_of_an_object_is_news_once() {
        let unreadable = UnreadableObjects::default();
        assert!(unreadable.note(&object("5")) && !unreadable.note(&object("5")) && unreadable.note(&object("6")));
        assert!(unreadable.knows(Some("tn-acme"), "tokyo-1", 6) && !unreadable.knows(Some("tn-acme"), "tokyo-1", 7));
        assert!(!unreadable.knows(None, "tokyo-1", 6));
        assert_eq!(unreadable.count(), 1);
        assert!(unreadable.forget(&object("7")) && !unreadable.forget(&object("7")));
    }
}
