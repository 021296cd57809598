//! Tiles and proofs. What is stored are leaves and the roots of whole tiles; everything else follows from them.

use tsujiban_database::on;
use tsujiban_history::merkle::{
    Hash, HashReader as _, Node, ProofError, consistency_nodes, inclusion_nodes, leaf_hash, prove_consistency, prove_inclusion, root_of,
};
use tsujiban_history::tile::{MissingTile, TileId, TileSet, WIDTH, encode_bundle, tiles_of};

use super::Log;
use crate::error::{Error, Result};
use crate::service::Audit;

impl Audit {
    /// The hashes of a tile, as many as its width says.
    pub async fn tile(&self, log: i64, tile: TileId) -> Result<Vec<Hash>> {
        let first = tile.index.saturating_mul(u64::from(WIDTH));
        let end = first.saturating_add(u64::from(tile.width));
        let hashes = if tile.level == 0 {
            self.leaves(log, first, end).await?.iter().map(|leaf| leaf_hash(leaf)).collect()
        } else {
            self.nodes(log, tile.level, first, end).await?
        };
        if hashes.len() == usize::from(tile.width) {
            Ok(hashes)
        } else {
            Err(Error::Damaged(format!("{} of log {log} has {} hashes", tile.path(), hashes.len())))
        }
    }

    /// The bundle with the entries of a tile of level 0.
    pub async fn bundle(&self, log: i64, index: u64, width: u16) -> Result<Vec<u8>> {
        let first = index.saturating_mul(u64::from(WIDTH));
        let leaves = self.leaves(log, first, first.saturating_add(u64::from(width))).await?;
        if leaves.len() != usize::from(width) {
            return Err(Error::Damaged(format!("bundle {index} of log {log} has {} entries", leaves.len())));
        }
        encode_bundle(leaves.iter().map(Vec::as_slice)).map_err(|error| Error::Damaged(error.to_string()))
    }

    /// The hashes from the leaf's sibling up to the root of the tree of this size, which the log must have reached.
    pub async fn prove_inclusion(&self, log: &Log, sequence: u64, size: u64) -> Result<Vec<Hash>> {
        let tiles = self.tiles(log, &inclusion_nodes(sequence, size), size).await?;
        prove_inclusion(&tiles, sequence, size).map_err(|error| unproven(log, &error))
    }

    /// That the tree of one size grew into that of another one.
    pub async fn prove_consistency(&self, log: &Log, old: u64, new: u64) -> Result<Vec<Hash>> {
        let tiles = self.tiles(log, &consistency_nodes(old, new), new).await?;
        prove_consistency(&tiles, old, new).map_err(|error| unproven(log, &error))
    }

    /// The root that the log had at a size which it has reached, computed from its leaves.
    pub async fn root_at(&self, log: &Log, size: u64) -> Result<Hash> {
        if size == log.size() {
            return Ok(log.head().root);
        }
        let tiles = self.tiles(log, &Node::cover(0, size), size).await?;
        root_of(&tiles, size).map_err(|error| unproven(log, &error))
    }

    /// The hashes of whole subtrees of a tree of this size.
    pub async fn hashes(&self, log: &Log, nodes: &[Node], size: u64) -> Result<Vec<Hash>> {
        let tiles = self.tiles(log, nodes, size).await?;
        let missing = |error: MissingTile| Error::Damaged(format!("log {}: {error}", log.id));
        nodes.iter().map(|node| tiles.read(*node).map_err(missing)).collect()
    }

    async fn tiles(&self, log: &Log, nodes: &[Node], size: u64) -> Result<TileSet> {
        let mut tiles = TileSet::new();
        for tile in tiles_of(nodes, size) {
            tiles.insert(tile.level, tile.index, self.tile(log.number, tile).await?);
        }
        Ok(tiles)
    }

    async fn leaves(&self, log: i64, first: u64, end: u64) -> Result<Vec<Vec<u8>>> {
        const OF: &str = "SELECT leaf FROM entries WHERE log = $1 AND sequence >= $2 AND sequence < $3 ORDER BY sequence";
        Ok(on!(self.database.reads(), p => sqlx::query_scalar(OF)
            .bind(log).bind(first.cast_signed()).bind(end.cast_signed()).fetch_all(p).await)?)
    }

    async fn nodes(&self, log: i64, level: u8, first: u64, end: u64) -> Result<Vec<Hash>> {
        const OF: &str = "SELECT hash FROM nodes WHERE log = $1 AND level = $2 AND number >= $3 AND number < $4 ORDER BY number";
        let rows: Vec<Vec<u8>> = on!(self.database.reads(), p => sqlx::query_scalar(OF)
            .bind(log).bind(i64::from(level)).bind(first.cast_signed()).bind(end.cast_signed()).fetch_all(p).await)?;
        let hash = |row: Vec<u8>| row.try_into().map(Hash::from_bytes).map_err(|_| Error::Damaged(format!("a node of log {log}")));
        rows.into_iter().map(hash).collect()
    }
}

fn unproven(log: &Log, error: &ProofError<MissingTile>) -> Error {
    Error::Damaged(format!("log {}: {error}", log.id))
}
