use std::collections::BTreeMap;

use super::{HEIGHT, TileId, WIDTH};
use crate::merkle::{Hash, HashReader, Node, node_hash};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is {found} bytes long, not {wanted}", tile.path())]
pub struct InvalidTile {
    pub tile: TileId,
    pub found: usize,
    pub wanted: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no tile here has the hash of subtree {} of level {}", node.index, node.level)]
pub struct MissingTile {
    pub node: Node,
}

/// A tile's bytes: its hashes one after the other.
pub fn encode_tile(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(Hash::as_bytes).copied().collect()
}

pub fn parse_tile(tile: TileId, bytes: &[u8]) -> Result<Vec<Hash>, InvalidTile> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    if !rest.is_empty() || hashes.len() != usize::from(tile.width) {
        return Err(InvalidTile { tile, found: bytes.len(), wanted: usize::from(tile.width) * 32 });
    }
    Ok(hashes.iter().copied().map(Hash::from_bytes).collect())
}

/// Fetched tiles. Computes the hash of every subtree within them, also at levels that tiles do not store.
#[derive(Debug, Clone, Default)]
pub struct TileSet(BTreeMap<(u8, u64), Vec<Hash>>);

impl TileSet {
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces a tile that is already in the set only by a wider one.
    pub fn insert(&mut self, level: u8, index: u64, hashes: Vec<Hash>) {
        let tile = self.0.entry((level, index)).or_default();
        if hashes.len() > tile.len() {
            *tile = hashes;
        }
    }

    /// Stores the hash of a subtree that became whole as a log grew, if tiles store this node. Returns the tile's level and number.
    pub fn store(&mut self, node: Node, hash: Hash) -> Option<(u8, u64)> {
        let (level, index, place) = TileId::place(node)?;
        let tile = self.0.entry((level, index)).or_default();
        (tile.len() == usize::from(place)).then(|| tile.push(hash))?;
        Some((level, index))
    }

    pub fn get(&self, level: u8, index: u64) -> Option<&[Hash]> {
        self.0.get(&(level, index)).map(Vec::as_slice)
    }
}

impl HashReader for TileSet {
    type Error = MissingTile;

    fn read(&self, node: Node) -> Result<Hash, MissingTile> {
        let (level, height) = (node.level / HEIGHT, node.level % HEIGHT);
        let tile = self.get(level, node.index >> (HEIGHT - height)).ok_or(MissingTile { node })?;
        // a whole tile has 256 >> height nodes at this height, each above 1 << height hashes of the tile
        let within = node.index & u64::from((WIDTH >> height) - 1);
        let begin = usize::try_from(within << height).map_err(|_| MissingTile { node })?;
        let hashes = tile.get(begin..begin + (1 << height)).ok_or(MissingTile { node })?;
        Ok(whole_root(hashes))
    }
}

/// The hash of a whole subtree, from a power of two of hashes below it.
pub(crate) fn whole_root(hashes: &[Hash]) -> Hash {
    match hashes {
        [] => Hash::EMPTY,
        [one] => *one,
        more => {
            let (left, right) = more.split_at(more.len() / 2);
            node_hash(&whole_root(left), &whole_root(right))
        }
    }
}
