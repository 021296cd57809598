//! Reads the archive.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use tsujiban_core::error::chain;
use tsujiban_history::LogId;
use tsujiban_history::merkle::sha256;
use tsujiban_objects::{StoreError, Version};

use super::{ArchivedEntry, KEYS, PARTS, Part, Section, number_of, part_name};
use crate::error::Result;
use crate::reading::Stored;
use crate::scrub::EntrySource;
use crate::service::Audit;

/// An object of the archive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found {
    /// The number of the list before which it was put; 0 for keys.
    pub number: u64,
    pub name: String,
    /// The first version: this service did not put the later ones.
    pub version: Version,
}

/// How many parts are fetched ahead of the one that is processed. Each has some 8 MiB at most.
const AHEAD: usize = 8;

/// An object, and the part in it, or the reason in words why it cannot be used.
type Opened = (Found, std::result::Result<Part, String>);

impl Audit {
    /// Reads parts in their order, and fetches several ahead.
    pub(crate) fn read_parts(&self, found: Vec<Found>) -> BoxStream<'_, Result<Opened>> {
        let opened = move |found: Found| async move {
            let part = self.read_part(&found).await?;
            Ok((found, part))
        };
        stream::iter(found).map(opened).buffered(AHEAD).boxed()
    }

    /// All parts in the bucket, in the order of their lists.
    pub(crate) async fn archive_parts(&self) -> Result<Vec<Found>> {
        self.found(PARTS, number_of).await
    }

    /// All sets of keys in the bucket.
    pub(crate) async fn archived_keys(&self) -> Result<Vec<Found>> {
        self.found(KEYS, no_number).await
    }

    async fn found(&self, prefix: &str, number: fn(&str) -> Option<u64>) -> Result<Vec<Found>> {
        let (mut all, mut from): (Vec<Found>, _) = (Vec::new(), None);
        loop {
            let page = self.store.list(prefix, from).await?;
            for entry in page.entries.into_iter().filter(|entry| !entry.delete_marker) {
                match all.last_mut().filter(|last| last.name == entry.key) {
                    Some(last) => last.version = entry.version,
                    None => {
                        all.extend(number(&entry.key).map(|number| Found {
                            number,
                            name: entry.key.clone(),
                            version: entry.version.clone(),
                        }));
                    }
                }
            }
            from = page.next;
            if from.is_none() {
                all.sort_unstable();
                return Ok(all);
            }
        }
    }

    /// A part, or the reason in words why it cannot be used: this service did not sign it, or it does not match its name.
    pub(crate) fn read_part<'a>(&'a self, found: &'a Found) -> BoxFuture<'a, Result<Result<Part, String>>> {
        Box::pin(async move {
            let bytes = match self.store.get(&found.name, Some(&found.version)).await {
                Ok(bytes) => bytes,
                Err(error @ StoreError::Unreachable { .. }) => return Err(error.into()),
                Err(error) => return Ok(Err(chain(&error))),
            };
            if found.number > 0 && part_name(found.number, &sha256(&bytes)) != found.name {
                return Ok(Err("it is not what its name says".to_owned()));
            }
            let part = Part::open(&bytes, self.verifier(), &self.environment).map_err(|error| chain(&error));
            Ok(part.and_then(|part| if part.number == found.number { Ok(part) } else { Err("it belongs to another list".to_owned()) }))
        })
    }
}

/// The copies in the archive, for the scrub: reads the newest parts first, until it has every wanted entry with its body.
#[async_trait]
impl EntrySource for Audit {
    async fn entries(&self, log: &LogId, sequences: &[u64]) -> Result<Vec<Stored>> {
        let (mut wanted, mut found): (BTreeSet<u64>, BTreeMap<u64, ArchivedEntry>) = (sequences.iter().copied().collect(), BTreeMap::new());
        let mut parts = self.read_parts(self.archive_parts().await?.into_iter().rev().collect());
        while let Some((_, part)) = parts.try_next().await? {
            if wanted.is_empty() {
                break;
            }
            let Ok(part) = part else { continue };
            for (sequence, entry) in part.sections.into_iter().filter(|section| section.log == *log).flat_map(numbered) {
                if !wanted.contains(&sequence) || entry.leaf.is_empty() {
                    continue;
                }
                if entry.is_whole(self.now()) {
                    wanted.remove(&sequence);
                    found.insert(sequence, entry);
                } else {
                    // the leaf alone; an older part may have the body
                    found.entry(sequence).or_insert(entry);
                }
            }
        }
        Ok(found.into_iter().map(|(sequence, entry)| entry.into_stored(sequence)).collect())
    }
}

fn numbered(section: Section) -> impl Iterator<Item = (u64, ArchivedEntry)> {
    (section.first..).zip(section.entries)
}

/// 0, since sets of keys belong to no list. `None` if the object is no set of keys.
fn no_number(name: &str) -> Option<u64> {
    let (put, _) = name.strip_prefix(KEYS)?.split_once('-')?;
    put.bytes().all(|byte| byte.is_ascii_digit()).then_some(0)
}
