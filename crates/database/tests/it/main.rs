//! The same on SQLite and on a real PostgreSQL.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::as_conversions)] // helpers of tests are tests too

mod both;
mod connect;
mod faults;
mod files;
mod schema;
mod server;
