//! The objects in the bucket under `roots/`: the lists since the newest full one, and objects that are not lists of this service.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tsujiban_core::error::chain;
use tsujiban_database::on;
use tsujiban_history::leaf::{ListLoss, LostLists};
use tsujiban_history::roots::{Chain, RootList, Scope, Skipped};
use tsujiban_history::{JstTime, LogId, TreeHead};
use tsujiban_objects::{Cursor, StoreError, Version};

use super::listing::{MOST_SKIPPED, PREFIX};
use super::{ListRow, NotedRow};
use crate::error::Result;
use crate::service::Audit;

/// How many lists are searched for the newest full one, which is put every day.
const MOST: usize = 16_384;
const AT_ONCE: usize = 16;

/// A list's object in the bucket.
#[derive(Debug, Clone)]
pub(crate) struct ListObject {
    pub number: u64,
    pub key: String,
    /// The first version: this service did not put the later ones. `None` if there are only delete markers.
    pub version: Option<Version>,
    /// How many versions and delete markers there are.
    pub objects: usize,
}

/// The lists in the bucket, and what is wrong with them.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// The newest full list and those after it, in their order.
    pub lists: Vec<RootList>,
    /// Lists that are damaged in the bucket and recorded in this database: it has all of their content, and the next full list repeats it.
    pub damaged: BTreeSet<u64>,
    /// Why the other lists are lost.
    pub lost: BTreeMap<u64, ListLoss>,
    /// Why the readable lists are no chain, in words.
    pub broken: Option<String>,
}

impl Survey {
    /// What is wrong, in words.
    pub fn fault(&self) -> Option<String> {
        let lost = || {
            let (number, was) = self.lost.last_key_value()?;
            let what = match was {
                ListLoss::Missing => "is not in the bucket",
                ListLoss::Damaged => "is damaged in the bucket",
                ListLoss::Foreign => "was not signed by this service",
            };
            Some(format!("root list {number} {what}"))
        };
        self.broken.clone().or_else(lost)
    }

    /// The heads of every log, the newest first.
    pub fn heads(&self) -> BTreeMap<LogId, Vec<TreeHead>> {
        let mut heads = BTreeMap::<LogId, Vec<TreeHead>>::new();
        for list in self.lists.iter().rev() {
            for (log, head) in &list.roots {
                heads.entry(*log).or_default().push(*head);
            }
        }
        heads
    }

    /// Whether lists that this database has not recorded are damaged, as after a lost volume: they may name more than the other lists.
    pub fn lacks_lists(&self) -> bool {
        self.lost.values().any(|was| *was == ListLoss::Damaged)
    }

    /// Accepts damaged lists whose archive parts were read, since these have all that was new in them. Later lists are signed as well.
    pub fn bridge(&mut self, parts: &BTreeSet<u64>) {
        let bridged: Vec<u64> = self
            .lost
            .iter()
            .filter(|(number, was)| **was == ListLoss::Damaged && parts.contains(number))
            .map(|(number, _)| *number)
            .collect();
        for number in bridged {
            tracing::error!(list = number, "a root list is damaged in the bucket; what was new in it came from its part of the archive");
            self.lost.remove(&number);
            self.damaged.insert(number);
        }
    }

    /// The numbers that the newest full list skips, and those of lost and damaged lists.
    pub fn skipped(&self) -> Skipped {
        let mut skipped = self.lists.first().map(|list| list.skipped.clone()).unwrap_or_default();
        self.lost.keys().for_each(|number| skipped.insert(*number));
        self.damaged.iter().take(MOST_SKIPPED.saturating_sub(skipped.ranges().count())).for_each(|number| skipped.insert(*number));
        skipped
    }

    /// The lost lists, as a gap names them.
    pub fn lost_lists(&self) -> Vec<LostLists> {
        let mut ranges: Vec<LostLists> = Vec::new();
        for (number, was) in &self.lost {
            match ranges.last_mut().filter(|range| range.was == *was && range.last.checked_add(1) == Some(*number)) {
                Some(range) => range.last = *number,
                None => ranges.push(LostLists { first: *number, last: *number, was: *was }),
            }
        }
        ranges
    }
}

/// The list with a number, or why it is lost.
type Opened = (u64, Result<RootList, Lost>);

/// Judges the lists in the bucket against those that this database has recorded. `opened` begins with the newest full list, in order.
fn judge(opened: Vec<Opened>, noted: &BTreeMap<u64, ListRow>) -> Survey {
    let known = noted.last_key_value().map(|(_, known)| known);
    let mut survey = Survey::default();
    let mut chain = Chain::new();
    let newest_good = opened.iter().rev().find_map(|(number, list)| list.is_ok().then_some(*number));
    for (number, list) in opened {
        match list {
            Ok(list) => {
                if let Some(from) = chain.next() {
                    let known_to = known.map_or(number, |known| known.number.max(number));
                    missing(&mut survey, &chain, from..number.min(known_to));
                }
                if known.is_some_and(|known| known.number == number && known.hash != list.digest()) {
                    survey.broken.get_or_insert(format!("root list {number} in the bucket is another one than this database knows"));
                }
                let followed = chain.follow(&list);
                // it is unknown which list follows an unreadable one
                let is_after_lost = number.checked_sub(1).is_some_and(|before| survey.lost.contains_key(&before));
                survey.lost.retain(|lost, _| !list.skipped.contains(*lost));
                survey.damaged.retain(|damaged| !list.skipped.contains(*damaged));
                if let (Err(broken), false) = (followed, is_after_lost) {
                    survey.broken.get_or_insert(broken.to_string());
                }
                survey.lists.push(list);
            }
            Err(Lost { was: loss, is_certain, .. }) => {
                if let (true, ListLoss::Damaged, Some(noted), false) = (is_certain, loss, noted.get(&number), chain.skips(number)) {
                    chain.pass(number, JstTime::new(noted.at), noted.hash);
                    survey.damaged.insert(number);
                } else if !chain.skips(number) {
                    // an object that this service put, or that precedes one that it put, was a list
                    let was_ours = known.is_some_and(|known| number <= known.number) || newest_good.is_some_and(|good| number < good);
                    let was = if loss == ListLoss::Damaged && !was_ours { ListLoss::Foreign } else { loss };
                    survey.lost.insert(number, was);
                }
            }
        }
    }
    // lists that this database has recorded and that are missing
    if let Some(known) = known {
        let from = chain.next().unwrap_or(known.number);
        missing(&mut survey, &chain, from..known.number.saturating_add(1));
    }
    let is_full = |list: &RootList| list.scope == Scope::Full;
    let lacks_full = survey.lists.first().map_or(!survey.damaged.is_empty(), |list| !is_full(list));
    if lacks_full {
        survey.broken.get_or_insert("no root list in the bucket that can be read names all logs".to_owned());
    }
    survey
}

fn missing(survey: &mut Survey, chain: &Chain, numbers: std::ops::Range<u64>) {
    for number in numbers.take(MOST) {
        if !chain.skips(number) {
            survey.lost.entry(number).or_insert(ListLoss::Missing);
        }
    }
}

impl Audit {
    /// Reads the lists since the newest full one. Reports damaged lists, and continues with the others.
    pub(crate) async fn survey(&self) -> Result<Survey> {
        const FULL: &str = "SELECT MAX(number) FROM root_lists WHERE is_full";
        let known = self.known().await?;
        let full: Option<i64> = on!(self.database.reads(), p => sqlx::query_scalar(FULL).fetch_one(p).await)?;
        let opened = match full.map(i64::cast_unsigned) {
            Some(full) => match self.since_full(full.saturating_sub(1)).await? {
                Some(opened) => opened,
                // the newest recorded full list is missing: an older one may exist
                None => self.since_full(0).await?.unwrap_or_default(),
            },
            None => self.since_full(0).await?.unwrap_or_default(),
        };
        let noted = self.noted_since(opened.first().map_or(0, |(number, _)| *number)).await?;
        let mut survey = judge(opened, &noted);
        let first = survey.lists.first().map(|list| list.number);
        if let (Some(known), Some(first)) = (known, first)
            && known.number < first
        {
            let list = self.fetch(&RootList::object_name(known.number), None).await?;
            if list.is_ok_and(|list| list.digest() != known.hash) {
                let number = known.number;
                let text = format!("root list {number} in the bucket is another one than this database knows, and they go on to {first}");
                survey.broken.get_or_insert(text);
            }
        }
        Ok(survey)
    }

    /// The recorded lists from a number on.
    async fn noted_since(&self, first: u64) -> Result<BTreeMap<u64, ListRow>> {
        const SINCE: &str = "SELECT number, hash, at FROM root_lists WHERE number >= $1";
        let rows: Vec<NotedRow> = on!(self.database.reads(), p => sqlx::query_as(SINCE).bind(first.cast_signed()).fetch_all(p).await)?;
        // an unreadable row counts as not recorded: only the list in the bucket is used
        Ok(rows.into_iter().filter_map(|row| ListRow::from_row(row).ok()).map(|known| (known.number, known)).collect())
    }

    /// The lists after a number, from the newest full one on; `None` if none of them is full and there may be older ones.
    async fn since_full(&self, after: u64) -> Result<Option<Vec<Opened>>> {
        let lying = Vec::from(self.list_objects_after(after).await?);
        let mut opened: Vec<Opened> = Vec::new();
        let mut has_full = false;
        for chunk in lying.rchunks(AT_ONCE) {
            let mut reading = Vec::new();
            for lying in chunk {
                reading.push(self.open_list_object(lying));
            }
            for read in futures::future::join_all(reading).await.into_iter().rev() {
                let read = read?;
                has_full = read.1.as_ref().is_ok_and(|list| list.scope == Scope::Full);
                opened.push(read);
                if has_full {
                    break;
                }
            }
            if has_full {
                break;
            }
        }
        opened.reverse();
        Ok((has_full || after == 0).then_some(opened))
    }

    async fn open_list_object(&self, lying: &ListObject) -> Result<Opened> {
        let list = match self.fetch(&lying.key, lying.version.as_ref()).await? {
            Ok(list) if list.number != lying.number => {
                Err(Lost { was: ListLoss::Damaged, is_certain: true, why: format!("{} is list {}", lying.key, list.number) })
            }
            fetched => fetched,
        };
        Ok((lying.number, list))
    }

    /// The lists in the bucket after a number, in their order: at most the newest [`MOST`].
    pub(super) async fn list_objects_after(&self, number: u64) -> Result<VecDeque<ListObject>> {
        self.lying_between(number, u64::MAX).await
    }

    /// The same, up to before another number.
    pub(crate) async fn lying_between(&self, number: u64, before: u64) -> Result<VecDeque<ListObject>> {
        let mut from = (number > 0).then(|| Cursor { key: RootList::object_name(number), version: None });
        let mut lists: VecDeque<ListObject> = VecDeque::new();
        loop {
            let page = self.store.list(PREFIX, from).await?;
            for entry in page.entries {
                let Some(found) = entry.key.strip_prefix(PREFIX).and_then(|digits| digits.parse().ok()) else { continue };
                if found <= number || RootList::object_name(found) != entry.key {
                    continue;
                }
                if found >= before {
                    return Ok(lists);
                }
                if lists.back().is_none_or(|last| last.number != found) {
                    if lists.len() == MOST {
                        lists.pop_front();
                    }
                    lists.push_back(ListObject { number: found, key: entry.key.clone(), version: None, objects: 0 });
                }
                let Some(lying) = lists.back_mut() else { continue };
                lying.objects += 1;
                if !entry.delete_marker {
                    // the storage lists versions of one object from new to old
                    lying.version = Some(entry.version);
                }
            }
            from = page.next;
            if from.is_none() {
                return Ok(lists);
            }
        }
    }

    /// A list from the bucket, or why it is lost. Without a version, reads the first one.
    pub(crate) async fn fetch(&self, key: &str, version: Option<&Version>) -> Result<Result<RootList, Lost>> {
        let bytes = match self.store.get(key, version).await {
            Ok(bytes) => bytes,
            Err(StoreError::NotFound { .. }) => {
                return Ok(Err(Lost { was: ListLoss::Missing, is_certain: true, why: format!("{key} is not in the bucket") }));
            }
            Err(error @ StoreError::Unreachable { .. }) => return Err(error.into()),
            // with any other storage error the list is unreadable
            Err(error) => {
                let is_certain = matches!(error, StoreError::Damaged { .. });
                return Ok(Err(Lost { was: ListLoss::Damaged, is_certain, why: chain(&error) }));
            }
        };
        let opened = RootList::open(&bytes, self.verifier(), &self.environment);
        Ok(opened.map_err(|error| Lost {
            was: ListLoss::Damaged,
            is_certain: true,
            why: format!("{key} is not what this service signed ({})", chain(&error)),
        }))
    }
}

/// Why a list is lost.
#[derive(Debug, Clone)]
pub(crate) struct Lost {
    pub was: ListLoss,
    /// The object was read, or is damaged for certain; else the storage could not return it.
    pub is_certain: bool,
    pub why: String,
}

#[cfg(test)]
mod tests;
