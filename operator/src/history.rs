//! The operator's part of the operation history (C5): what people do by kubectl to Tenants, Sites and Devices, as far as it is seen.
//!
//! The objects themselves are the memory of what is still to be recorded. An object says in its status which generation of its spec is in
//! the history; the namespace of a group says it of the group's Sites, which have no status. Whatever is newer is recorded, and counts as
//! recorded when the audit service has acknowledged it. So a crash loses nothing, and what it repeats has the same id and is one entry.

mod digest;
mod journal;
mod observe;
mod send;
mod sites;
mod wire;

pub use digest::digest;
pub use journal::Journal;
pub use observe::{Observation, Sight, What, observe};
pub use send::run;
pub use sites::{Memory, Seen, Sites, changes, follow, keep, may_go_along};
pub use wire::entry;

use std::time::Duration;

use kube::{Resource, ResourceExt};
use serde::Serialize;
use tsujiban_api::Recorded;
use tsujiban_core::id::GroupId;

use crate::context::Context;

/// How long an acknowledgement is waited for, so that one write of a status serves for that, too. Much longer than it takes while all is well.
const SETTLE: Duration = Duration::from_millis(500);
/// The same before something is let go that is deleted.
const SETTLE_DELETION: Duration = Duration::from_secs(5);

/// Notes what has happened to an object since `said`, which its status says. Waits for nothing.
pub fn look<K: Resource>(context: &Context, kind: Kind, group: &GroupId, object: &K, spec: &impl Serialize, said: Option<&Recorded>) {
    if let Some(sight) = Sight::of(kind, group, object, spec, context.changes_are_stamped) {
        let known = context.journal.recorded(&sight.uid, said);
        context.journal.attend(&sight.uid);
        context.journal.note(&observe(known.as_ref(), &sight), context.clock.now());
    }
}

/// What of an object's spec is recorded by now, for its status.
pub async fn recorded<K: Resource>(context: &Context, object: &K, said: Option<&Recorded>) -> Option<Recorded> {
    let uid = object.uid().unwrap_or_default();
    context.journal.settle(&uid, SETTLE).await;
    context.journal.leave(&uid); // what is acknowledged from now on wakes it
    context.journal.recorded(&uid, said)
}

/// Whether the deletion of an object is recorded, so that it may be let go: once it has gone, nothing tells of it any more.
pub async fn may_go<K: Resource>(context: &Context, object: &K) -> bool {
    let uid = object.uid().unwrap_or_default();
    context.journal.settle(&uid, SETTLE_DELETION).await;
    context.journal.leave(&uid);
    context.journal.is_deletion_recorded(&uid)
}

/// A kind that people declare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Tenant,
    Site,
    Device,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Tenant, Self::Site, Self::Device];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "Tenant",
            Self::Site => "Site",
            Self::Device => "Device",
        }
    }

    /// The function of the history that it belongs to.
    pub const fn function(self) -> &'static str {
        match self {
            Self::Tenant => "tenants",
            Self::Site => "sites",
            Self::Device => "devices",
        }
    }
}
