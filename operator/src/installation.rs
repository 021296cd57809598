//! Checks what the chart has installed around the operator: the services' StatefulSets, and the admission policies. A check runs every 20
//! s, and reports what is missing or changed within a minute, by conditions of the Tenants and by metrics. Only the chart restores it.

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

/// The result of the last check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Installation {
    /// Services that were not checked yet are not in it.
    pub workloads: BTreeMap<Service, Workload>,
    /// `None` until that is known, which takes two checks if something is wrong.
    pub policies: Option<Policies>,
}

impl Installation {
    pub fn workload(&self, service: Service) -> Option<Workload> {
        self.workloads.get(&service).copied()
    }

    /// Whether all policies are installed as the chart has them.
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

/// The state of the admission policies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policies {
    /// What differed from the chart in two checks in a row. One is not enough, since an upgrade changes policies one by one.
    pub faults: Vec<Fault>,
}
