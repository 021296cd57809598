//! What a controller needs of the operation history.

use std::sync::Arc;
use std::time::Duration;

use kube::{Resource, ResourceExt};
use tsujiban_api::Recorded;
use tsujiban_core::clock::Clock;
use tsujiban_core::id::GroupId;

use super::{Declared, Journal, ObjectSnapshot, observe};

/// How long a reconcile waits for an acknowledgement, so that a single write of the status covers it as well. Much longer than one normally
/// takes.
const SETTLE: Duration = Duration::from_millis(500);
/// The same before a deleted object is released.
const SETTLE_DELETION: Duration = Duration::from_secs(5);

/// Notes what is to be recorded of declared objects, and says what is recorded by now. Clones share the journal.
#[derive(Clone)]
pub struct Recorder {
    pub journal: Arc<Journal>,
    pub clock: Arc<dyn Clock>,
    /// Whether the apiserver stamps declared objects with who changed them.
    pub changes_are_stamped: bool,
}

impl Recorder {
    /// Notes what has happened to an object since the generation that its status says is recorded. Does not wait.
    pub fn record_changes<K: Declared>(&self, group: &GroupId, object: &K) {
        if let Some(snapshot) = ObjectSnapshot::of(K::KIND, group, object, object.spec(), self.changes_are_stamped) {
            let known = self.journal.recorded(&snapshot.uid, object.recorded_in_status());
            self.journal.begin_reconcile(&snapshot.uid);
            self.journal.note(&observe(known.as_ref(), &snapshot), self.clock.now());
        }
    }

    /// The newest recorded spec of an object, for its status.
    pub async fn recorded<K: Declared>(&self, object: &K) -> Option<Recorded> {
        let uid = object.uid().unwrap_or_default();
        self.journal.settle(&uid, SETTLE).await;
        self.journal.end_reconcile(&uid); // from now on, an acknowledgement queues the object
        self.journal.recorded(&uid, object.recorded_in_status())
    }

    /// Whether the deletion of an object is recorded, so that it may be released: once it is gone, nothing is left from which to record it.
    pub async fn deletion_recorded<K: Resource>(&self, object: &K) -> bool {
        let uid = object.uid().unwrap_or_default();
        self.journal.settle(&uid, SETTLE_DELETION).await;
        self.journal.end_reconcile(&uid);
        self.journal.is_deletion_recorded(&uid)
    }
}
