//! The audit service: the operation history of every group, which nobody can alter (C5).

pub mod engine;
pub mod hashing;
pub mod keyring;
pub mod leaf;
pub mod owner;
