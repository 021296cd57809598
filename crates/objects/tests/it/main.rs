//! The same of every storage: of the one in memory, and of a real S3 gateway.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::as_conversions)] // helpers of tests are tests too

mod contract;
mod gateway;
