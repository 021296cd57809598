//! Envelope encryption: a master key wraps epoch keys, an epoch key wraps data keys, a data key seals customer data.
//!
//! Losing one of the three layers makes everything below it unreadable; that is how erasure works. Everything is AES-256-GCM
//! by ring with random nonces, and each sealed thing is bound to what it is and which record it belongs to, so that nothing
//! sealed can be put in the place of something else. Keys are zeroized when they are dropped and never printed.
//!
//! There is no storage here, and no clock is read. Keys are read as they are mounted ([`files`]) and kept in a [`Keyring`]; where
//! wrapped data keys lie is a service's business.

mod data;
mod epoch;
mod error;
pub mod files;
mod keyring;
mod master;
mod random;
mod secret;

pub use data::DataKey;
pub use epoch::{EpochKey, SealedEpochKey, WrappedKey};
pub use error::SealingError;
pub use keyring::{KeyError, Keyring, LiveEpoch, NewDataKey, OVERLAP, Wrapping};
pub use master::MasterKey;
pub use random::{Random, SystemRandom};
pub use secret::{Context, OVERHEAD};
