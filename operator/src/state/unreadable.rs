//! Objects of our kinds that this version cannot parse: a newer one wrote them, before it was rolled back. They are in no cache, and
//! nothing is done with them: they are neither reconciled nor erased, and keep their finalizers. They are reported, and do not block
//! others. A serial number that they have stays taken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tsujiban_api::Unreadable;

/// Namespace and name.
type Key = (Option<String>, String);

/// What is known of an unreadable object.
#[derive(Debug, Clone, PartialEq, Eq)]
struct UnreadableObject {
    version: String,
    /// Of a Device: its serial number, and its claim to it. Of two Devices, the one created first has the claim; in the same second, the
    /// one with the lesser uid.
    serial: Option<String>,
    claim: (Option<Timestamp>, Option<String>),
}

#[derive(Debug, Default)]
struct State {
    known: BTreeMap<Key, UnreadableObject>,
    /// The unreadable objects in the list that is in progress.
    listed: BTreeSet<Key>,
}

/// The unreadable objects of one kind, each in its last observed state. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct UnreadableObjects(Arc<Mutex<State>>);

impl UnreadableObjects {
    /// Notes an unreadable object. Returns whether this version of it is new.
    pub fn note(&self, object: &Unreadable) -> bool {
        let mut state = self.state();
        let key = key(&object.metadata);
        let known = UnreadableObject {
            version: object.metadata.resource_version.clone().unwrap_or_default(),
            serial: object.spec.get("serialNumber").and_then(|serial| serial.as_str()).map(str::to_owned),
            claim: (object.metadata.creation_timestamp.as_ref().map(|time| time.0), object.metadata.uid.clone()),
        };
        state.listed.insert(key.clone());
        let before = state.known.insert(key, known.clone());
        before.is_none_or(|before| before.version != known.version)
    }

    /// Drops an object that can be parsed now, or is gone.
    pub fn forget(&self, metadata: &ObjectMeta) {
        let mut state = self.state();
        // usually there are none, and this is called for every object that can be parsed
        if !state.known.is_empty() {
            state.known.remove(&key(metadata));
        }
    }

    /// A new list begins. Until it is complete, nothing is dropped.
    pub fn begin_list(&self) {
        self.state().listed.clear();
    }

    pub fn end_list(&self) {
        let mut state = self.state();
        let listed = std::mem::take(&mut state.listed);
        state.known.retain(|key, _| listed.contains(key));
    }

    /// Whether this version of the object, or a later one, was unreadable.
    pub fn knows(&self, namespace: Option<&str>, name: &str, version: u64) -> bool {
        let key = (namespace.map(str::to_owned), name.to_owned());
        self.state().known.get(&key).and_then(|known| known.version.parse().ok()).is_some_and(|seen: u64| seen >= version)
    }

    /// Whether an unreadable Device has this serial number and an older claim to it than `before`.
    pub fn claims(&self, serial: &str, before: (Option<Timestamp>, Option<&String>)) -> bool {
        let before = (before.0, before.1.cloned());
        self.state().known.values().any(|known| known.serial.as_deref() == Some(serial) && known.claim < before)
    }

    pub fn count(&self) -> usize {
        self.state().known.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(metadata: &ObjectMeta) -> Key {
    (metadata.namespace.clone(), metadata.name.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(name: &str, version: &str) -> Unreadable {
        let named = ObjectMeta { namespace: Some("tn-acme".into()), name: Some(name.into()), ..ObjectMeta::default() };
        let metadata = ObjectMeta { resource_version: Some(version.into()), uid: Some(name.into()), ..named };
        Unreadable { metadata, spec: json!({"serialNumber": "SN1"}), why: String::new() }
    }

    #[test]
    fn each_state_of_an_object_is_news_once() {
        let unreadable = UnreadableObjects::default();
        assert!(unreadable.note(&object("a", "5")) && !unreadable.note(&object("a", "5")) && unreadable.note(&object("a", "6")));
        assert!(unreadable.knows(Some("tn-acme"), "a", 6) && !unreadable.knows(Some("tn-acme"), "a", 7));
        assert!(!unreadable.knows(None, "a", 6));
        unreadable.begin_list();
        assert!(!unreadable.note(&object("a", "6")), "a list tells nothing new");
        unreadable.end_list();
        assert_eq!(unreadable.count(), 1);
        unreadable.begin_list();
        unreadable.end_list();
        assert_eq!(unreadable.count(), 0, "it has gone while no watch ran");
    }

    /// C7: nobody gets the serial number of a Device that is there and not understood.
    #[test]
    fn a_serial_number_stays_held() {
        let unreadable = UnreadableObjects::default();
        unreadable.note(&object("a", "5"));
        let (older, younger) = ("A".to_owned(), "b".to_owned());
        assert!(unreadable.claims("SN1", (None, Some(&younger))) && !unreadable.claims("SN1", (None, Some(&older))));
        assert!(!unreadable.claims("SN2", (None, Some(&younger))));
    }
}
