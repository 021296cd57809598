//! Numbers by which a process tells whether something is what it was. They mean nothing to another process.

use std::hash::{DefaultHasher, Hash, Hasher};

pub fn fingerprint(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}
