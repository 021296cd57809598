//! The entries below one hash of level 8, compared with that hash. The last entries, which are fewer, are compared with the tree's peaks.

use std::ops::Range;

use tsujiban_history::leaf::Content;
use tsujiban_history::merkle::{Hash, Node, leaf_hash, node_hash};
use tsujiban_history::tile::WIDTH;
use tsujiban_history::{DayKeyId, Leaf};

use super::keys::DayKeys;
use super::slot::{self, Slot, Wrong};
use super::{Log, Stored};
use crate::error::Result;
use crate::service::Audit;

/// How many entries a bundle has.
pub const ENTRIES: u64 = 256;
/// The level of the node over a whole bundle.
const LEVEL: u8 = 8;

/// A part of a bundle over which the tree has a hash.
#[derive(Debug, Clone)]
pub struct Subtree {
    pub node: Node,
    pub begin: u64,
    pub end: u64,
    /// `None` when it is lost.
    pub hash: Option<Hash>,
    /// The hash in the database differs from the hash of the leaves, which are right.
    pub is_other: bool,
}

impl Subtree {
    pub fn holds(&self, sequence: u64) -> bool {
        (self.begin..self.end).contains(&sequence)
    }
}

/// A bundle as it is stored.
#[derive(Debug)]
pub struct Bundle {
    pub begin: u64,
    pub slots: Vec<Slot>,
    pub subtrees: Vec<Subtree>,
}

impl Bundle {
    /// The bundle in which an entry is.
    pub const fn of(sequence: u64) -> u64 {
        sequence / ENTRIES
    }

    /// The entries of a bundle in a log of some size.
    pub fn span(index: u64, size: u64) -> Range<u64> {
        let begin = index.saturating_mul(ENTRIES).min(size);
        begin..begin.saturating_add(ENTRIES).min(size)
    }

    /// The slots from one entry to before another.
    pub fn between(&self, begin: u64, end: u64) -> &[Slot] {
        let at = |sequence: u64| usize::try_from(sequence.saturating_sub(self.begin)).unwrap_or(usize::MAX).min(self.slots.len());
        self.slots.get(at(begin)..at(end)).unwrap_or_default()
    }

    /// The keys that the leaves name, and that are missing although their days have not expired.
    pub fn missing_keys(&self) -> impl Iterator<Item = DayKeyId> {
        let leaves = self.slots.iter().filter(|slot| slot.wrong == Some(Wrong::Key)).filter_map(|slot| slot.leaf.as_deref());
        leaves.filter_map(|leaf| match Leaf::parse(leaf).ok()?.content {
            Content::Entry { key, .. } => Some(key),
            Content::Gap(_) | Content::Retention(_) => None,
        })
    }

    /// Whether leaves of a subtree are lost, so that its hash cannot be computed from them.
    pub fn is_open(&self, subtree: &Subtree) -> bool {
        self.between(subtree.begin, subtree.end).iter().any(|slot| slot.leaf.is_none())
    }

    /// Whether the body or the tree proves a slot. The tree proves nothing in a subtree with a lost leaf.
    pub fn is_proven(&self, slot: &Slot) -> bool {
        let mut subtrees = self.subtrees.iter().filter(|subtree| subtree.holds(slot.sequence));
        slot.is_authentic() || (slot.wrong.is_none() && !subtrees.any(|subtree| self.is_open(subtree)))
    }

    /// The hash of a node within the bundle, if it is known.
    pub fn hash(&self, node: Node) -> Option<Hash> {
        let (begin, end) = (node.begin()?, node.end()?);
        let hashes = hashes(self.between(begin, end)).filter(|hashes| u64::try_from(hashes.len()) == Ok(end - begin));
        hashes.and_then(root).or_else(|| self.subtrees.iter().find(|subtree| subtree.node == node)?.hash)
    }

    /// The leaves, if none is lost.
    pub fn leaves(self) -> Option<Vec<Vec<u8>>> {
        self.slots.into_iter().map(|slot| slot.leaf).collect()
    }
}

impl Audit {
    /// Reads a bundle and checks it.
    pub(crate) async fn examine(&self, log: &Log, index: u64, keys: &mut DayKeys) -> Result<Bundle> {
        let Range { start: begin, end } = Bundle::span(index, log.size());
        let rows = self.rows(log.number, begin, end).await?;
        let wanted: Vec<_> = rows.rows.iter().map(Stored::key).collect();
        self.find_keys(log, &wanted, keys).await?;
        let slots = slot::judge_all((log.number, &log.id), (begin, end), rows, keys);
        let subtrees = self.subtrees(log, index).await?;
        let mut bundle = Bundle { begin, slots, subtrees };
        for at in 0..bundle.subtrees.len() {
            self.hold_to_tree(log, &mut bundle, at).await?;
        }
        Ok(bundle)
    }

    /// The parts of a bundle with their stored hashes.
    pub(crate) async fn subtrees(&self, log: &Log, index: u64) -> Result<Vec<Subtree>> {
        let Range { start: begin, end } = Bundle::span(index, log.size());
        let subtree = |node: Node, hash| {
            let (begin, end) = (node.begin().unwrap_or(begin), node.end().unwrap_or(end));
            Subtree { node, begin, end, hash, is_other: false }
        };
        if end - begin == ENTRIES {
            let hash = self.nodes(log.number, 1, index..index.saturating_add(1)).await?.into_iter().next().flatten();
            return Ok(vec![subtree(Node { level: LEVEL, index }, hash)]);
        }
        let peaks = Node::cover(0, log.size()).into_iter().zip(log.edge.hashes());
        Ok(peaks.filter(|(node, _)| node.level < LEVEL).map(|(node, hash)| subtree(node, Some(hash))).collect())
    }

    /// Decides whether the leaves or the stored hash are right if they do not agree.
    async fn hold_to_tree(&self, log: &Log, bundle: &mut Bundle, at: usize) -> Result<()> {
        let Some(Subtree { node, begin, end, hash: stored, .. }) = bundle.subtrees.get(at).cloned() else { return Ok(()) };
        let computed = hashes(bundle.between(begin, end)).and_then(root);
        if computed.is_some() && computed == stored {
            return Ok(());
        }
        let is_authentic = bundle.between(begin, end).iter().all(Slot::is_authentic);
        let (right, is_other) = match computed {
            Some(computed) if is_authentic || self.leads_up(log, node, computed).await? => (Some(computed), true),
            _ => {
                let is_right = match stored {
                    Some(stored) => node.level < LEVEL || self.leads_up(log, node, stored).await?,
                    None => false,
                };
                // the head's hash is shown and stated, but not used to heal anything, since the head may be wrong
                (if is_right { stored } else { peak(log, node) }, false)
            }
        };
        if computed.is_some() && computed != right {
            // it is unknown which leaves are wrong: all that are not authentic by themselves count as lost
            for slot in bundle.slots.iter_mut().filter(|slot| (begin..end).contains(&slot.sequence) && !slot.is_authentic()) {
                slot.leaf = None;
                slot.wrong.get_or_insert(Wrong::Unproven);
            }
        }
        if let Some(subtree) = bundle.subtrees.get_mut(at) {
            (subtree.hash, subtree.is_other) = (right, is_other);
        }
        Ok(())
    }

    /// Whether a hash of level 8 leads to the next stored hash above it, which is another row that confirms it.
    pub(crate) async fn leads_up(&self, log: &Log, node: Node, hash: Hash) -> Result<bool> {
        if node.level != LEVEL {
            return Ok(false);
        }
        let width = u64::from(WIDTH);
        let (tile, whole) = (node.index / width, log.size() >> LEVEL);
        let (begin, end) = (tile * width, (tile + 1).saturating_mul(width).min(whole));
        let mut below = self.nodes(log.number, 1, begin..end).await?;
        if let Some(slot) = usize::try_from(node.index - begin).ok().and_then(|at| below.get_mut(at)) {
            *slot = Some(hash);
        }
        if end - begin == width {
            let above = self.nodes(log.number, 2, tile..tile.saturating_add(1)).await?.into_iter().next().flatten();
            return Ok(above.is_some() && below.into_iter().collect::<Option<Vec<Hash>>>().and_then(root) == above);
        }
        let peaks = Node::cover(0, log.size()).into_iter().zip(log.edge.hashes());
        let above = peaks.filter(|(peak, _)| peak.level >= LEVEL).find(|(peak, _)| node.index >> (peak.level - LEVEL) == peak.index);
        let Some((peak, above)) = above else { return Ok(false) };
        let first = (peak.index << (peak.level - LEVEL)).checked_sub(begin).and_then(|first| usize::try_from(first).ok());
        let below = first.and_then(|first| below.get(first..first.checked_add(1 << (peak.level - LEVEL))?));
        Ok(below.and_then(|below| below.iter().copied().collect::<Option<Vec<Hash>>>()).and_then(root) == Some(above))
    }
}

/// The hash of a node that is a peak of the tree, from the head of the log.
fn peak(log: &Log, node: Node) -> Option<Hash> {
    Node::cover(0, log.size()).into_iter().zip(log.edge.hashes()).find(|(peak, _)| *peak == node).map(|(_, hash)| hash)
}

/// The hashes of leaves of which none is lost.
fn hashes(slots: &[Slot]) -> Option<Vec<Hash>> {
    slots.iter().map(|slot| slot.leaf.as_deref().map(leaf_hash)).collect()
}

/// The hash over a power of two of hashes.
pub fn root(mut hashes: Vec<Hash>) -> Option<Hash> {
    while hashes.len() > 1 {
        hashes = hashes.chunks(2).filter_map(|pair| if let [left, right] = pair { Some(node_hash(left, right)) } else { None }).collect();
    }
    hashes.first().copied()
}
