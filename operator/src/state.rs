//! What is remembered between reconciles and is not in the cluster. It knows no controller, and a restart costs nothing but asking again.

pub mod attempts;
pub mod conformance;
pub mod reports;
pub mod serials;
pub mod unreadable;
