//! The domain of Tsujiban without any I/O: what the commitments say, and the decisions that keep them.
//!
//! Nothing here knows tokio, kube, tonic or a database. Time, randomness and data arrive as arguments.

pub mod address;
pub mod backoff;
pub mod clock;
pub mod commitments;
pub mod config;
pub mod driver;
pub mod error;
pub mod escape;
pub mod history;
pub mod id;
pub mod outcome;
pub mod retention;
pub mod schedule;
pub mod workload;
