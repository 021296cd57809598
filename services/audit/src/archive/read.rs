//! Reads the archive.

use futures::future::BoxFuture;
use tsujiban_core::error::chain;
use tsujiban_database::on;
use tsujiban_history::merkle::{leaf_hash, sha256};
use tsujiban_history::{Hash, LogId};
use tsujiban_objects::{StoreError, Version};

use super::{ArchivedEntry, KEYS, PARTS, Part, number_of, part_name};
use crate::error::Result;
use crate::service::Audit;

/// How many parts are looked at for one entry.
const NEAR: i64 = 64;

/// An object of the archive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found {
    /// The number of the list with which it was put; 0 for keys.
    pub number: u64,
    pub name: String,
    /// The first version: what came after it is not ours.
    pub version: Version,
}

impl Audit {
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

    /// A part; in words why it cannot be used. What is not signed by this service, or not what its name says, is not used.
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

    /// One entry as the archive has it, without its body when only its leaf is there; `None` when it has not. `appended_us` is when it was appended, if that is known: the parts since
    /// then are looked at first, and without it all of them. `leaf` is the hash that its leaf must have, where the tree says so.
    pub async fn archived_entry(
        &self,
        log: &LogId,
        sequence: u64,
        appended_us: Option<i64>,
        leaf: Option<Hash>,
    ) -> Result<Option<ArchivedEntry>> {
        const SINCE: &str = "SELECT name FROM archive_parts WHERE put_us >= $1 ORDER BY put_us LIMIT $2";
        let mut without_body = None;
        if let Some(since) = appended_us {
            let names: Vec<String> = on!(self.database.reads(), p => sqlx::query_scalar(SINCE).bind(since).bind(NEAR).fetch_all(p).await)?;
            for name in names {
                let Some(found) = self.found(&name, number_of).await?.pop() else { continue };
                let Ok(part) = self.read_part(&found).await? else { continue };
                match entry_of(part, log, sequence, leaf) {
                    Some(entry) if entry.is_whole(self.now()) => return Ok(Some(entry)),
                    Some(entry) => without_body = Some(entry),
                    None => {}
                }
            }
        }
        for found in self.archive_parts().await?.into_iter().rev() {
            let Ok(part) = self.read_part(&found).await? else { continue };
            match entry_of(part, log, sequence, leaf) {
                Some(entry) if entry.is_whole(self.now()) => return Ok(Some(entry)),
                Some(entry) => without_body = Some(entry),
                None => {}
            }
        }
        Ok(without_body)
    }
}

/// Sets of keys belong to no list. `None` for the name of something else.
fn no_number(name: &str) -> Option<u64> {
    let (put, _) = name.strip_prefix(KEYS)?.split_once('-')?;
    put.bytes().all(|byte| byte.is_ascii_digit()).then_some(0)
}

/// The entry in the section of a part that has it.
fn entry_of(part: Part, log: &LogId, sequence: u64, leaf: Option<Hash>) -> Option<ArchivedEntry> {
    let sections = part.sections.into_iter().filter(|section| section.log == *log && (section.first..section.end()).contains(&sequence));
    let mut entries = sections.filter_map(|section| {
        let at = usize::try_from(sequence - section.first).ok()?;
        section.entries.into_iter().nth(at)
    });
    entries.find(|entry| !entry.leaf.is_empty() && leaf.is_none_or(|leaf| leaf_hash(&entry.leaf) == leaf))
}
