//! Root lists in the bucket: how far every log has come, signed, chained, and locked for 400 days. What is older than they say, or other
//! than they say, is not the history: it is not written to.

mod compare;
mod gap;
mod publish;

pub use self::gap::GapScope;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use tsujiban_core::error::chain;
use tsujiban_database::on;
use tsujiban_history::merkle::Hash;
use tsujiban_history::roots::RootList;
use tsujiban_objects::{Cursor, StoreError, Version};

use crate::engine::Standing;
use crate::error::{Error, Result};
use crate::service::Audit;

/// For how long nobody can delete a list: longer than any entry can be read.
pub const LOCKED: SignedDuration = SignedDuration::from_hours(400 * 24);
const PREFIX: &str = "roots/";

/// The newest list that this database knows.
#[derive(Debug, Clone)]
pub struct Known {
    pub number: u64,
    pub hash: Hash,
    pub at: Timestamp,
}

/// A list as it lies in the bucket.
#[derive(Debug, Clone)]
struct Lying {
    number: u64,
    key: String,
    /// The first version: what came after it is not ours.
    version: Version,
}

impl Audit {
    /// Compares the history with the newest list, and lists what has changed. Once a minute.
    pub async fn follow_roots(&self) -> Result<()> {
        let _alone = self.listing.lock().await;
        self.compare(false).await?;
        if self.engine.standing() == Standing::Sound {
            self.publish(false).await?;
        }
        Ok(())
    }

    /// The comparison at start, before anybody is answered: also what the newest list says of logs that did not change since.
    pub async fn compare_at_start(&self) -> Result<()> {
        let _alone = self.listing.lock().await;
        self.compare(true).await
    }

    async fn known(&self) -> Result<Option<Known>> {
        const NEWEST: &str = "SELECT number, hash, at FROM root_lists ORDER BY number DESC LIMIT 1";
        let row: Option<(i64, Vec<u8>, i64)> = on!(self.database.reads(), p => sqlx::query_as(NEWEST).fetch_optional(p).await)?;
        row.map(|(number, hash, at)| {
            let damaged = || Error::Damaged(format!("root list {number}"));
            let hash = hash.try_into().map(Hash::from_bytes).map_err(|_| damaged())?;
            Ok(Known { number: number.cast_unsigned(), hash, at: Timestamp::from_microsecond(at).map_err(|_| damaged())? })
        })
        .transpose()
    }

    /// The lists in the bucket after one, in their order.
    async fn lying_after(&self, number: u64) -> Result<Vec<Lying>> {
        let after = (number > 0).then(|| Cursor { key: RootList::object_name(number), version: None });
        let mut from = after;
        let mut lists: Vec<Lying> = Vec::new();
        loop {
            let page = self.store.list(PREFIX, from).await?;
            for entry in page.entries.into_iter().filter(|entry| !entry.delete_marker) {
                let Some(found) = entry.key.strip_prefix(PREFIX).and_then(|digits| digits.parse().ok()) else { continue };
                if found <= number || RootList::object_name(found) != entry.key {
                    continue;
                }
                match lists.last_mut().filter(|last| last.number == found) {
                    // versions of one object come from new to old
                    Some(last) => last.version = entry.version,
                    None => lists.push(Lying { number: found, key: entry.key, version: entry.version }),
                }
            }
            from = page.next;
            if from.is_none() {
                return Ok(lists);
            }
        }
    }

    /// A list from the bucket; the reason in words when it is not one of ours.
    async fn fetch(&self, key: &str, version: Option<&Version>) -> Result<Result<RootList, String>> {
        let bytes: Bytes = match self.store.get(key, version).await {
            Ok(bytes) => bytes,
            Err(StoreError::NotFound { .. }) => return Ok(Err(format!("{key} is not in the bucket"))),
            Err(error) => return Err(error.into()),
        };
        let opened = RootList::open(&bytes, self.verifier(), &self.environment);
        Ok(opened.map_err(|error| format!("{key} is not what this service signed ({})", chain(&error))))
    }
}
