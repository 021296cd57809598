//! Scrubs the data that belongs to no log: the database itself, the signing key, the root lists in the bucket.

use std::collections::VecDeque;

use tsujiban_database::on;
use tsujiban_history::leaf::ListLoss;
use tsujiban_history::merkle::Hash;
use tsujiban_history::roots::RootList;
use tsujiban_objects::Version;

use super::damages::{Damaged, Kind};
use crate::error::Result;
use crate::roots::{LOCKED, Lost};
use crate::service::Audit;
use crate::signing::NO_LOG;

/// How many root lists a step reads.
const LISTS: u64 = 16;
/// How many faults of an SQLite file are named.
const NAMED: usize = 10;

impl Audit {
    /// Reads root lists before a number again, and after the oldest ones the database and the signing key. Returns the number to continue
    /// before.
    pub(super) async fn scrub_shared(&self, before: u64) -> Result<u64> {
        let first = before.saturating_sub(LISTS).max(1);
        let lists = self.noted_lists(first, before).await?;
        if first == 1 {
            self.scrub_database().await?;
            self.scrub_keys(NO_LOG, None).await?;
        }
        let mut damaged = Vec::new();
        let lying = if lists.is_empty() { VecDeque::new() } else { self.lying_between(first - 1, before).await? };
        for (number, hash, at) in lists {
            let version = lying.iter().find(|lying| lying.number == number).and_then(|lying| lying.version.as_ref());
            if let Some(wrong) = self.scrub_list(number, hash, at, version).await? {
                damaged.push(Damaged { place: format!("root list {number}"), first: number, beyond: number + 1, wrong });
            }
        }
        self.note_damage(NO_LOG, Kind::List, (first, before), &damaged).await?;
        Ok(if first == 1 { 0 } else { first })
    }

    async fn noted_lists(&self, first: u64, before: u64) -> Result<Vec<(u64, Vec<u8>, i64)>> {
        const OF: &str = "SELECT number, hash, at FROM root_lists WHERE number >= $1 AND number < $2 ORDER BY number";
        let rows: Vec<(i64, Vec<u8>, i64)> = on!(self.database.reads(), p => sqlx::query_as(OF)
            .bind(first.cast_signed()).bind(before.cast_signed()).fetch_all(p).await)?;
        Ok(rows.into_iter().map(|(number, hash, at)| (number.cast_unsigned(), hash, at)).collect())
    }

    /// What is wrong with a root list in the bucket, whose first version counts. It may be missing if its lock has ended or a gap has
    /// declared it missing.
    async fn scrub_list(&self, number: u64, hash: Vec<u8>, at: i64, version: Option<&Version>) -> Result<Option<String>> {
        self.metrics.scrub_checked.inc();
        let hash = hash.try_into().map(Hash::from_bytes).ok();
        Ok(match self.fetch(&RootList::object_name(number), version).await? {
            Ok(list) if Some(list.digest()) == hash => None,
            Ok(_) => Some("it is another one than this database knows".to_owned()),
            Err(Lost { was: ListLoss::Missing, .. }) => {
                let locked_until = at.saturating_add(i64::try_from(LOCKED.as_micros()).unwrap_or(i64::MAX));
                let is_stated = self.now().as_microsecond() >= locked_until || self.is_skipped(number).await;
                (!is_stated).then(|| "it is not in the bucket".to_owned())
            }
            Err(lost) if lost.is_certain => self.unless_repeated(number, lost.why).await,
            Err(lost) => Some(lost.why),
        })
    }

    /// What is wrong with a damaged list, until a newer full list repeats its content.
    async fn unless_repeated(&self, number: u64, wrong: String) -> Option<String> {
        (!self.repeat_list(number).await).then_some(wrong)
    }

    /// SQLite compares its indexes with its tables; the database check that decides about readiness has just done so, or does so next. With
    /// PostgreSQL a service may not run such a check: there the scrub of each log reads every row, by its index.
    async fn scrub_database(&self) -> Result<()> {
        let found = self.database.damage().await?;
        self.metrics.scrub_checked.inc();
        let faults = found.into_iter().take(NAMED).collect::<Vec<_>>().join("; ");
        let damaged: Vec<_> = (!faults.is_empty()).then(|| Damaged::thing("the database file".to_owned(), &faults)).into_iter().collect();
        self.note_damage(NO_LOG, Kind::Database, (0, 1), &damaged).await
    }
}
