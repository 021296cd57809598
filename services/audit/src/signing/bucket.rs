//! The signing key in the bucket: sealed under the master key, locked, and put again before the lock ends. An attacker with the bucket and
//! the master key could sign; locked lists and checkpoints that auditors retain still prove what was signed before.

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tsujiban_core::error::chain;
use tsujiban_core::history::BUCKET_LOCK;
use tsujiban_history::{EnvironmentOrigin, RootList};
use tsujiban_objects::{LockUntil, StoreError, Version};
use tsujiban_sealing::Context;
use zeroize::Zeroizing;

use super::choice::Signer;
use super::{KeySources, Seed, key_of, verifier};
use crate::error::{Error, Result};
use crate::{domain, roots};

const PREFIX: &str = "signing-key/";
/// How long before its lock ends the key is put again.
const AGAIN_BEFORE: SignedDuration = SignedDuration::from_hours(24 * 60);
/// How many of the newest lists are checked for the key that signed them.
const ASKED: usize = 256;
const CLASS: &str = "history signing key in the bucket";

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    master: String,
    /// When it was put, from which its lock counts. It is sealed with the key.
    put: Timestamp,
    /// Hexadecimal digits.
    key: String,
}

/// The copies in the bucket, the newest first.
pub(super) struct Copies(Vec<Copy>);

struct Copy {
    number: u64,
    /// The key, and when it was put; `None` when it does not open under this master key.
    opened: Option<(Seed, Timestamp)>,
}

fn name(number: u64) -> String {
    format!("{PREFIX}{number:012}")
}

impl Copies {
    pub async fn read(sources: KeySources<'_>) -> Result<Self> {
        let mut found: Vec<(u64, String, Version)> = Vec::new();
        for entry in tsujiban_objects::list_all(&**sources.store, PREFIX).await?.into_iter().filter(|entry| !entry.delete_marker) {
            let Some(number) = entry.key.strip_prefix(PREFIX).and_then(|digits| digits.parse().ok()) else { continue };
            // the first version: this service did not put the later ones
            found.retain(|(other, ..)| *other != number);
            found.push((number, entry.key, entry.version));
        }
        found.sort_unstable_by_key(|(number, ..)| std::cmp::Reverse(*number));
        let mut copies = Vec::new();
        for (number, key, version) in found {
            let opened = match sources.store.get(&key, Some(&version)).await {
                Ok(bytes) => opened(sources, number, &bytes),
                Err(error @ StoreError::Unreachable { .. }) => return Err(error.into()),
                Err(error) => {
                    tracing::error!(object = key, error = chain(&error), "a copy of the signing key cannot be read");
                    None
                }
            };
            copies.push(Copy { number, opened });
        }
        Ok(Self(copies))
    }

    pub fn newest(&self) -> Option<&Seed> {
        self.seeds().next()
    }

    /// The keys of the copies that open, the newest first.
    fn seeds(&self) -> impl Iterator<Item = &Seed> {
        self.0.iter().filter_map(|copy| copy.opened.as_ref().map(|(seed, _)| seed))
    }

    /// The key of the copy at this position among those that open.
    pub fn seed(&self, at: usize) -> Option<Seed> {
        self.seeds().nth(at).cloned()
    }

    /// Which available key has signed the newest list that any of them has signed. Fails if it signed that list under another domain: the
    /// names of its logs contain that domain.
    pub async fn signer(&self, sources: KeySources<'_>, here: Option<&Seed>) -> Result<Signer> {
        let mut keys = Vec::new();
        let copies = self.seeds().enumerate().map(|(at, seed)| (Signer::Bucket(at), seed));
        for (signer, seed) in here.map(|seed| (Signer::Database, seed)).into_iter().chain(copies) {
            keys.push((signer, key_of(seed)?));
        }
        let mut lists: Vec<(String, Version)> = Vec::new();
        let mut from = None;
        loop {
            let page = sources.store.list(roots::PREFIX, from).await?;
            for entry in page.entries.into_iter().filter(|entry| !entry.delete_marker) {
                match lists.last_mut().filter(|(key, _)| *key == entry.key) {
                    Some((_, version)) => *version = entry.version,
                    None => lists.push((entry.key, entry.version)),
                }
            }
            lists.drain(..lists.len().saturating_sub(ASKED));
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        if lists.is_empty() {
            return Ok(Signer::NoLists);
        }
        for (key, version) in lists.iter().rev() {
            let bytes = match sources.store.get(key, Some(version)).await {
                Ok(bytes) => bytes,
                Err(error @ StoreError::Unreachable { .. }) => return Err(error.into()),
                Err(_) => continue,
            };
            let Some(named) = named_in(&bytes).filter(|named| named.environment == sources.environment.environment) else { continue };
            for (signer, key) in &keys {
                if RootList::open(&bytes, &verifier(key, &named)?, &named).is_ok() {
                    domain::must_equal(&named.domain, &sources.environment.domain)?;
                    return Ok(*signer);
                }
            }
        }
        Ok(Signer::Nobody)
    }

    /// Makes a key. Of several processes that do so at the same time one puts its key into the bucket, and the others use that one.
    pub async fn make(&self, sources: KeySources<'_>, now: Timestamp) -> Result<Seed> {
        let mut seed = Zeroizing::new([0; 32]);
        sources.random.fill(&mut *seed)?;
        let next = self.0.first().map_or(1, |copy| copy.number.saturating_add(1));
        match put(sources, next, &seed, now).await {
            Ok(()) => Ok(seed),
            Err(Error::Store(StoreError::AlreadyExists { .. })) => {
                let lost = || Error::Damaged("the signing key that another process made does not open".to_owned());
                Self::read(sources).await?.newest().cloned().ok_or_else(lost)
            }
            Err(error) => Err(error),
        }
    }

    /// Puts the key again unless a copy of it is locked for long enough.
    pub async fn keep(&self, sources: KeySources<'_>, seed: &Seed, now: Timestamp) -> Result<()> {
        let is_kept = |copy: &Copy| {
            copy.opened.as_ref().is_some_and(|(there, put)| **there == **seed && now.duration_since(*put) < BUCKET_LOCK - AGAIN_BEFORE)
        };
        // `make` has already put a key that was just made
        if self.0.iter().any(is_kept) || (self.0.is_empty() && Self::read(sources).await?.0.iter().any(is_kept)) {
            return Ok(());
        }
        let next = self.0.first().map_or(1, |copy| copy.number.saturating_add(1));
        match put(sources, next, seed, now).await {
            // another replica has put it at the same time
            Ok(()) | Err(Error::Store(StoreError::AlreadyExists { .. })) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The origin that a list names, not verified.
fn named_in(list: &[u8]) -> Option<EnvironmentOrigin> {
    EnvironmentOrigin::of_roots(std::str::from_utf8(list).ok()?.lines().next()?)
}

async fn put(sources: KeySources<'_>, number: u64, seed: &Seed, now: Timestamp) -> Result<()> {
    let record = record(sources, number, now);
    let master = sources.keyring.master();
    let sealed = master.seal(Context { class: CLASS, record: &record }, &**seed, sources.random)?;
    let sealed = Sealed { master: master.id().to_string(), put: now, key: hex::encode(sealed) };
    let bytes = serde_json::to_vec(&sealed).map_err(|error| Error::Damaged(error.to_string()))?;
    let until = now.checked_add(BUCKET_LOCK).map_err(|_| Error::Damaged("the clock is at the end of time".to_owned()))?;
    sources.store.put_new(&name(number), Bytes::from(bytes), Some(LockUntil::at_least(until))).await?;
    tracing::info!(object = name(number), "the signing key lies in the bucket, sealed under the master key");
    Ok(())
}

fn opened(sources: KeySources<'_>, number: u64, bytes: &[u8]) -> Option<(Seed, Timestamp)> {
    let Sealed { put, key, .. } = serde_json::from_slice(bytes).ok()?;
    let record = record(sources, number, put);
    let seed = sources.keyring.master().open(Context { class: CLASS, record: &record }, &hex::decode(key).ok()?).ok()?;
    Some((Zeroizing::new(seed.as_slice().try_into().ok()?), put))
}

fn record(sources: KeySources<'_>, number: u64, put: Timestamp) -> Vec<u8> {
    format!("{} {number} {put}", sources.environment.environment).into_bytes()
}
