//! The audit service: the operation history of every group, which nobody can alter (C5).

pub mod archive;
pub mod bodies;
pub mod covered;
mod domain;
pub mod engine;
mod erasures;
pub mod error;
pub mod export;
pub mod jobs;
pub mod lifecycle;
pub mod metrics;
pub mod owner;
pub mod reading;
pub mod rebuild;
pub mod retention;
pub mod roots;
pub mod rotation;
pub mod rpc;
pub mod scrub;
pub mod seals;
pub mod service;
pub mod settings;
pub mod signing;
pub mod snapshot;
pub mod start;
pub mod synchronised;
pub mod tiles;
