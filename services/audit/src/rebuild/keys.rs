//! Brings back keys of days whose rows are gone.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::BoxFuture;
use tsujiban_core::error::chain;
use tsujiban_core::id::KeyId;
use tsujiban_database::on;
use tsujiban_history::leaf::Content;
use tsujiban_history::{Day, DayKeyId, Leaf, LogId};
use tsujiban_sealing::WrappedKey;

use super::Rebuild;
use crate::archive::{KeyCopy, Part};
use crate::bodies;
use crate::error::{Error, Result};
use crate::scrub::{Damaged, Kind};
use crate::service::Audit;

impl Audit {
    /// At start, before a log whose newest day has no key gets another one for the same day. Without the bucket the others go on.
    pub(crate) async fn bring_newest_keys(&self) {
        if let Err(error) = self.try_newest_keys().await {
            tracing::error!(error = chain(&error), "whether keys of days are missing could not be found out");
        }
    }

    async fn try_newest_keys(&self) -> Result<()> {
        const WITHOUT: &str =
            "SELECT l.log_id, (SELECT e.leaf FROM entries e WHERE e.log = h.log AND e.id IS NOT NULL ORDER BY e.sequence DESC LIMIT 1)
             FROM heads h JOIN logs l ON l.number = h.log
             WHERE h.size > 0 AND l.state <> 'erased' AND NOT EXISTS (SELECT 1 FROM day_keys k WHERE k.log = h.log AND k.day = h.day)";
        let rows: Vec<(Vec<u8>, Option<Vec<u8>>)> = on!(self.database.reads(), p => sqlx::query_as(WITHOUT).fetch_all(p).await)?;
        let mut wanted = BTreeSet::new();
        for (log, leaf) in rows {
            let Ok(log) = <[u8; 16]>::try_from(log).map(LogId::from_bytes) else { continue };
            if let Some(Ok(Leaf { content: Content::Entry { key, .. }, .. })) = leaf.as_deref().map(Leaf::parse) {
                wanted.insert((log, key));
            }
        }
        self.bring_keys(wanted).await.map(drop)
    }

    /// Looks for these keys in the bucket: in the sets of all keys first, then in the parts, the newest first. Those that are not there are looked
    /// for once. Answers how many came back.
    pub(crate) async fn bring_keys(&self, mut wanted: BTreeSet<(LogId, DayKeyId)>) -> Result<usize> {
        wanted.retain(|key| !self.lost_keys().contains(key));
        let count = wanted.len();
        if wanted.is_empty() {
            return Ok(0);
        }
        tracing::error!(keys = wanted.len(), "keys of days are missing; they are looked for in the bucket");
        let found = self.archived_keys().await?.into_iter().rev().chain(self.archive_parts().await?.into_iter().rev());
        let mut rebuild = Rebuild::of(self);
        for found in found {
            if wanted.is_empty() {
                break;
            }
            let Ok(part) = self.read_part(&found).await? else { continue };
            rebuild.wanted_keys(part, &mut wanted).await?;
        }
        for (log, key) in &wanted {
            tracing::error!(%log, key = hex::encode(key.as_bytes()), "the key of a day is not in the bucket, or no epoch key here opens it");
        }
        let found = count - wanted.len();
        self.lost_keys().extend(wanted);
        Ok(found)
    }
}

impl Rebuild<'_> {
    async fn wanted_keys(&mut self, part: Part, wanted: &mut BTreeSet<(LogId, DayKeyId)>) -> Result<()> {
        let id = |copy: &KeyCopy| (copy.log, DayKeyId::from_bytes(copy.key_id));
        let mut copies = BTreeMap::<_, Vec<KeyCopy>>::new();
        for copy in part.keys.into_iter().filter(|copy| wanted.contains(&id(copy))) {
            copies.entry(id(&copy)).or_default().push(copy);
        }
        for (key, copies) in copies {
            let day = copies.first().and_then(|copy| Day::from_number(copy.day));
            if self.keys(copies).await? == 0 {
                continue;
            }
            wanted.remove(&key);
            if let (Some(day), Ok(Some(log))) = (day, self.audit.log_by_id(&key.0).await) {
                let gone = Damaged::thing(format!("key of {day}"), "its row was gone");
                self.audit.note_healed(log.number, Kind::Key, gone).await?;
            }
        }
        Ok(())
    }

    /// Takes the keys that an epoch key here opens, and answers how many. A day that has expired stays unreadable.
    pub(super) fn keys(&mut self, copies: Vec<KeyCopy>) -> BoxFuture<'_, Result<usize>> {
        Box::pin(async move {
            const PUT: &str = "INSERT INTO day_keys (day, log, epoch, key_id, first, wrapped, superseded_at)
             SELECT $1, number, $2, $3, $4, $5, $6 FROM logs WHERE log_id = $7 ON CONFLICT DO NOTHING";
            let now = self.audit.now();
            let mut taken = Vec::new();
            for copy in copies {
                let Some(day) = Day::from_number(copy.day).filter(|day| !day.is_expired(now)) else { continue };
                let Ok(epoch) = copy.epoch.parse::<KeyId>() else { continue };
                if !self.is_here(&copy.log).await? {
                    self.later.push(copy);
                    continue;
                }
                if !self.keys.insert((copy.log, copy.day, copy.epoch.clone())) {
                    continue;
                }
                let wrapped = WrappedKey { epoch, bytes: copy.wrapped.clone() };
                let id = KeyId::from_bytes(copy.key_id);
                if self.audit.keyring.unwrap(&id, &bodies::subject(&copy.log, day), [&wrapped]).is_ok() {
                    taken.push(copy);
                }
            }
            tsujiban_database::transaction!(self.audit.database, tx => {
                for copy in &taken {
                    on!(tx.on(), c => sqlx::query(PUT)
                        .bind(copy.day)
                        .bind(copy.epoch.clone())
                        .bind(copy.key_id.to_vec())
                        .bind(copy.first.cast_signed())
                        .bind(copy.wrapped.clone())
                        .bind(copy.superseded_at)
                        .bind(copy.log.as_bytes().to_vec())
                        .execute(c)
                        .await
                        .map(drop))?;
                }
                Ok::<(), Error>(())
            })?;
            Ok(taken.len())
        })
    }
}
