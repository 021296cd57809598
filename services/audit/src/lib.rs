//! The audit service: the operation history of every group, which nobody can alter (C5).

pub mod bodies;
pub mod engine;
pub mod owner;
