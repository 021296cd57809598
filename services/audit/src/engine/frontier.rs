//! The right edge of a Merkle tree, which is all that growing it needs.

use crate::hashing::{Hash, node_hash, sha256};

/// Hashes that are stored: of complete subtrees over 256, 65,536, ... leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// The level of tiles: 1 over 256 leaves, 2 over 65,536.
    pub level: u8,
    pub number: u64,
    pub hash: Hash,
}

/// How many levels of the tree lie in one tile (C2SP tlog-tiles).
pub const TILE_HEIGHT: u32 = 8;

/// The size of a tree, and the roots of its largest complete subtrees, the largest first: one for each bit of the size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// From what [`peaks`](Self::to_bytes) gave; `None` when they are not those of a tree of this size.
    pub fn from_bytes(size: u64, peaks: &[u8]) -> Option<Self> {
        let (peaks, rest) = peaks.as_chunks::<32>();
        let fits = rest.is_empty() && usize::try_from(size.count_ones()).is_ok_and(|ones| ones == peaks.len());
        fits.then(|| Self { size, peaks: peaks.to_vec() })
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        self.peaks.concat()
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf, and tells of each tile that it completes.
    pub fn push(&mut self, leaf: Hash, mut completed: impl FnMut(Node)) {
        let (mut hash, mut height) = (leaf, 0);
        while (self.size >> height) & 1 == 1 {
            let Some(left) = self.peaks.pop() else { break };
            hash = node_hash(&left, &hash);
            height += 1;
            if height % TILE_HEIGHT == 0 {
                let level = u8::try_from(height / TILE_HEIGHT).unwrap_or(u8::MAX);
                completed(Node { level, number: self.size >> height, hash });
            }
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// The root of the tree (RFC 6962, section 2.1).
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        match peaks.next() {
            Some(last) => peaks.fold(*last, |right, left| node_hash(left, &right)),
            None => sha256(&[]),
        }
    }
}
