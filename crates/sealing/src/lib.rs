//! Envelope encryption: a master key wraps epoch keys, an epoch key wraps data keys, a data key seals customer data.
//!
//! When a key of one layer is lost, everything below it is unreadable; erasure works by destroying data keys. All encryption is AES-256-GCM
//! by ring with random nonces. The associated data names the class and the record of each sealed text, so that it cannot be decrypted in
//! the place of another one. Keys are zeroized when they are dropped, and never printed.
//!
//! There is no storage here, and no clock is read. Keys are read from mounted files ([`files`]) and kept in a [`Keyring`]. Each service stores
//! its wrapped data keys itself.

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
