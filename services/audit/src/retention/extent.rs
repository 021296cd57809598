//! The entries of a key, by their leaves.

use tsujiban_database::on;
use tsujiban_history::leaf::Content;
use tsujiban_history::{DayKeyId, Leaf};

use crate::error::Result;
use crate::reading::{Bundle, DayKeys, Log};
use crate::service::Audit;

/// The first and the last entry under a key, and how many there are: between them there may be gaps, and retentions of other days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub first: u64,
    pub last: u64,
    pub count: u64,
}

/// The entries of a key that were read so far. They are adjacent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    key: DayKeyId,
    extent: Option<Extent>,
    /// An entry of another key ended it.
    is_over: bool,
}

impl Seen {
    const fn nothing(key: DayKeyId) -> Self {
        Self { key, extent: None, is_over: false }
    }

    /// Adds the next entry, in either direction, and the key that it names. Ignores entries that name none or are lost.
    fn take(&mut self, sequence: u64, named: Option<DayKeyId>) {
        let Some(named) = named.filter(|_| !self.is_over) else { return };
        if named != self.key {
            self.is_over = true;
            return;
        }
        let new = Extent { first: sequence, last: sequence, count: 0 };
        let extent = self.extent.get_or_insert(new);
        (extent.first, extent.last) = (extent.first.min(sequence), extent.last.max(sequence));
        extent.count += 1;
    }
}

impl Audit {
    /// The entries under a key of a log. A column has the first one: if none is there, searches the leaves.
    pub(super) async fn extent(&self, log: &Log, key: DayKeyId, first: u64) -> Result<Extent> {
        if let Some(extent) = self.extent_around(log, key, first).await? {
            return Ok(extent);
        }
        let found = match self.first_naming(log, key).await? {
            Some(first) => self.extent_around(log, key, first).await?,
            None => None,
        };
        // a key whose first entry was refused has no entries
        let first = first.min(log.size());
        Ok(found.unwrap_or(Extent { first, last: first, count: 0 }))
    }

    /// The adjacent entries under a key around `at`.
    async fn extent_around(&self, log: &Log, key: DayKeyId, at: u64) -> Result<Option<Extent>> {
        let mut seen = Seen::nothing(key);
        let mut next = at;
        while next < log.size() && !seen.is_over {
            let (begin, named) = self.named(log, Bundle::of(next)).await?;
            (begin..).zip(&named).filter(|(sequence, _)| *sequence >= next).for_each(|(sequence, named)| seen.take(sequence, *named));
            next = Bundle::span(Bundle::of(next), log.size()).end;
        }
        let Some(behind) = seen.extent else { return Ok(None) };
        let mut seen = Seen { is_over: false, ..seen };
        let mut end = behind.first;
        while end > 0 && !seen.is_over {
            let (begin, named) = self.named(log, Bundle::of(end - 1)).await?;
            let before: Vec<_> = (begin..end).zip(named).collect();
            before.into_iter().rev().for_each(|(sequence, named)| seen.take(sequence, named));
            end = begin;
        }
        Ok(seen.extent)
    }

    /// The key that each entry of a bundle names, by its leaf, and the first entry.
    async fn named(&self, log: &Log, index: u64) -> Result<(u64, Vec<Option<DayKeyId>>)> {
        let bundle = self.examine(log, index, &mut DayKeys::default()).await?;
        let named = |leaf: &[u8]| match Leaf::parse(leaf).ok()?.content {
            Content::Entry { key, .. } => Some(key),
            Content::Gap(_) | Content::Retention(_) => None,
        };
        Ok((bundle.begin, bundle.slots.iter().map(|slot| named(slot.leaf.as_deref()?)).collect()))
    }

    async fn first_naming(&self, log: &Log, key: DayKeyId) -> Result<Option<u64>> {
        // a leaf: version and kind, sequence, key
        const OF: &str = "SELECT MIN(sequence) FROM entries WHERE log = $1 AND id IS NOT NULL AND substr(leaf, 11, 16) = $2";
        let key = key.as_bytes().to_vec();
        let first: Option<i64> =
            on!(self.database.reads(), p => sqlx::query_scalar(OF).bind(log.number).bind(key.clone()).fetch_one(p).await)?;
        Ok(first.map(i64::cast_unsigned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_a_key_end_where_another_one_is_named() {
        let [old, own, new] = [1, 2, 3].map(|n| DayKeyId::from_bytes([n; 16]));
        let mut seen = Seen::nothing(own);
        for (sequence, named) in (10..).zip([None, Some(own), None, Some(own), Some(new), Some(own)]) {
            seen.take(sequence, named);
        }
        assert_eq!((seen.extent, seen.is_over), (Some(Extent { first: 11, last: 13, count: 2 }), true));
        let mut before = Seen { is_over: false, ..seen };
        for (sequence, named) in [(10, None), (9, Some(own)), (8, Some(old)), (7, Some(own))] {
            before.take(sequence, named);
        }
        assert_eq!(before.extent, Some(Extent { first: 9, last: 13, count: 3 }));
    }
}
