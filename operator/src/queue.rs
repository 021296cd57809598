//! The queue of a controller, for objects that have to be reconciled though their watch reports no change.

use kube::Resource;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Adds objects of a kind to the queue of its controller. Clones share the queue.
#[derive(Clone)]
pub struct Queue<K: Resource<DynamicType = ()>>(UnboundedSender<ObjectRef<K>>);

impl<K: Resource<DynamicType = ()>> Queue<K> {
    /// A queue, and the end that its controller reads.
    pub fn new() -> (Self, UnboundedReceiver<ObjectRef<K>>) {
        let (sender, receiver) = unbounded_channel();
        (Self(sender), receiver)
    }

    /// Has an object reconciled soon.
    pub fn add(&self, object: &K) {
        self.add_ref(ObjectRef::from_obj(object));
    }

    /// The same by its name.
    pub fn add_ref(&self, object: ObjectRef<K>) {
        let _closed = self.0.send(object); // fails only while the process ends
    }
}
