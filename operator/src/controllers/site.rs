//! The controller of Sites. A Site has no data of its own: nothing is erased with it, and its finalizer has one purpose, that no Site goes
//! before its creation, its changes and its deletion are in the operation history.

mod context;
pub mod decide;
mod namespace;
pub mod status;

use std::sync::Arc;
use std::time::Duration;

use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use tokio::sync::watch;
use tsujiban_api::site::condition;
use tsujiban_api::{Site, names};
use tsujiban_core::id::GroupId;

use crate::backoff::spread;
use crate::condition::is_true;
use crate::finalizer;
use crate::reconcile::{Failure, StepFailed, at, name, observed};
use decide::{Decision, Evidence, Life, decide};

pub use context::SiteContext;
pub use namespace::namespace_is_deletable;

pub const KIND: &str = "Site";
/// How often a Site is reconciled, and how often while something of it is not recorded yet. The acknowledgement adds it to the queue, too.
const RESYNC: Duration = Duration::from_mins(5);
const RESYNC_NOT_RECORDED: Duration = Duration::from_secs(20);

/// Whether a Site is recorded in the operation history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HistoryScope {
    /// In a group's namespace, and there is a history.
    Recorded(GroupId),
    /// In a group's namespace, and there is no history.
    Unrecorded,
    /// In a namespace that belongs to no group. Policies refuse such Sites.
    Outside,
}

impl HistoryScope {
    fn of(namespace: &str, is_history_kept: bool) -> Self {
        match names::group_of_namespace(namespace) {
            Some(group) if is_history_kept => Self::Recorded(group),
            Some(_) => Self::Unrecorded,
            None => Self::Outside,
        }
    }
}

pub async fn reconcile(site: Arc<Site>, context: Arc<SiteContext>) -> Result<Action, Failure> {
    observed(&context.shared, KIND, &name(site.as_ref()), Box::pin(run(&context, &site))).await
}

async fn run(context: &SiteContext, site: &Site) -> Result<Action, StepFailed> {
    let namespace = site.namespace().unwrap_or_default();
    let api: Api<Site> = Api::namespaced(context.shared.client.clone(), &namespace);
    let scope = HistoryScope::of(&namespace, context.recorder.journal.is_kept());
    let (has_finalizer, is_deleted) = (finalizer::is_set(site), site.metadata.deletion_timestamp.is_some());
    let mut life = if is_deleted { Life::Deleted } else { Life::Existing };
    if let HistoryScope::Recorded(group) = &scope
        && (has_finalizer || !is_deleted)
    {
        wait_for_takeover(&context.taken_over).await; // else Sites that an operator of 0.1.x recorded would count as new
        context.recorder.record_changes(group, site);
        if is_deleted && context.recorder.deletion_recorded(site).await {
            life = Life::DeletionRecorded;
        }
    }
    let evidence = Evidence { is_recorded_here: matches!(scope, HistoryScope::Recorded(_)), has_finalizer, life };
    match decide(evidence) {
        Decision::AddFinalizer => {
            finalizer::add(&api, site).await.map_err(at("finalizer"))?;
            Ok(Action::requeue(RESYNC_NOT_RECORDED)) // the change comes back as an event
        }
        Decision::RemoveFinalizer => {
            finalizer::release(&api, site).await.map_err(at("finalizer"))?;
            if is_deleted {
                context.recorder.journal.forget(&site.uid().unwrap_or_default());
            }
            Ok(Action::requeue(spread(RESYNC, &name(site))))
        }
        Decision::Wait => {
            tracing::warn!(site = name(site), "the deletion of a site is not in the operation history yet; the site waits for that");
            write_status(context, &api, site, &scope).await?;
            Ok(Action::requeue(RESYNC_NOT_RECORDED))
        }
        Decision::WriteStatus => {
            let is_ready = write_status(context, &api, site, &scope).await?;
            let is_settled = is_ready || !evidence.is_recorded_here;
            Ok(Action::requeue(spread(if is_settled { RESYNC } else { RESYNC_NOT_RECORDED }, &name(site))))
        }
        Decision::Nothing => Ok(Action::await_change()),
    }
}

/// Writes the status, and returns whether the Site is ready.
async fn write_status(context: &SiteContext, api: &Api<Site>, site: &Site, scope: &HistoryScope) -> Result<bool, StepFailed> {
    let recorded = context.recorder.recorded(site).await;
    let status = status::status(site, scope, recorded, context.shared.clock.now());
    status::write(api, site, &status).await.map_err(at("status"))?;
    Ok(is_true(&status.conditions, condition::READY))
}

async fn wait_for_takeover(taken_over: &watch::Receiver<bool>) {
    let _stopping = taken_over.clone().wait_for(|taken_over| *taken_over).await.is_err(); // fails only while the process ends
}
