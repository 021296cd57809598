//! Tiles and proofs. The database has leaves and the roots of whole tiles; everything else is computed from them. Leaves are compared with
//! the stored hashes above them before they leave the service, and made again from their bodies if they are damaged.

use std::collections::BTreeMap;
use std::ops::Range;

use tsujiban_database::on;
use tsujiban_history::merkle::{
    Hash, HashReader, Node, ProofError, consistency_nodes, inclusion_nodes, leaf_hash, prove_consistency, prove_inclusion, root_of,
};
use tsujiban_history::tile::{HEIGHT, MissingTile, TileId, TileSet, WIDTH, encode_bundle, tiles_of};

use super::Log;
use super::bundle::{Bundle, root};
use super::keys::DayKeys;
use crate::error::{Error, Result};
use crate::service::Audit;

/// Hashes that a proof needs.
struct Hashes(BTreeMap<Node, Hash>);

impl HashReader for Hashes {
    type Error = MissingTile;
    fn read(&self, node: Node) -> Result<Hash, MissingTile> {
        self.0.get(&node).copied().ok_or(MissingTile { node })
    }
}

impl Audit {
    /// The hashes of a tile, as many as its width says.
    pub async fn tile(&self, log: &Log, tile: TileId) -> Result<Vec<Hash>> {
        let width = usize::from(tile.width);
        if tile.level == 0 {
            let leaves = self.leaves(log, tile.index).await?;
            return Ok(leaves.iter().take(width).map(|leaf| leaf_hash(leaf)).collect());
        }
        let first = tile.index.saturating_mul(u64::from(WIDTH));
        let hashes = self.nodes(log.number, tile.level, first..first.saturating_add(u64::from(tile.width))).await?;
        let hashes: Option<Vec<Hash>> = hashes.into_iter().collect();
        hashes.ok_or_else(|| Error::Damaged(format!("hashes of {} of log {} are missing", tile.path(), log.id)))
    }

    /// The bundle with the entries of a tile of level 0.
    pub async fn bundle(&self, log: &Log, index: u64, width: u16) -> Result<Vec<u8>> {
        let leaves = self.leaves(log, index).await?;
        let leaves = leaves.iter().take(width.into()).map(Vec::as_slice);
        encode_bundle(leaves).map_err(|error| Error::Damaged(error.to_string()))
    }

    /// The leaf of an entry.
    pub async fn leaf(&self, log: &Log, sequence: u64) -> Result<Vec<u8>> {
        let leaves = self.leaves(log, Bundle::of(sequence)).await?;
        let at = usize::try_from(sequence % u64::from(WIDTH)).unwrap_or(usize::MAX);
        leaves.into_iter().nth(at).ok_or_else(|| Error::Damaged(format!("entry {sequence} of log {}", log.id)))
    }

    /// The hashes from the leaf's sibling up to the root of the tree of this size, which the log must have reached.
    pub async fn prove_inclusion(&self, log: &Log, sequence: u64, size: u64) -> Result<Vec<Hash>> {
        let hashes = self.node_hashes(log, &inclusion_nodes(sequence, size), size).await?;
        prove_inclusion(&hashes, sequence, size).map_err(|error| unproven(log, &error))
    }

    /// The proof that the tree of size `old` grew into the tree of size `new`.
    pub async fn prove_consistency(&self, log: &Log, old: u64, new: u64) -> Result<Vec<Hash>> {
        let hashes = self.node_hashes(log, &consistency_nodes(old, new), new).await?;
        prove_consistency(&hashes, old, new).map_err(|error| unproven(log, &error))
    }

    /// The root that the log had at a size that it has reached, computed from its leaves.
    pub async fn root_at(&self, log: &Log, size: u64) -> Result<Hash> {
        if size == log.size() {
            return Ok(log.head().root);
        }
        let hashes = self.node_hashes(log, &Node::cover(0, size), size).await?;
        root_of(&hashes, size).map_err(|error| unproven(log, &error))
    }

    /// The hashes of whole subtrees of a tree of this size.
    pub async fn hashes(&self, log: &Log, nodes: &[Node], size: u64) -> Result<Vec<Hash>> {
        let hashes = self.node_hashes(log, nodes, size).await?;
        let missing = |error: MissingTile| Error::Damaged(format!("log {}: {error}", log.id));
        nodes.iter().map(|node| hashes.read(*node).map_err(missing)).collect()
    }

    /// Whether a leaf is in the tree, by the stored rows: the leaves of its subtree lead to a peak, or to the hash above its bundle.
    pub(crate) async fn is_in_tree(&self, log: &Log, sequence: u64, leaf: Hash) -> Result<bool> {
        let subtrees = self.subtrees(log, Bundle::of(sequence)).await?;
        let Some(subtree) = subtrees.into_iter().find(|subtree| subtree.holds(sequence)) else { return Ok(false) };
        let Some(leaves) = self.stored_leaves(log, subtree.begin..subtree.end).await? else { return Ok(false) };
        let hashes: Vec<Hash> = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
        let at = usize::try_from(sequence - subtree.begin).unwrap_or(usize::MAX);
        let is_there = hashes.get(at) == Some(&leaf);
        let Some(computed) = root(hashes).filter(|_| is_there) else { return Ok(false) };
        let is_peak = subtree.node.level < HEIGHT && subtree.hash == Some(computed);
        Ok(is_peak || self.leads_up(log, subtree.node, computed).await?)
    }

    /// Hashes of nodes, read from their tiles; those in a damaged tile are computed one by one.
    async fn node_hashes(&self, log: &Log, nodes: &[Node], size: u64) -> Result<Hashes> {
        let mut tiles = TileSet::new();
        for tile in tiles_of(nodes, size) {
            match self.tile(log, tile).await {
                Ok(hashes) => tiles.insert(tile.level, tile.index, hashes),
                Err(Error::Damaged(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let mut known = BTreeMap::new();
        for node in nodes {
            let hash = match tiles.read(*node) {
                Ok(hash) => hash,
                Err(_) => self.hash_of(log, *node).await?,
            };
            known.insert(*node, hash);
        }
        Ok(Hashes(known))
    }

    /// The hash of a node above damaged entries, if it can be computed nevertheless.
    async fn hash_of(&self, log: &Log, node: Node) -> Result<Hash> {
        let damaged = || Error::Damaged(format!("entries {:?} to before {:?} of log {}", node.begin(), node.end(), log.id));
        if node.level > 8 {
            // of these, only the hash over each bundle may differ from its row
            let mut hashes = Vec::new();
            for index in node.index << (node.level - 8)..(node.index + 1) << (node.level - 8) {
                let bundle = self.examine(log, index, &mut DayKeys::default()).await?;
                hashes.push(bundle.hash(Node { level: 8, index }).ok_or_else(damaged)?);
            }
            return root(hashes).ok_or_else(damaged);
        }
        let bundle = self.examine(log, Bundle::of(node.begin().ok_or_else(damaged)?), &mut DayKeys::default()).await?;
        bundle.hash(node).ok_or_else(damaged)
    }

    /// All leaves of a bundle of the log at its current size.
    pub(crate) async fn leaves(&self, log: &Log, index: u64) -> Result<Vec<Vec<u8>>> {
        if let Some(leaves) = self.stored_leaves(log, Bundle::span(index, log.size())).await? {
            let mut hashes = leaves.iter().map(|leaf| leaf_hash(leaf));
            let subtrees = self.subtrees(log, index).await?;
            let mut leads = |length: u64| root(hashes.by_ref().take(usize::try_from(length).unwrap_or(usize::MAX)).collect());
            if subtrees.iter().all(|subtree| subtree.hash.is_some() && leads(subtree.end - subtree.begin) == subtree.hash) {
                return Ok(leaves);
            }
        }
        let bundle = self.examine(log, index, &mut DayKeys::default()).await?;
        let lost = bundle.slots.iter().find(|slot| slot.leaf.is_none()).map(|slot| slot.sequence);
        let damaged = || Error::Damaged(format!("entry {} of log {} is lost", lost.unwrap_or(bundle.begin), log.id));
        match lost {
            Some(_) => Err(damaged()),
            None => bundle.leaves().ok_or_else(|| Error::Damaged(format!("bundle {index} of log {}", log.id))),
        }
    }

    /// Leaves as they are stored or were healed; `None` unless there is one for each sequence number.
    async fn stored_leaves(&self, log: &Log, Range { start, end }: Range<u64>) -> Result<Option<Vec<Vec<u8>>>> {
        const OF: &str = "SELECT sequence, leaf FROM entries WHERE log = $1 AND sequence >= $2 AND sequence < $3";
        const HEALED: &str = "SELECT sequence, leaf FROM healed_entries WHERE log = $1 AND sequence >= $2 AND sequence < $3";
        let mut leaves = BTreeMap::new();
        for query in [OF, HEALED] {
            let rows: Result<Vec<(i64, Vec<u8>)>, _> = on!(self.database.reads(), p => sqlx::query_as(query)
                .bind(log.number).bind(start.cast_signed()).bind(end.cast_signed()).fetch_all(p).await);
            match rows {
                Ok(rows) => leaves.extend(rows),
                Err(error) if tsujiban_database::is_unavailable(&error) => return Err(error.into()),
                Err(_) => return Ok(None),
            }
        }
        let is_whole = leaves.keys().map(|sequence| sequence.cast_unsigned()).eq(start..end);
        Ok(is_whole.then(|| leaves.into_values().collect()))
    }

    /// Hashes of whole subtrees of one level of tiles above the leaves; `None` for a missing one.
    pub(crate) async fn nodes(&self, log: i64, level: u8, numbers: Range<u64>) -> Result<Vec<Option<Hash>>> {
        const OF: &str = "SELECT number, hash FROM nodes WHERE log = $1 AND level = $2 AND number >= $3 AND number < $4";
        const HEALED: &str = "SELECT number, hash FROM healed_nodes WHERE log = $1 AND level = $2 AND number >= $3 AND number < $4";
        let mut hashes = vec![None; usize::try_from(numbers.end.saturating_sub(numbers.start)).unwrap_or_default()];
        for query in [OF, HEALED] {
            let rows: Vec<(i64, Vec<u8>)> = on!(self.database.reads(), p => sqlx::query_as(query)
                .bind(log)
                .bind(i64::from(level))
                .bind(numbers.start.cast_signed())
                .bind(numbers.end.cast_signed())
                .fetch_all(p)
                .await)?;
            for (number, hash) in rows {
                let at = number.cast_unsigned().checked_sub(numbers.start).and_then(|at| usize::try_from(at).ok());
                if let (Some(place), Ok(hash)) = (at.and_then(|at| hashes.get_mut(at)), hash.try_into()) {
                    *place = Some(Hash::from_bytes(hash));
                }
            }
        }
        Ok(hashes)
    }
}

fn unproven(log: &Log, error: &ProofError<MissingTile>) -> Error {
    Error::Damaged(format!("log {}: {error}", log.id))
}
