//! What a reconcile of a Site needs.

use tokio::sync::watch;

use crate::context::Shared;
use crate::history::Recorder;

pub struct SiteContext {
    pub shared: Shared,
    pub recorder: Recorder,
    /// Whether the Sites that an operator of 0.1.x recorded are taken over. Always false without a history.
    pub taken_over: watch::Receiver<bool>,
}
