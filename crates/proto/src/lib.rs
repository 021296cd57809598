//! The gRPC contracts as Rust types, and the mapping of errors to `google.rpc.Status`.

#[allow(clippy::all, clippy::pedantic, clippy::restriction, unreachable_pub, missing_docs)]
mod contracts {
    include!(concat!(env!("OUT_DIR"), "/contracts.rs"));
}
pub use self::contracts::*;

pub mod chart;
pub mod error;
pub mod fields;
pub mod functions;
pub mod rules;
pub mod time;

mod reason;

/// The descriptors of all contracts, with their options.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
