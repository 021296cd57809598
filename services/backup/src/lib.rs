//! The backup service: receives configs of devices, seals them, stores them under a lock, and deletes them when they have expired. It keeps
//! the commitments C22 to C25 for configs, and tests every day that the storage holds its locks.

mod adopt;
pub mod attempt;
pub mod canary;
pub mod catalogue;
pub mod damage;
pub mod device;
pub mod envelope;
pub mod erasure_record;
pub mod error;
pub mod expiry;
pub mod export;
pub mod holding;
pub mod hostkey;
pub mod intake;
pub mod jobs;
pub mod keyloss;
pub mod keys;
pub mod keytable;
pub mod life;
pub mod lifecycle;
pub mod marker;
pub mod metrics;
pub mod object;
pub mod program;
pub mod reading;
pub mod rebuild;
mod renewal;
pub mod rotation;
mod rows;
pub mod rpc;
pub mod scrub;
pub mod service;
pub mod start;
mod wire;
pub mod wrappings;
mod writing;
