//! Conversations of the operator with the apiserver and the backup service, and what it builds. One binary.

// a test that cannot go on must panic; clippy knows tests only inside #[test] functions, and this whole crate is tests
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod apiserver;
mod build;
mod client;
mod conformance;
mod device;
mod history;
mod installation;
mod keys;
mod lease;
mod rotation;
mod site;
mod takeover;
mod tenant;
mod world;
