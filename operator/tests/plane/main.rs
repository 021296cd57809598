//! The operator against a real apiserver with nobody else in it: a control plane without nodes, the rights and policies of the charts,
//! and a stand-in for the backup service. One binary; each test has a control plane of its own.

// a test that cannot go on must panic; clippy knows tests only inside #[test] functions, and this whole crate is tests
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod attacks;
mod attempt;
mod crashes;
mod finalizers;
mod handover;
mod history;
mod lost;
mod newer;
mod operator;
mod past;
mod recover;
mod replica;
mod rights;
mod settles;
mod sites;
mod snapshot;
mod soak;
mod stalls;
mod world;
