//! What all controllers share. Nothing in it belongs to one kind: whatever else a controller needs is in its own context.

use std::sync::Arc;

use kube::Client;
use tsujiban_core::clock::Clock;

use crate::backoff::Backoff;
use crate::events::Events;
use crate::metrics::Metrics;

/// What every reconcile is given. Clones share it.
#[derive(Clone)]
pub struct Shared {
    pub client: Client,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub backoff: Arc<Backoff>,
    pub events: Arc<Events>,
}
