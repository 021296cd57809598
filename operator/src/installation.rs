//! What the chart has installed around the operator: the services' StatefulSets, and the admission policies. Looked at every 20 s; what is gone
//! or changed is told within a minute, by conditions of the Tenants and by metrics. Only the chart puts it back.

mod chart;
mod look;
mod policies;
mod recorded;
mod stamps;

use std::collections::BTreeMap;

pub use chart::{Chart, LookError};
pub use look::{Inspector, Watching, confirm, run};
pub use policies::{Fault, Wrong};
pub use stamps::{Observation, Stamps};

use tsujiban_core::workload::Service;

/// What was seen last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Installation {
    /// Services that nobody has looked for yet are not in it.
    pub workloads: BTreeMap<Service, Workload>,
    /// `None` until that is known, which takes two looks where something is wrong.
    pub policies: Option<Policies>,
}

impl Installation {
    pub fn workload(&self, service: Service) -> Option<Workload> {
        self.workloads.get(&service).copied()
    }

    /// Whether all policies stand as the chart has them.
    pub fn policies_are_in_force(&self) -> bool {
        self.policies.as_ref().is_some_and(|policies| policies.faults.is_empty())
    }
}

/// The StatefulSet of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    Standing,
    ScaledDown,
    Missing,
}

/// How the admission policies stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policies {
    /// What is not as the chart has it, at two looks one after the other. An upgrade changes policies one by one.
    pub faults: Vec<Fault>,
}
