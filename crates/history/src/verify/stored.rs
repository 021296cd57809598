//! Checks stored tiles and entry bundles of a log against its signed head.

use crate::merkle::{Node, Range, leaf_hash};
use crate::tile::{Path, TileId, WIDTH, parse_bundle, parse_tile};
use crate::{Hash, Leaf, TreeHead};

/// A source of the tiles and the bundles of a log.
pub trait TileSource {
    type Error;
    fn tile(&mut self, tile: TileId) -> Result<Vec<u8>, Self::Error>;
    /// The entries whose hashes are in the tile of level 0 with this number and width.
    fn bundle(&mut self, index: u64, width: u16) -> Result<Vec<u8>, Self::Error>;
}

/// The first flaw that was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoredFlaw {
    #[error("{path} is cut, too long or not made of entries")]
    Malformed { path: Path },
    #[error("entry {sequence} in {} is not the one whose hash the log has", path(*.sequence, *.size))]
    Entry { sequence: u64, size: u64 },
    #[error("hash {place} of {} is not that of what is below it", .tile.path())]
    Hash { tile: TileId, place: u64 },
    #[error("tiles and bundles agree with one another, and not with the root of {size} entries")]
    Root { size: u64 },
}

fn path(sequence: u64, size: u64) -> String {
    Path::entries(sequence / u64::from(WIDTH), size).map_or_else(String::new, |path| path.to_string())
}

/// Reads every bundle and every tile once. Memory: one hash for 256 entries.
pub fn verify_stored<S: TileSource>(source: &mut S, head: TreeHead) -> Result<Result<(), StoredFlaw>, S::Error> {
    let mut walk = Walk { tree: Range::empty(0), differing: None, misplaced: None, stored: Vec::new() };
    for tile in (0..).map_while(|index| TileId::of(0, index, head.size)) {
        let path = Path::Entries { index: tile.index, width: tile.width };
        let bundle = source.bundle(tile.index, tile.width)?;
        let hashes = source.tile(tile)?;
        let Ok(entries) = parse_bundle(&bundle, tile.width) else { return Ok(Err(StoredFlaw::Malformed { path })) };
        let Ok(hashes) = parse_tile(tile, &hashes) else { return Ok(Err(StoredFlaw::Malformed { path: tile.path() })) };
        entries.iter().zip(hashes).for_each(|(entry, hash)| walk.take(entry, hash));
    }
    let leads_to_root = walk.tree.root() == Some(head.root);
    if let Some(sequence) = walk.differing {
        // entries that lead to the root are right, so the tile is wrong
        let tile = TileId::of(0, sequence / u64::from(WIDTH), head.size).filter(|_| leads_to_root);
        let entry = StoredFlaw::Entry { sequence, size: head.size };
        return Ok(Err(tile.map_or(entry, |tile| StoredFlaw::Hash { tile, place: sequence % u64::from(WIDTH) })));
    }
    if !leads_to_root {
        return Ok(Err(StoredFlaw::Root { size: head.size }));
    }
    if let Some(sequence) = walk.misplaced {
        return Ok(Err(StoredFlaw::Entry { sequence, size: head.size }));
    }
    for tile in crate::tile::all_tiles(head.size).filter(|tile| tile.level > 0) {
        let hashes = source.tile(tile)?;
        let Ok(hashes) = parse_tile(tile, &hashes) else { return Ok(Err(StoredFlaw::Malformed { path: tile.path() })) };
        if let Some(place) = walk.differing_above(tile, &hashes) {
            return Ok(Err(StoredFlaw::Hash { tile, place }));
        }
    }
    Ok(Ok(()))
}

struct Walk {
    tree: Range,
    /// The first entry whose hash differs from the one in its tile.
    differing: Option<u64>,
    /// The first entry whose leaf has another sequence number or cannot be parsed.
    misplaced: Option<u64>,
    /// The hashes that tiles of levels above 0 have to contain, level by level.
    stored: Vec<Vec<Hash>>,
}

impl Walk {
    fn take(&mut self, entry: &[u8], in_tile: Hash) {
        let (sequence, hash) = (self.tree.end(), leaf_hash(entry));
        if hash != in_tile {
            self.differing.get_or_insert(sequence);
        }
        if !Leaf::parse(entry).is_ok_and(|leaf| leaf.sequence == sequence) {
            self.misplaced.get_or_insert(sequence);
        }
        let stored = &mut self.stored;
        let above = |node: Node, hash| {
            if let Some((level, ..)) = TileId::place(node).filter(|(level, ..)| *level > 0) {
                let level = usize::from(level);
                stored.resize_with(stored.len().max(level), Vec::new);
                stored.iter_mut().skip(level - 1).take(1).for_each(|hashes| hashes.push(hash));
            }
        };
        // cannot fail: no tree of a size that TileId accepts is full
        let _ = self.tree.append_hash(hash, above);
    }

    fn differing_above(&self, tile: TileId, found: &[Hash]) -> Option<u64> {
        let level = self.stored.get(usize::from(tile.level).checked_sub(1)?)?;
        let begin = usize::try_from(tile.index).ok()?.checked_mul(WIDTH.into())?;
        let wanted = level.get(begin..begin.checked_add(found.len())?)?;
        wanted.iter().zip(found).zip(0..).find(|((wanted, found), _)| wanted != found).map(|(_, place)| place)
    }
}
