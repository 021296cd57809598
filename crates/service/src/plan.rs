//! The plan of a group, for figures: Prime has an SLO (C19), Free has none.

/// A plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    Free,
    Prime,
}

/// Knows the plans of groups. Asked at the end of each call, so it answers from memory.
pub trait Plans: Send + Sync + 'static {
    /// The plan of a group; `None` for one that is not known.
    fn plan(&self, group: &str) -> Option<Plan>;
}

/// Knows no plan.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unplanned;

impl Plans for Unplanned {
    fn plan(&self, _group: &str) -> Option<Plan> {
        None
    }
}

/// All values of the label `plan`.
pub(crate) const LABELS: [&str; 3] = ["free", "prime", "none"];

/// The value of the label `plan`. It is `none` for a call without a group, and for an unknown group.
pub(crate) const fn label(plan: Option<Plan>) -> &'static str {
    match plan {
        Some(Plan::Free) => "free",
        Some(Plan::Prime) => "prime",
        None => "none",
    }
}
