//! State that is kept in memory between reconciles, not in the cluster. It depends on no controller, and a restart costs only reading it
//! again.

pub mod attempts;
pub mod conformance;
pub mod reports;
pub mod serials;
pub mod unreadable;
