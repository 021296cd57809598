//! Identities that were confirmed a moment ago.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use ring::digest;

use super::Identity;

/// How long a confirmed token stays good without being asked for again. A revoked token is refused after at most this long.
const LIFETIME: SignedDuration = SignedDuration::from_secs(30);

/// The digest of a token. Tokens themselves are never kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct TokenDigest([u8; digest::SHA256_OUTPUT_LEN]);

impl TokenDigest {
    fn of(token: &str) -> Option<Self> {
        digest::digest(&digest::SHA256, token.as_bytes()).as_ref().try_into().ok().map(Self)
    }
}

/// Confirmed identities, by the digest of their token. Refusals are not kept: their reason may pass within seconds.
#[derive(Debug)]
pub(super) struct Cache {
    capacity: usize,
    entries: Mutex<HashMap<TokenDigest, (Timestamp, Identity)>>,
}

impl Cache {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, entries: Mutex::new(HashMap::new()) }
    }

    /// The identity, if it was confirmed less than [`LIFETIME`] before `now`. A confirmation from the future does not count.
    pub(super) fn get(&self, token: &str, now: Timestamp) -> Option<Identity> {
        let digest = TokenDigest::of(token)?;
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(&digest).filter(|(confirmed, _)| is_fresh(*confirmed, now)).map(|(_, identity)| identity.clone())
    }

    /// Keeps an identity that was confirmed at `now`. When the cache is full, the oldest one is dropped.
    pub(super) fn put(&self, token: &str, identity: Identity, now: Timestamp) {
        let Some(digest) = TokenDigest::of(token) else { return };
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= self.capacity {
            entries.retain(|_, (confirmed, _)| is_fresh(*confirmed, now));
        }
        if entries.len() >= self.capacity
            && let Some(oldest) = entries.iter().min_by_key(|(_, (confirmed, _))| *confirmed).map(|(digest, _)| *digest)
        {
            entries.remove(&oldest);
        }
        entries.insert(digest, (now, identity));
    }
}

fn is_fresh(confirmed: Timestamp, now: Timestamp) -> bool {
    let age = now.duration_since(confirmed);
    !age.is_negative() && age < LIFETIME
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Principal, User};

    fn identity() -> Identity {
        Identity { principal: Principal::Operator, user: User::default() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn an_identity_is_kept_for_thirty_seconds() {
        let cache = Cache::new(8);
        cache.put("token", identity(), at(0));
        assert_eq!(cache.get("token", at(29)), Some(identity()));
        assert_eq!(cache.get("token", at(30)), None);
        assert_eq!(cache.get("other", at(0)), None);
        assert_eq!(cache.get("token", at(-1)), None, "a clock that was set back does not prolong it");
    }

    #[test]
    fn the_oldest_makes_room() {
        let cache = Cache::new(2);
        for second in 0..3 {
            cache.put(&second.to_string(), identity(), at(second));
        }
        let kept = ["0", "1", "2"].map(|token| cache.get(token, at(3)).is_some());
        assert_eq!(kept, [false, true, true]);
    }
}
