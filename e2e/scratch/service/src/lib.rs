//! The scratch service: keeps one counter for each group.

pub mod lifecycle;
pub mod program;
pub mod rpc;
pub mod service;
