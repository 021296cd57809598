//! How an attempt to back up a device ends.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why an attempt stored nothing. The names are what people see in a Device's status and in the collector's summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reason {
    /// The device did not answer in time, or stopped answering.
    Timeout,
    /// The device refused the credentials, or there are none.
    Auth,
    /// The device showed another host key than the pinned or given one.
    HostKeyMismatch,
    /// A password may not be offered yet: the host key is neither given nor confirmed.
    HostKeyUnconfirmed,
    /// The device's address is outside the declared networks, or inside a forbidden one.
    AddressNotAllowed,
    /// The config came without its end marker, or the stream was cut.
    Truncated,
    /// The device sent something that is not understood.
    Protocol,
    /// The config was fetched, but could not be stored.
    Store,
}

impl Reason {
    pub const ALL: [Self; 8] = [
        Self::Timeout,
        Self::Auth,
        Self::HostKeyMismatch,
        Self::HostKeyUnconfirmed,
        Self::AddressNotAllowed,
        Self::Truncated,
        Self::Protocol,
        Self::Store,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "Timeout",
            Self::Auth => "Auth",
            Self::HostKeyMismatch => "HostKeyMismatch",
            Self::HostKeyUnconfirmed => "HostKeyUnconfirmed",
            Self::AddressNotAllowed => "AddressNotAllowed",
            Self::Truncated => "Truncated",
            Self::Protocol => "Protocol",
            Self::Store => "Store",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
