//! The operator's part of the operation history (C5): what people do with kubectl to Tenants, Sites and Devices, as far as the operator
//! observes it.
//!
//! The objects themselves show what is still to be recorded: an object's status says which generation of its spec is in the history. Every
//! newer generation is recorded, and counts as recorded when the audit service has acknowledged it. So a crash loses nothing, and an entry
//! that is sent again after it has the same id and stays one entry.

mod digest;
mod journal;
mod kind;
mod ledger;
mod observe;
mod platform;
mod recorder;
mod send;
mod takeover;
mod wire;

pub use digest::digest;
pub use journal::Journal;
pub use kind::Kind;
use observe::CHANGED_AT;
pub use observe::{Change, ObjectSnapshot, Observation, note_change, observe};
pub use platform::{PlatformEvent, PlatformLog};
pub use recorder::Recorder;
pub use send::{Queues, Sender};
pub use takeover::Takeover;
pub use tsujiban_service::history::keeper::Keeper as Acknowledged;
pub use wire::entry;

use kube::core::object::HasSpec;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use tsujiban_api::names::ANNOTATION_CHANGED_BY;
use tsujiban_api::{Device, Recorded, Site, Tenant};

/// An object whose status says which spec is recorded.
pub trait Declared: Resource + HasSpec<Spec: Serialize> {
    const KIND: Kind;

    fn recorded_in_status(&self) -> Option<&Recorded>;
}

impl Declared for Tenant {
    const KIND: Kind = Kind::Tenant;

    fn recorded_in_status(&self) -> Option<&Recorded> {
        self.status.as_ref()?.recorded.as_ref()
    }
}

impl Declared for Site {
    const KIND: Kind = Kind::Site;

    fn recorded_in_status(&self) -> Option<&Recorded> {
        self.status.as_ref()?.recorded.as_ref()
    }
}

impl Declared for Device {
    const KIND: Kind = Kind::Device;

    fn recorded_in_status(&self) -> Option<&Recorded> {
        self.status.as_ref()?.recorded.as_ref()
    }
}

/// Removes from a cached object what no reader needs, about half of its size: the managed fields and the annotations. Who changed the
/// object, and when, stays until it is recorded.
pub fn trim<K: Declared>(object: &mut K, is_kept: bool) {
    note_change(object);
    let is_recorded = object.recorded_in_status().map(|recorded| recorded.generation) == object.meta().generation;
    let needed = is_kept && !is_recorded;
    object.annotations_mut().retain(|key, _| needed && (key == ANNOTATION_CHANGED_BY || key == CHANGED_AT));
    if !object.annotations().contains_key(ANNOTATION_CHANGED_BY) {
        object.meta_mut().annotations = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Who changed an object is kept as long as that is not in the history, and where there is one.
    #[test]
    fn a_cache_holds_who_changed_an_object_until_that_is_recorded() {
        let trimmed = |recorded: i64, is_kept: bool| {
            let mut device: Device = serde_json::from_value(json!({
                "apiVersion": "tsujiban.dev/v1alpha1", "kind": "Device",
                "metadata": {"name": "r1", "generation": 2, "creationTimestamp": "2026-01-02T00:00:00Z", "managedFields": [{"manager": "kubectl"}],
                    "annotations": {"tsujiban.dev/changed-by": "hanako", "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
                "spec": {"siteRef": {"name": "s"}, "serialNumber": "S1", "driver": "Frr", "connection": {"host": "192.0.2.1"}},
                "status": {"recorded": {"generation": recorded, "digest": "d"}},
            }))
            .unwrap();
            trim(&mut device, is_kept);
            assert!(device.managed_fields().is_empty());
            device.metadata.annotations
        };
        let kept = [("tsujiban.dev/changed-by", "hanako"), ("tsujiban.dev/changed-at", "2026-01-02T00:00:00Z")];
        let kept = Some(kept.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        assert_eq!((trimmed(1, true), trimmed(2, true), trimmed(1, false)), (kept, None, None));
    }
}
