//! Puts the next list, and the part of the archive before it.

use std::collections::BTreeSet;

use bytes::Bytes;
use jiff::Timestamp;
use tsujiban_core::error::chain;
use tsujiban_database::on;
use tsujiban_history::JstTime;
use tsujiban_history::merkle::Hash;
use tsujiban_history::roots::{RootList, Scope, Skipped};
use tsujiban_objects::{LockUntil, StoreError};

use super::compare::newest;
use super::{LOCKED, ListRow, Listing};
use crate::archive::{Batch, Collected};
use crate::error::{Error, Result};
use crate::service::Audit;

/// The `previous` hash of the first list.
const NONE_BEFORE: Hash = Hash::EMPTY;

/// The position of a list in the chain.
struct ListPosition {
    number: u64,
    previous: Hash,
    /// The time of the previous list: a list is not older than that, whatever the clock says.
    not_before: Option<Timestamp>,
    skipped: Skipped,
}

impl Audit {
    /// Puts lists of the changed logs, or of all logs once a day and when a list is damaged: as many as needed to cover everything. Puts
    /// none when nothing has changed.
    pub(super) async fn publish(&self, listing: &mut Listing) -> Result<()> {
        loop {
            let (known, day) = (self.known().await?, JstTime::new(self.now()).day().number());
            let is_full = !listing.damaged.is_empty() || !self.has_full_of(day).await?;
            let skipped = if is_full { listing.skipped.clone() } else { Skipped::default() };
            let position = ListPosition {
                number: listing.skipped.next_after(known.as_ref().map_or(0, |known| known.number)),
                not_before: known.as_ref().map(|known| known.at),
                previous: self.newest_but(&skipped).await?.map_or(NONE_BEFORE, |known| known.hash),
                skipped,
            };
            if self.put_list(position, is_full, listing).await? != Progress::More {
                return Ok(());
            }
        }
    }

    /// Puts a list of all logs that follows `last`, and skips the lists that staff have declared lost. Then puts further lists if needed.
    pub(super) async fn publish_behind(&self, last: Option<&RootList>, skipped: Skipped, listing: &mut Listing) -> Result<()> {
        let known = self.known().await?;
        let newest = known.as_ref().map_or(0, |known| known.number).max(last.map_or(0, |list| list.number));
        let position = ListPosition {
            number: skipped.next_after(newest),
            not_before: known.as_ref().map(|known| known.at).max(last.map(|list| list.time.timestamp())),
            previous: last.map(RootList::digest).or(known.map(|known| known.hash)).unwrap_or(NONE_BEFORE),
            skipped,
        };
        match self.put_list(position, true, listing).await? {
            Progress::More => self.publish(listing).await,
            Progress::All => Ok(()),
            Progress::Overtaken => {
                let message =
                    "another process has put a root list meanwhile; look at the history and declare the gap again if there is one";
                Err(Error::refuse(tsujiban_proto::error::Kind::Precondition, "OVERTAKEN", message))
            }
        }
    }

    async fn put_list(&self, position: ListPosition, is_full: bool, listing: &mut Listing) -> Result<Progress> {
        let now = self.now();
        let tried = if is_full { BTreeSet::new() } else { std::mem::take(&mut listing.faulty) };
        let Collected { part, mut roots, spans, is_cut, faulty } = self.collect(position.number, is_full, &tried).await?;
        listing.faulty = faulty.into_iter().collect();
        self.metrics.unlisted_logs.set(i64::try_from(listing.faulty.len()).unwrap_or(i64::MAX));
        if is_full && !listing.faulty.is_empty() {
            // else no list that a survey reads would name the heads of these logs any more
            let heads = newest(&self.survey().await?.heads());
            roots.extend(heads.into_iter().filter(|(log, _)| listing.faulty.contains(log)));
        }
        let skips_more = position.skipped.ranges().any(|range| !listing.skipped.contains(*range.start()));
        if roots.is_empty() && part.is_empty() && !skips_more {
            self.metrics.root_list_timestamp.set(now.as_duration().as_secs_f64());
            return Ok(Progress::All);
        }
        let list = RootList {
            environment: self.environment.clone(),
            number: position.number,
            time: JstTime::new(position.not_before.map_or(now, |before| before.max(now))),
            scope: if is_full { Scope::Full } else { Scope::Changed },
            previous: position.previous,
            skipped: position.skipped,
            roots,
        };
        let signed = list.sign(&self.key).map_err(|error| Error::Damaged(chain(&error)))?;
        let until = now.checked_add(LOCKED).map_err(|_| Error::Damaged("the clock is at the end of time".to_owned()))?;
        let until = LockUntil::at_least(until);
        let batch: Option<Batch> = if part.is_empty() { None } else { Some(self.put_part(&part, spans, until).await?) };
        match self.store.put_new(&RootList::object_name(list.number), Bytes::from(signed), Some(until)).await {
            Ok(_) => {}
            // an answer was lost, or another replica was faster: the next comparison reads and records that list
            Err(StoreError::AlreadyExists { .. }) => return Ok(Progress::Overtaken),
            Err(error) => return Err(error.into()),
        }
        self.note(&list).await?;
        if let Some(batch) = batch {
            self.record(&batch).await?;
        }
        listing.skipped.extend(&list.skipped);
        listing.damaged.retain(|number| !list.skipped.contains(*number));
        Ok(if is_cut { Progress::More } else { Progress::All })
    }

    /// The newest recorded list that is not skipped: the one that the next list follows.
    async fn newest_but(&self, skipped: &Skipped) -> Result<Option<ListRow>> {
        let mut newest = self.known().await?;
        while let Some(number) = newest.as_ref().map(|known| known.number).filter(|number| skipped.contains(*number)) {
            newest = self.known_before(number).await?;
        }
        Ok(newest)
    }

    async fn has_full_of(&self, day: i64) -> Result<bool> {
        const COUNT: &str = "SELECT COUNT(*) FROM root_lists WHERE is_full AND day = $1";
        let count: i64 = on!(self.database.reads(), p => sqlx::query_scalar(COUNT).bind(day).fetch_one(p).await)?;
        Ok(count > 0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Progress {
    All,
    /// More entries are left than fit into the part of one list.
    More,
    /// Another process put a list with this number.
    Overtaken,
}
