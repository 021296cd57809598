use super::{Hash, MAX_SIZE, Node, node_hash};

/// A source of the hashes of whole subtrees, such as stored tiles.
pub trait HashReader {
    type Error: std::error::Error;
    fn read(&self, node: Node) -> Result<Hash, Self::Error>;
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError<E: std::error::Error> {
    #[error("a tree of {size} entries has no entry {index}")]
    NoSuchEntry { index: u64, size: u64 },
    #[error("a tree of {new} entries did not grow from one of {old}")]
    NoSuchTree { old: u64, new: u64 },
    #[error("a stored hash could not be read")]
    Read(#[source] E),
}

/// Entries from the first number to before the second, whose Merkle tree hash is one element of a proof.
type Part = (u64, u64);

/// The nodes that [`prove_inclusion`] will read. Empty if there is no such entry.
pub fn inclusion_nodes(index: u64, size: u64) -> Vec<Node> {
    inclusion_parts(index, size).map(nodes).unwrap_or_default()
}

/// The nodes that [`prove_consistency`] will read. Empty if a tree cannot grow from `old` to `new`.
pub fn consistency_nodes(old: u64, new: u64) -> Vec<Node> {
    consistency_parts(old, new).map(nodes).unwrap_or_default()
}

/// PATH(m, D\[n\]) of RFC 6962, section 2.1.1: at most 63 hashes, the leaf's sibling first.
pub fn prove_inclusion<R: HashReader>(reader: &R, index: u64, size: u64) -> Result<Vec<Hash>, ProofError<R::Error>> {
    read(reader, inclusion_parts(index, size).ok_or(ProofError::NoSuchEntry { index, size })?)
}

/// PROOF(m, D\[n\]) of RFC 6962, section 2.1.2. Empty where there is nothing to prove: from size 0, and from a size to itself.
pub fn prove_consistency<R: HashReader>(reader: &R, old: u64, new: u64) -> Result<Vec<Hash>, ProofError<R::Error>> {
    read(reader, consistency_parts(old, new).ok_or(ProofError::NoSuchTree { old, new })?)
}

/// The Merkle tree hash of the first `size` entries.
pub fn root_of<R: HashReader>(reader: &R, size: u64) -> Result<Hash, ProofError<R::Error>> {
    read(reader, vec![(0, size)]).map(|hashes| hashes.first().copied().unwrap_or(Hash::EMPTY))
}

fn inclusion_parts(index: u64, size: u64) -> Option<Vec<Part>> {
    if index >= size || size > MAX_SIZE {
        return None;
    }
    let (mut begin, mut end, mut parts) = (0, size, Vec::new());
    while end - begin > 1 {
        let middle = begin + split(end - begin);
        if index < middle {
            parts.push((middle, end));
            end = middle;
        } else {
            parts.push((begin, middle));
            begin = middle;
        }
    }
    parts.reverse();
    Some(parts)
}

fn consistency_parts(old: u64, new: u64) -> Option<Vec<Part>> {
    if old > new || new > MAX_SIZE {
        return None;
    }
    if old == 0 || old == new {
        return Some(Vec::new());
    }
    let (mut begin, mut end, mut parts) = (0, new, Vec::new());
    // until the old tree ends where the subtree does
    while old != end {
        let middle = begin + split(end - begin);
        if old <= middle {
            parts.push((middle, end));
            end = middle;
        } else {
            parts.push((begin, middle));
            begin = middle;
        }
    }
    // a verifier already has the root of the old tree itself
    if begin != 0 {
        parts.push((begin, end));
    }
    parts.reverse();
    Some(parts)
}

/// The largest power of two below `length`, which is at least 2.
fn split(length: u64) -> u64 {
    1 << length.saturating_sub(1).max(1).ilog2()
}

fn nodes(parts: Vec<Part>) -> Vec<Node> {
    parts.into_iter().flat_map(|(begin, end)| Node::cover(begin, end)).collect()
}

fn read<R: HashReader>(reader: &R, parts: Vec<Part>) -> Result<Vec<Hash>, ProofError<R::Error>> {
    let mut hashes = Vec::with_capacity(parts.len());
    for (begin, end) in parts {
        let mut hash = None;
        for node in Node::cover(begin, end).into_iter().rev() {
            let left = reader.read(node).map_err(ProofError::Read)?;
            hash = Some(hash.map_or(left, |right| node_hash(&left, &right)));
        }
        hashes.extend(hash);
    }
    Ok(hashes)
}
