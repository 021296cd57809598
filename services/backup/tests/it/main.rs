//! The service as its callers see it: over TLS, with a real SQLite, and a storage in memory or a real S3 gateway.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::as_conversions)] // helpers of tests are tests too

mod canary;
mod erasure;
mod export;
mod intake;
mod isolation;
mod keys;
mod lives;
mod past;
mod reading;
mod rebuild;
mod recovery;
mod retention;
mod sealed;
mod stage;
mod start;
mod store_down;
