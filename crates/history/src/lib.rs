//! The tamper-evident operation history (C5), without any I/O: the entries, the Merkle tree over all entries of a log, the signed
//! statements, the exports, and the offline verification by an auditor.
//!
//! Nothing here depends on tokio, tonic, a database or Kubernetes. Callers pass time, randomness, keys and stored hashes.

pub mod archive;
pub mod checkpoint;
mod decimal;
pub mod export;
pub mod id;
pub mod leaf;
pub mod merkle;
pub mod note;
pub mod operation;
pub mod origin;
pub mod roots;
pub mod show;
pub mod tile;
pub mod verify;

pub use checkpoint::Checkpoint;
pub use id::{DayKeyId, EntryId, LogId};
pub use leaf::Leaf;
pub use merkle::{Hash, TreeHead};
pub use note::{SigningKey, VerifierKey};
pub use operation::Operation;
pub use origin::{EnvironmentOrigin, Origin, OriginDomain};
pub use roots::RootList;
pub use verify::{Report, Verdict, Verifier};

pub use tsujiban_core::history::{Day, InvalidTime, JST, JstTime};
