//! Day keys follow the epoch keys: a new epoch key wraps all of them, and a day later the wrappings by the previous one are deleted. From
//! then on, an older copy of the database opens nothing that was destroyed since.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tsujiban_core::error::chain;
use tsujiban_core::id::KeyId;
use tsujiban_database::{Backend, on};
use tsujiban_history::{Day, LogId};
use tsujiban_sealing::{EpochKey, KeyError, OVERLAP, SealedEpochKey, WrappedKey};

use crate::bodies;
use crate::error::{Error, Result};
use crate::service::Audit;
use crate::signing::{NO_LOG, SUBJECT};

const AT_ONCE: i64 = 1000;

/// The wrappings of one day's key.
struct Wrapped {
    day: i64,
    log: i64,
    key_id: Vec<u8>,
    first: i64,
    subject: String,
    wrappings: Vec<WrappedKey>,
}

/// What a rotation did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rotated {
    pub rewrapped: u64,
    pub retired: u64,
    /// Keys that no mounted epoch key opens.
    pub unopened: u64,
}

impl Audit {
    /// Loads the epoch keys that are mounted now, wraps the keys that the newest one does not wrap yet, and deletes wrappings that were
    /// superseded a day ago.
    pub async fn rotate_keys(&self, mounted: &[SealedEpochKey]) -> Result<Rotated> {
        self.keyring.replace_epochs(mounted)?;
        let epoch = self.keyring.newest_epoch()?;
        let mut rotated = Rotated::default();
        let mut after = (i64::MIN, i64::MIN);
        loop {
            let page = self.not_under(&epoch, after).await?;
            let Some(last) = page.last_key_value() else { break };
            after = *last.0;
            let (mut rows, now) = (Vec::new(), self.now());
            for key in page.into_values() {
                match self.rewrap(&key, &epoch) {
                    Ok(wrapped) => rows.push((key, wrapped)),
                    Err(KeyError::EpochMissing(_) | KeyError::Sealing(_)) => rotated.unopened += 1,
                    Err(error) => return Err(error.into()),
                }
            }
            rotated.rewrapped += u64::try_from(rows.len()).unwrap_or_default();
            self.put(&rows, now).await?;
        }
        // copies in the bucket become useless with the old epoch key: put the keys there under the newest one first
        match self.archive_keys(epoch.id()).await {
            Ok(true) => rotated.retired = self.retire(epoch.id()).await?,
            Ok(false) => {}
            Err(error) => tracing::warn!(error = chain(&error), "the day keys cannot be put into the bucket; older wrappings stay"),
        }
        if rotated.unopened == 0 {
            self.keyring.forget_unmounted();
        }
        self.metrics.keys_unopened.set(i64::try_from(rotated.unopened).unwrap_or(i64::MAX));
        if rotated.retired > 0 {
            self.database.flush_log().await?;
        }
        Ok(rotated)
    }

    /// The epoch keys that still wrap a key.
    pub async fn epochs_in_use(&self) -> Result<Vec<String>> {
        const USED: &str = "SELECT DISTINCT epoch FROM day_keys ORDER BY epoch";
        let mut epochs: Vec<String> = on!(self.database.reads(), p => sqlx::query_scalar(USED).fetch_all(p).await)?;
        if let Some(own) = self.own() {
            let spool = own.epochs_in_use().map_err(|error| Error::Damaged(chain(&error)))?;
            epochs.extend(spool.iter().map(KeyId::to_string));
        }
        epochs.sort_unstable();
        epochs.dedup();
        Ok(epochs)
    }

    fn rewrap(&self, key: &Wrapped, epoch: &EpochKey) -> Result<WrappedKey, KeyError> {
        let id = <[u8; 16]>::try_from(key.key_id.as_slice()).map(KeyId::from_bytes).map_err(|_| KeyError::Destroyed)?;
        self.keyring.rewrap(&id, &key.subject, &key.wrappings, epoch, &self.random)
    }

    /// Keys that this epoch key does not wrap, with all of their wrappings, by day and log.
    async fn not_under(&self, epoch: &EpochKey, after: (i64, i64)) -> Result<BTreeMap<(i64, i64), Wrapped>> {
        const OF: &str = "SELECT k.day, k.log, k.key_id, k.first, k.epoch, k.wrapped, l.log_id
             FROM day_keys k LEFT JOIN logs l ON l.number = k.log
             WHERE (k.day, k.log) > ($1, $2)
                 AND NOT EXISTS (SELECT 1 FROM day_keys n WHERE n.day = k.day AND n.log = k.log AND n.epoch = $3)
             ORDER BY k.day, k.log, k.superseded_at IS NOT NULL LIMIT $4";
        type Row = (i64, i64, Vec<u8>, i64, String, Vec<u8>, Option<Vec<u8>>);
        let rows: Vec<Row> = on!(self.database.reads(), p => sqlx::query_as(OF)
            .bind(after.0).bind(after.1).bind(epoch.id().to_string()).bind(AT_ONCE).fetch_all(p).await)?;
        let cut = i64::try_from(rows.len()).is_ok_and(|rows| rows == AT_ONCE);
        let mut keys: BTreeMap<(i64, i64), Wrapped> = BTreeMap::new();
        for (day, log, key_id, first, wrapped_by, bytes, log_id) in rows {
            let damaged = || Error::Damaged(format!("the key of day {day} of log {log}"));
            let subject = if log == NO_LOG {
                SUBJECT.to_owned()
            } else {
                let id = log_id.and_then(|id| id.try_into().ok()).map(LogId::from_bytes).ok_or_else(damaged)?;
                bodies::subject(&id, Day::from_number(day).ok_or_else(damaged)?)
            };
            let wrapping = WrappedKey { epoch: wrapped_by.parse().map_err(|_| damaged())?, bytes };
            let key = keys.entry((day, log)).or_insert_with(|| Wrapped { day, log, key_id, first, subject, wrappings: Vec::new() });
            key.wrappings.push(wrapping);
        }
        if cut && keys.len() > 1 {
            // the last key may have more wrappings
            keys.pop_last();
        }
        Ok(keys)
    }

    /// Stores new wrappings beside the old ones. A key that was destroyed meanwhile stays destroyed.
    async fn put(&self, rows: &[(Wrapped, WrappedKey)], now: Timestamp) -> Result<()> {
        const SUPERSEDE: &str = "UPDATE day_keys SET superseded_at = $3 WHERE day = $1 AND log = $2 AND superseded_at IS NULL";
        const PUT: &str = "INSERT INTO day_keys (day, log, epoch, key_id, first, wrapped, superseded_at)
             VALUES ($1, $2, $3, $4, $5, $6, NULL) ON CONFLICT DO NOTHING";
        tsujiban_database::transaction!(self.database, tx => {
            for (key, wrapped) in rows {
                let superseded = on!(tx.on(), c => sqlx::query(SUPERSEDE)
                    .bind(key.day).bind(key.log).bind(now.as_microsecond()).execute(c).await.map(|done| done.rows_affected()))?;
                if superseded > 0 {
                    on!(tx.on(), c => sqlx::query(PUT)
                        .bind(key.day)
                        .bind(key.log)
                        .bind(wrapped.epoch.to_string())
                        .bind(key.key_id.clone())
                        .bind(key.first)
                        .bind(wrapped.bytes.clone())
                        .execute(c)
                        .await
                        .map(drop))?;
                }
            }
            Ok::<_, Error>(())
        })
    }

    async fn retire(&self, newest: &KeyId) -> Result<u64> {
        const RETIRE: &str = "DELETE FROM day_keys WHERE superseded_at <= ? AND EXISTS (SELECT 1 FROM day_keys n
             WHERE n.day = day_keys.day AND n.log = day_keys.log AND n.superseded_at IS NULL AND n.epoch = ?)";
        let before = self.now().checked_sub(OVERLAP).unwrap_or(Timestamp::MIN).as_microsecond();
        match self.database.writes() {
            Backend::Sqlite(p) => Ok(sqlx::query(RETIRE).bind(before).bind(newest.to_string()).execute(p).await?.rows_affected()),
            Backend::Postgres(p) => {
                let gone: i64 = sqlx::query_scalar("SELECT retire_wrappings($1)").bind(before).fetch_one(p).await?;
                Ok(gone.cast_unsigned())
            }
        }
    }
}
