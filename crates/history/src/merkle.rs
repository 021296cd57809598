//! The Merkle tree of RFC 6962, section 2.1, with SHA-256.
//!
//! A tree is never in memory as a whole. Appending needs only its [`Range`] of at most 63 hashes. A proof reads the few nodes that it
//! needs through a [`HashReader`]. Code that reads asynchronously first asks which nodes are needed ([`inclusion_nodes`],
//! [`consistency_nodes`], [`Node::cover`]), fetches their tiles, and makes the proof from a [`crate::tile::TileSet`].

mod hash;
mod node;
mod proof;
mod range;
mod verify;

pub use hash::{Hash, InvalidHash, leaf_hash, node_hash, sha256};
pub use node::{MAX_SIZE, Node};
pub use proof::{HashReader, ProofError, consistency_nodes, inclusion_nodes, prove_consistency, prove_inclusion, root_of};
pub use range::{Range, RangeError};
pub use verify::{NotProven, root_from_inclusion, verify_consistency, verify_inclusion};

use serde::{Deserialize, Serialize};

/// The number of entries of a log, and the root hash of its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeHead {
    pub size: u64,
    pub root: Hash,
}

#[cfg(test)]
mod tests;
