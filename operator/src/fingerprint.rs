//! Hashes by which a process detects changes. They cannot be compared between processes.

use std::hash::{DefaultHasher, Hash, Hasher};

pub fn fingerprint(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}
