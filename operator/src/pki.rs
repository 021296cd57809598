//! Keys and certificates that the operator keeps in the system namespace: the internal CA, the backup service's serving
//! certificate, the master key and the epoch keys.

pub mod authority;
pub mod certificate;
pub mod epochs;
mod keeper;
pub mod master;
pub mod restored;
mod secrets;
pub mod serving;

pub use keeper::Keeper;

/// Whether the keys exist that the services need to seal data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keys {
    /// Not checked yet.
    Pending,
    Ready,
    /// They are gone, or are not those with which the data is sealed. The operator never makes new ones in their place.
    Missing(Loss),
}

/// Keys that only people can bring back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{advice}")]
pub struct Loss {
    pub layer: Layer,
    /// What is lost, and what to do.
    pub advice: String,
}

/// One of the two layers of keys that the operator makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    Master,
    Epochs,
}

impl Layer {
    /// The reason of condition KeysReady.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Master => "MasterKeyMissing",
            Self::Epochs => "EpochKeysMissing",
        }
    }
}

/// The start of a day, for tests that live through months.
#[cfg(test)]
fn day(day: i64) -> jiff::Timestamp {
    let start: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    start.checked_add(jiff::SignedDuration::from_hours(24 * day)).unwrap()
}
