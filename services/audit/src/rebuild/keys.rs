//! Restores day keys whose rows are missing.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;
use futures::future::BoxFuture;
use jiff::SignedDuration;
use tsujiban_core::id::KeyId;
use tsujiban_database::on;
use tsujiban_history::leaf::Content;
use tsujiban_history::{Day, DayKeyId, Leaf, LogId};
use tsujiban_sealing::WrappedKey;

use super::Rebuild;
use crate::archive::{KeyCopy, Part};
use crate::bodies;
use crate::error::{Error, Result};
use crate::reading::{DayKeys, KeyState};
use crate::scrub::{Damaged, Kind};
use crate::service::Audit;

/// How often missing keys are looked for while the scrub reads.
const LOOKED_FOR: SignedDuration = SignedDuration::from_mins(10);

impl Audit {
    /// Restores missing keys of the newest days. Called at start, before an entry makes another key for the same day.
    pub(crate) async fn bring_newest_keys(&self) -> Result<()> {
        const WITHOUT: &str = "SELECT h.log FROM heads h JOIN logs l ON l.number = h.log
             WHERE h.size > 0 AND l.state <> 'erased' AND NOT EXISTS (SELECT 1 FROM day_keys k WHERE k.log = h.log AND k.day = h.day)";
        const NEWEST: &str = "SELECT day, leaf FROM entries WHERE log = $1 AND id IS NOT NULL ORDER BY sequence DESC LIMIT 1";
        let logs: Vec<i64> = on!(self.database.reads(), p => sqlx::query_scalar(WITHOUT).fetch_all(p).await)?;
        let (mut wanted, mut oldest) = (BTreeSet::new(), None);
        for number in logs {
            // the comparison at start reports the damage
            let Ok(Some(log)) = self.log_by_number(number).await else { continue };
            let newest: Option<(i64, Vec<u8>)> =
                on!(self.database.reads(), p => sqlx::query_as(NEWEST).bind(number).fetch_optional(p).await)?;
            let Some((day, leaf)) = newest else { continue };
            let (Some(day), Ok(Leaf { content: Content::Entry { key, .. }, .. })) = (Day::from_number(day), Leaf::parse(&leaf)) else {
                continue;
            };
            let mut keys = DayKeys::default();
            self.find_keys(&log, &[(Some(key), Some(day))], &mut keys).await?;
            if matches!(keys.state(number, key), KeyState::Missing) {
                wanted.insert((log.id, key));
                oldest = oldest.min(Some(day)).or(Some(day));
            }
        }
        self.bring_keys(wanted, oldest).await.map(drop)
    }

    /// Restores keys that the scrub found missing: all together once everything has been read, and urgent ones before that, at most every
    /// ten minutes, since each search may read the whole archive. The scrub reads logs with restored keys again at once.
    pub(crate) async fn bring_missing_keys(&self, all_is_read: bool) -> Result<()> {
        const AGAIN: &str = "UPDATE scrubs SET began_at = 0, before = 0 WHERE log = (SELECT number FROM logs WHERE log_id = $1)";
        let wanted = {
            let (mut missing, now) = (self.missing_keys(), self.now());
            let may_look = missing.looked_at.is_none_or(|at| now.duration_since(at) >= LOOKED_FOR);
            if missing.wanted.is_empty() || !(all_is_read || (missing.is_urgent && may_look)) {
                return Ok(());
            }
            (missing.is_urgent, missing.looked_at) = (false, Some(now));
            std::mem::take(&mut missing.wanted)
        };
        for log in self.bring_keys(wanted, None).await? {
            on!(self.database.writes(), p => sqlx::query(AGAIN).bind(log.as_bytes().to_vec()).execute(p).await.map(drop))?;
        }
        Ok(())
    }

    /// Searches the bucket for these keys: first the sets of all keys, then the parts that were put since `since`, the newest first.
    /// Searches only once for keys that are not there. Returns the logs of which it restored keys.
    async fn bring_keys(&self, mut wanted: BTreeSet<(LogId, DayKeyId)>, since: Option<Day>) -> Result<BTreeSet<LogId>> {
        wanted.retain(|key| !self.missing_keys().not_in_bucket.contains(key));
        if wanted.is_empty() {
            return Ok(BTreeSet::new());
        }
        tracing::error!(keys = wanted.len(), "keys of days are missing; they are looked for in the bucket");
        let since_us = since.map_or(i64::MIN, |day| day.starts().as_microsecond());
        let found = self.archived_keys().await?.into_iter().rev().chain(self.archive_parts().await?.into_iter().rev());
        let (mut reading, mut rebuild, mut came_back) = (self.read_parts(found.collect()), Rebuild::of(self), BTreeSet::new());
        while let Some((found, part)) = reading.try_next().await? {
            let Ok(part) = part else { continue };
            if found.number > 0 && part.put_us < since_us {
                break;
            }
            came_back.extend(rebuild.wanted_keys(part, &mut wanted).await?);
            if wanted.is_empty() {
                break;
            }
        }
        for (log, key) in &wanted {
            tracing::error!(%log, key = hex::encode(key.as_bytes()), "the key of a day is not in the bucket, or no epoch key here opens it");
        }
        self.missing_keys().not_in_bucket.extend(wanted);
        Ok(came_back)
    }
}

impl Rebuild<'_> {
    async fn wanted_keys(&mut self, part: Part, wanted: &mut BTreeSet<(LogId, DayKeyId)>) -> Result<BTreeSet<LogId>> {
        let id = |copy: &KeyCopy| (copy.log, DayKeyId::from_bytes(copy.key_id));
        let mut copies = BTreeMap::<_, Vec<KeyCopy>>::new();
        for copy in part.keys.into_iter().filter(|copy| wanted.contains(&id(copy))) {
            copies.entry(id(&copy)).or_default().push(copy);
        }
        let mut came_back = BTreeSet::new();
        for (key, copies) in copies {
            let day = copies.first().and_then(|copy| Day::from_number(copy.day));
            if self.keys(copies).await? == 0 {
                continue;
            }
            wanted.remove(&key);
            came_back.insert(key.0);
            if let (Some(day), Ok(Some(log))) = (day, self.audit.log_by_id(&key.0).await) {
                let gone = Damaged::thing(format!("key of {day}"), "its row was gone");
                self.audit.note_healed(log.number, Kind::Key, &gone).await?;
            }
        }
        Ok(came_back)
    }

    /// Restores the keys that a mounted epoch key opens, and returns how many were missing. Does not restore keys of expired days, or of
    /// days that have got another key.
    pub(super) fn keys(&mut self, copies: Vec<KeyCopy>) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move {
            const PUT: &str = "INSERT INTO day_keys (day, log, epoch, key_id, first, wrapped, superseded_at)
             SELECT $1, number, $2, $3, $4, $5, $6 FROM logs WHERE log_id = $7
                 AND NOT EXISTS (SELECT 1 FROM day_keys k WHERE k.log = logs.number AND k.day = $1 AND k.key_id <> $3)
             ON CONFLICT DO NOTHING";
            let now = self.audit.now();
            let mut taken = Vec::new();
            for copy in copies {
                let Some(day) = Day::from_number(copy.day).filter(|day| !day.is_expired(now)) else { continue };
                let Ok(epoch) = copy.epoch.parse::<KeyId>() else { continue };
                if !self.has_local_log(&copy.log).await? {
                    self.later.push(copy);
                    continue;
                }
                let name = (copy.log, copy.day, copy.epoch.clone());
                if self.keys.contains(&name) {
                    continue;
                }
                let wrapped = WrappedKey { epoch, bytes: copy.wrapped.clone() };
                let id = KeyId::from_bytes(copy.key_id);
                if self.audit.keyring.unwrap(&id, &bodies::subject(&copy.log, day), [&wrapped]).is_ok() {
                    self.keys.insert(name);
                    taken.push(copy);
                }
            }
            tsujiban_database::transaction!(self.audit.database, tx => {
                let mut count = 0;
                for copy in &taken {
                    count += on!(tx.on(), c => sqlx::query(PUT)
                        .bind(copy.day)
                        .bind(copy.epoch.clone())
                        .bind(copy.key_id.to_vec())
                        .bind(copy.first.cast_signed())
                        .bind(copy.wrapped.clone())
                        .bind(copy.superseded_at)
                        .bind(copy.log.as_bytes().to_vec())
                        .execute(c)
                        .await
                        .map(|done| done.rows_affected()))?;
                }
                Ok::<u64, Error>(count)
            })
        })
    }
}
