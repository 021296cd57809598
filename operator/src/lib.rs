//! The operator: turns Tenants and Devices into isolated namespaces whose routers are backed up.
//!
//! Every reconcile takes the same steps: dereference (read what it depends on), validate (pure), build (pure, cannot fail), apply
//! (in a safe order; what does not differ is not written), status.

pub mod apply;
pub mod attempts;
pub mod backoff;
pub mod cache;
pub mod condition;
pub mod connection;
pub mod context;
pub mod controllers;
mod crds;
pub mod deadline;
pub mod events;
pub mod fence;
mod finalizer;
mod fingerprint;
pub mod history;
pub mod http;
pub mod installation;
pub mod lease;
pub mod metrics;
mod namespace;
pub mod pki;
pub mod program;
pub mod queue;
pub mod read;
pub mod reconcile;
pub mod report;
pub mod retained;
pub mod run;
pub mod services;
pub mod settings;
pub mod stall;
pub mod state;
mod sweep;
