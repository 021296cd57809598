//! The next list.

use std::collections::BTreeMap;

use bytes::Bytes;
use tsujiban_core::error::chain;
use tsujiban_database::on;
use tsujiban_history::merkle::Hash;
use tsujiban_history::roots::{RootList, Scope};
use tsujiban_history::{JstTime, LogId, TreeHead};
use tsujiban_objects::{LockUntil, StoreError};

use super::LOCKED;
use super::compare::NONE_BEFORE;
use crate::engine;
use crate::error::{Error, Result};
use crate::service::Audit;

impl Audit {
    /// Puts a list of what has changed, or of everything once a day, or when it is asked for. Nothing when nothing has changed.
    pub(super) async fn publish(&self, full: bool) -> Result<Option<RootList>> {
        let (known, now) = (self.known().await?, self.now());
        let day = JstTime::new(now).day().number();
        let full = full || !self.has_full_of(day).await?;
        let roots = self.heads(full).await?;
        if roots.is_empty() {
            self.metrics.root_list_timestamp.set(now.as_duration().as_secs_f64());
            return Ok(None);
        }
        let list = RootList {
            environment: self.environment.clone(),
            number: known.as_ref().map_or(0, |known| known.number) + 1,
            // a list is not older than the one before, whatever the clock says
            time: JstTime::new(known.as_ref().map_or(now, |known| known.at.max(now))),
            scope: if full { Scope::Full } else { Scope::Changed },
            previous: known.map_or(NONE_BEFORE, |known| known.hash),
            roots,
        };
        let signed = list.sign(&self.key).map_err(|error| Error::Damaged(chain(&error)))?;
        let key = RootList::object_name(list.number);
        let until = now.checked_add(LOCKED).map_err(|_| Error::Damaged("the clock is at the end of time".to_owned()))?;
        match self.store.put_new(&key, Bytes::from(signed), Some(LockUntil::at_least(until))).await {
            Ok(_) => {}
            // an answer was lost, or another replica was faster: the next comparison takes up what is there
            Err(StoreError::AlreadyExists { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        self.note(&list).await?;
        Ok(Some(list))
    }

    async fn has_full_of(&self, day: i64) -> Result<bool> {
        const COUNT: &str = "SELECT COUNT(*) FROM root_lists WHERE is_full AND day = $1";
        let count: i64 = on!(self.database.reads(), p => sqlx::query_scalar(COUNT).bind(day).fetch_one(p).await)?;
        Ok(count > 0)
    }

    /// The heads of all logs, or of those that are not what the lists say.
    async fn heads(&self, all: bool) -> Result<BTreeMap<LogId, TreeHead>> {
        const HEADS: &str = "SELECT l.log_id, h.size, h.peaks FROM heads h JOIN logs l ON l.number = h.log
             LEFT JOIN listed s ON s.log = h.log WHERE h.size > 0 AND ($1 OR s.size IS NULL OR s.size <> h.size)";
        let rows: Vec<(Vec<u8>, i64, Vec<u8>)> = on!(self.database.reads(), p => sqlx::query_as(HEADS).bind(all).fetch_all(p).await)?;
        let head = |(id, size, peaks): (Vec<u8>, i64, Vec<u8>)| {
            let damaged = || Error::Damaged("a head of a log".to_owned());
            let id = LogId::from_bytes(id.try_into().map_err(|_| damaged())?);
            let edge = engine::edge(size, &peaks).ok_or_else(damaged)?;
            Ok((id, TreeHead { size: edge.end(), root: edge.root().unwrap_or(Hash::EMPTY) }))
        };
        rows.into_iter().map(head).collect()
    }
}
