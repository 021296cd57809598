//! What a reconcile of a Site needs.

use tokio::sync::watch;

use crate::context::Shared;
use crate::history::Recorder;

pub struct SiteContext {
    pub shared: Shared,
    pub recorder: Recorder,
    /// Whether what earlier operators noted of recorded Sites is taken over. Never without a history.
    pub taken_over: watch::Receiver<bool>,
}
