//! The gRPC contracts as Rust types, and the mapping of errors to `google.rpc.Status`.

#[allow(clippy::all, clippy::pedantic, clippy::restriction, unreachable_pub, missing_docs)]
pub mod access {
    pub mod v1 {
        tonic::include_proto!("tsujiban.access.v1");
    }
}
#[allow(clippy::all, clippy::pedantic, clippy::restriction, unreachable_pub, missing_docs)]
pub mod lifecycle {
    pub mod v1 {
        tonic::include_proto!("tsujiban.lifecycle.v1");
    }
}
#[allow(clippy::all, clippy::pedantic, clippy::restriction, unreachable_pub, missing_docs)]
pub mod backup {
    pub mod v1 {
        tonic::include_proto!("tsujiban.backup.v1");
    }
}
#[allow(clippy::all, clippy::pedantic, clippy::restriction, unreachable_pub, missing_docs)]
pub mod audit {
    pub mod v1 {
        tonic::include_proto!("tsujiban.audit.v1");
    }
}

pub mod chart;
pub mod error;
pub mod fields;
pub mod functions;
pub mod rules;
pub mod time;

mod reason;

/// The descriptors of all contracts, with their options.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
