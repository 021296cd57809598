//! Which Devices share a serial number. Every reconcile of a Device needs that, and comparing ten thousand Devices with ten thousand others
//! takes seconds.
//!
//! From the events of the watch of Devices this keeps a fingerprint of each serial number with one of the Device that has it. It may hold
//! pairs that are no longer true, but lacks none. So a Device without a match is the only one, and for a match the caller checks the cache
//! itself.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kube::ResourceExt;
use kube::runtime::watcher::Event;
use tsujiban_api::Device;

use crate::fingerprint::fingerprint;

/// The serial numbers of all Devices.
#[derive(Debug, Default)]
pub struct Serials(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Pairs of serial number and Device.
    held: BTreeSet<(u64, u64)>,
    /// The pairs from the list that is in progress.
    listing: BTreeSet<(u64, u64)>,
    /// The uids of Devices that are known to have the number of another Device.
    in_conflict: HashSet<String>,
}

impl Serials {
    /// Applies an event of the watch.
    pub fn observe(&self, event: &Event<Device>) {
        let mut state = self.state();
        match event {
            Event::Apply(device) => {
                state.held.insert(pair(device));
            }
            Event::Delete(device) => {
                state.held.remove(&pair(device));
            }
            Event::Init => state.listing.clear(),
            Event::InitApply(device) => {
                let pair = pair(device);
                state.held.insert(pair);
                state.listing.insert(pair);
            }
            Event::InitDone => state.held = std::mem::take(&mut state.listing),
        }
    }

    /// Whether another Device may have the same serial number.
    pub fn may_be_shared(&self, device: &Device) -> bool {
        let (serial, holder) = pair(device);
        self.state().held.range((serial, 0)..=(serial, u64::MAX)).any(|(_, other)| *other != holder)
    }

    /// Notes whether a Device has the number of another one. Returns how many such Devices are known.
    pub fn note(&self, device: &Device, is_duplicate: bool) -> usize {
        let (mut state, uid) = (self.state(), device.uid().unwrap_or_default());
        if is_duplicate {
            state.in_conflict.insert(uid);
        } else {
            state.in_conflict.remove(&uid);
        }
        state.in_conflict.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pair(device: &Device) -> (u64, u64) {
    (fingerprint(&device.spec.serial_number), fingerprint(&device.metadata.uid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn device(uid: &str, serial: &str) -> Device {
        serde_json::from_value(json!({
            "apiVersion": "tsujiban.dev/v1alpha1", "kind": "Device", "metadata": {"name": uid, "uid": uid},
            "spec": {"siteRef": {"name": "s"}, "serialNumber": serial, "driver": "Frr", "connection": {"host": "192.0.2.1"}},
        }))
        .unwrap()
    }

    #[test]
    fn those_that_share_a_number_find_each_other() {
        let serials = Serials::default();
        let (one, other, third) = (device("a", "S1"), device("b", "S1"), device("c", "S2"));
        for device in [&one, &third, &one] {
            serials.observe(&Event::Apply(device.clone()));
        }
        assert!(!serials.may_be_shared(&one) && serials.may_be_shared(&other), "also by one that is not in here yet");
        serials.observe(&Event::Apply(other.clone()));
        assert!(serials.may_be_shared(&one) && serials.may_be_shared(&other) && !serials.may_be_shared(&third));
        serials.observe(&Event::Delete(one));
        assert!(!serials.may_be_shared(&other));
    }

    /// What goes while no watch runs is missing in the next list; until that is whole, nobody is forgotten.
    #[test]
    fn a_list_that_is_whole_replaces_what_was_known() {
        let serials = Serials::default();
        let (one, other) = (device("a", "S1"), device("b", "S1"));
        serials.observe(&Event::Apply(one));
        serials.observe(&Event::Init);
        serials.observe(&Event::InitApply(other.clone()));
        assert!(serials.may_be_shared(&other));
        serials.observe(&Event::InitDone);
        assert!(!serials.may_be_shared(&other));
        serials.observe(&Event::Init);
        serials.observe(&Event::InitDone);
        assert!(!serials.may_be_shared(&device("c", "S1")));
    }

    #[test]
    fn a_conflict_counts_once_and_until_it_is_over() {
        let serials = Serials::default();
        let (one, other) = (device("a", "S1"), device("b", "S1"));
        assert_eq!([&one, &one, &other].map(|device| serials.note(device, true)), [1, 1, 2]);
        assert_eq!((serials.note(&one, false), serials.note(&one, false)), (1, 1));
    }
}
