//! The backup service: takes configs of devices in, seals them, stores them under a lock, and lets them go when their time has
//! come. It keeps the commitments C22 to C25 for configs, and proves every day that the storage keeps its part.

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
