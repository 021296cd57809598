use super::{Hash, MAX_SIZE, Node, leaf_hash, node_hash};

/// A compact range: the entries from `begin` to before `end`, as the hashes of the fewest whole subtrees that span them.
/// A range that begins at 0 is a tree's right edge: it suffices to append entries and to compute the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    begin: u64,
    end: u64,
    nodes: Vec<(Node, Hash)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    #[error("entries {begin} to {end} are spanned by {wanted} hashes, not by {given}")]
    Hashes { begin: u64, end: u64, wanted: usize, given: usize },
    #[error("entries {begin} to {end} are no part of a tree")]
    Bounds { begin: u64, end: u64 },
    #[error("a range that ends before entry {end} is not followed by one that begins with {begin}")]
    Apart { end: u64, begin: u64 },
    #[error("the tree is full")]
    Full,
}

impl Range {
    /// No entries yet; the first one will be number `begin`.
    pub fn empty(begin: u64) -> Self {
        Self { begin, end: begin, nodes: Vec::new() }
    }

    /// From stored hashes, in the order of [`Node::cover`].
    pub fn from_hashes(begin: u64, end: u64, hashes: &[Hash]) -> Result<Self, RangeError> {
        if begin > end || end > MAX_SIZE {
            return Err(RangeError::Bounds { begin, end });
        }
        let nodes = Node::cover(begin, end);
        if nodes.len() != hashes.len() {
            return Err(RangeError::Hashes { begin, end, wanted: nodes.len(), given: hashes.len() });
        }
        Ok(Self { begin, end, nodes: nodes.into_iter().zip(hashes.iter().copied()).collect() })
    }

    pub fn begin(&self) -> u64 {
        self.begin
    }

    /// One past the last entry: the tree's size, when the range begins at 0.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// In the order of [`Node::cover`].
    pub fn hashes(&self) -> impl ExactSizeIterator<Item = Hash> + DoubleEndedIterator + '_ {
        self.nodes.iter().map(|(_, hash)| *hash)
    }

    pub fn append(&mut self, entry: &[u8]) -> Result<(), RangeError> {
        self.append_hash(leaf_hash(entry), |_, _| ())
    }

    /// Appends the hash of one entry. Calls `completed` for every subtree that becomes whole, from the leaf upwards: tiles store
    /// those whose level is a multiple of eight.
    pub fn append_hash(&mut self, leaf: Hash, completed: impl FnMut(Node, Hash)) -> Result<(), RangeError> {
        if self.end >= MAX_SIZE {
            return Err(RangeError::Full);
        }
        self.push(Node { level: 0, index: self.end }, leaf, completed);
        self.end = self.end.saturating_add(1);
        Ok(())
    }

    /// Appends the range that follows this one.
    pub fn join(&mut self, next: &Self) -> Result<(), RangeError> {
        self.join_with(next, |_, _| ())
    }

    /// Like [`Range::join`]. Calls `completed` for each subtree of `next`, and for every subtree that becomes whole.
    pub fn join_with(&mut self, next: &Self, mut completed: impl FnMut(Node, Hash)) -> Result<(), RangeError> {
        if next.begin != self.end {
            return Err(RangeError::Apart { end: self.end, begin: next.begin });
        }
        for (node, hash) in &next.nodes {
            self.push(*node, *hash, &mut completed);
        }
        self.end = next.end;
        Ok(())
    }

    /// The Merkle tree hash, if the range begins at 0.
    pub fn root(&self) -> Option<Hash> {
        if self.begin != 0 {
            return None;
        }
        Some(self.hashes().rev().reduce(|right, left| node_hash(&left, &right)).unwrap_or(Hash::EMPTY))
    }

    fn push(&mut self, node: Node, hash: Hash, mut completed: impl FnMut(Node, Hash)) {
        let (mut node, mut hash) = (node, hash);
        completed(node, hash);
        while node.is_right() {
            let left = Node { level: node.level, index: node.index - 1 };
            let Some((_, sibling)) = self.nodes.pop_if(|(last, _)| *last == left) else { break };
            (node, hash) = (node.parent(), node_hash(&sibling, &hash));
            completed(node, hash);
        }
        self.nodes.push((node, hash));
    }
}
