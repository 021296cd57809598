//! The service as its callers see it: over TLS, with a real SQLite, and a storage in memory or a real S3 gateway.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::as_conversions)] // helpers of tests are tests too

/// The same tests run with PostgreSQL from tests/postgresql.rs.
const POSTGRES: bool = false;

mod canary;
mod compare;
mod crowd;
mod damage;
mod disk;
mod erasure;
mod export;
mod forgetting;
mod intake;
mod isolation;
mod keyloss;
mod keys;
mod keytable;
mod lives;
mod past;
mod reading;
mod rebuild;
mod recovery;
mod retention;
mod revealing;
mod rows;
mod scrub;
mod sealed;
mod stage;
mod start;
mod store_down;
mod writing;
