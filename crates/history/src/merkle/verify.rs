use super::{Hash, MAX_SIZE, TreeHead, node_hash};

/// Why a proof is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotProven {
    #[error("a tree of {size} entries has no entry {index}")]
    NoSuchEntry { index: u64, size: u64 },
    #[error("a tree of {new} entries did not grow from one of {old}")]
    NoSuchTree { old: u64, new: u64 },
    #[error("the proof has too few hashes")]
    TooShort,
    #[error("the proof has too many hashes")]
    TooLong,
    #[error("the proof leads to {computed}, not to the root {root} of {size} entries")]
    OtherRoot { computed: Hash, root: Hash, size: u64 },
}

/// The root to which a proof of inclusion leads (RFC 9162, section 2.1.3.2).
pub fn root_from_inclusion(index: u64, size: u64, leaf: Hash, proof: &[Hash]) -> Result<Hash, NotProven> {
    if index >= size || size > MAX_SIZE {
        return Err(NotProven::NoSuchEntry { index, size });
    }
    // `at` and `last` are the numbers of our node and of the last node of its level
    let (mut at, mut last, mut hash) = (index, size - 1, leaf);
    for sibling in proof {
        if last == 0 {
            return Err(NotProven::TooLong);
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(sibling, &hash);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    if last == 0 { Ok(hash) } else { Err(NotProven::TooShort) }
}

/// Verifies that the entry with hash `leaf` is number `index` of the log whose head is `head`.
pub fn verify_inclusion(index: u64, leaf: Hash, proof: &[Hash], head: TreeHead) -> Result<(), NotProven> {
    is_root(root_from_inclusion(index, head.size, leaf, proof)?, head)
}

/// Verifies that the log of `new` begins with the log of `old` (RFC 9162, section 2.1.4.2).
pub fn verify_consistency(old: TreeHead, new: TreeHead, proof: &[Hash]) -> Result<(), NotProven> {
    if old.size > new.size || new.size > MAX_SIZE {
        return Err(NotProven::NoSuchTree { old: old.size, new: new.size });
    }
    if old.size == 0 || old.size == new.size {
        // every log begins with the empty one, and with itself
        let root = if old.size == 0 { Hash::EMPTY } else { new.root };
        return if proof.is_empty() { is_root(root, old) } else { Err(NotProven::TooLong) };
    }
    let (mut at, mut last) = (old.size - 1, new.size - 1);
    while at & 1 == 1 {
        (at, last) = (at >> 1, last >> 1);
    }
    // if the old tree is one whole subtree, its root is the first element, and the proof omits it
    let mut rest = proof.iter();
    let first = if old.size.is_power_of_two() { old.root } else { *rest.next().ok_or(NotProven::TooShort)? };
    let (mut old_hash, mut new_hash) = (first, first);
    for sibling in rest {
        if last == 0 {
            return Err(NotProven::TooLong);
        }
        if at & 1 == 1 || at == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    if last != 0 {
        return Err(NotProven::TooShort);
    }
    is_root(old_hash, old)?;
    is_root(new_hash, new)
}

fn is_root(computed: Hash, head: TreeHead) -> Result<(), NotProven> {
    if computed == head.root { Ok(()) } else { Err(NotProven::OtherRoot { computed, root: head.root, size: head.size }) }
}
