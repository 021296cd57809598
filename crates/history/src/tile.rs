//! The files in which a log is served: tiles of hashes and bundles of entries, as C2SP tlog-tiles lays them out (height 8).

mod bundle;
mod path;
mod set;

pub use bundle::{InvalidBundle, MAX_ENTRY, encode_bundle, parse_bundle};
pub use path::{InvalidPath, Path};
pub(crate) use set::whole_root;
pub use set::{InvalidTile, MissingTile, TileSet, encode_tile, parse_tile};

use crate::merkle::{MAX_SIZE, Node};

/// How many hashes a whole tile, or how many entries a whole bundle, has.
pub const WIDTH: u16 = 256;
/// How many levels of the tree one tile spans.
pub const HEIGHT: u8 = 8;

/// One tile: number `index` of its level, of which the first `width` hashes exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileId {
    pub level: u8,
    pub index: u64,
    /// 1 to 256
    pub width: u16,
}

impl TileId {
    /// The tile as it is in a tree of `size` entries. `None` if it does not exist there.
    pub fn of(level: u8, index: u64, size: u64) -> Option<Self> {
        if size > MAX_SIZE {
            return None;
        }
        let hashes = size.checked_shr(u32::from(level).checked_mul(HEIGHT.into())?)?;
        let width = hashes.checked_sub(index.checked_mul(WIDTH.into())?)?.min(WIDTH.into());
        u16::try_from(width).ok().filter(|width| *width > 0).map(|width| Self { level, index, width })
    }

    /// The tile from which a node's hash is computed, in a tree of `size` entries.
    pub fn holding(node: Node, size: u64) -> Option<Self> {
        let (level, height) = (node.level / HEIGHT, node.level % HEIGHT);
        Self::of(level, node.index >> (HEIGHT - height), size)
    }

    /// Where tiles store a node's own hash: the tile's level, its number in that level, and the position in the tile. `None` for
    /// a node whose level is not a multiple of eight: tiles do not store it.
    pub fn place(node: Node) -> Option<(u8, u64, u8)> {
        let place = u8::try_from(node.index & 0xff).ok()?;
        node.level.is_multiple_of(HEIGHT).then_some((node.level / HEIGHT, node.index >> HEIGHT, place))
    }

    pub fn is_whole(self) -> bool {
        self.width == WIDTH
    }

    pub fn path(self) -> Path {
        Path::Tile(self)
    }
}

/// The tiles that hold these nodes in a tree of `size` entries, each once, in order.
pub fn tiles_of(nodes: &[Node], size: u64) -> Vec<TileId> {
    let tiles: std::collections::BTreeSet<TileId> = nodes.iter().filter_map(|node| TileId::holding(*node, size)).collect();
    tiles.into_iter().collect()
}

/// All tiles of a tree of `size` entries, level by level.
pub fn all_tiles(size: u64) -> impl Iterator<Item = TileId> {
    (0..HEIGHT).flat_map(move |level| (0..).map_while(move |index| TileId::of(level, index, size)))
}

#[cfg(test)]
mod tests;
