//! The expiry of a day (C5): entries of day D are readable to the end of D+365, and unreadable from 00:00 JST of D+366. The day's key and
//! bodies are destroyed, and a leaf records this; leaves and tree stay, so that every proof is still valid.
//!
//! Columns decide nothing here: a key belongs to the day for which it was wrapped, and to the entries whose leaves name it. Rows that
//! contradict this are not destroyed, and count as overdue.

mod extent;

use futures::{StreamExt, stream};
use tsujiban_core::error::chain;
use tsujiban_core::id::KeyId;
use tsujiban_database::{Backend, on};
use tsujiban_history::leaf::{Content, Retention};
use tsujiban_history::{Day, DayKeyId, Leaf};
use tsujiban_sealing::{KeyError, WrappedKey};

use self::extent::Extent;
use crate::bodies;
use crate::engine::{EngineError, GoneDay, Statement};
use crate::error::{Error, Result};
use crate::reading::Log;
use crate::service::Audit;
use crate::signing::NO_LOG;

/// How many days of logs are read at once, and how many of them are destroyed at the same time.
const AT_ONCE: i64 = 1000;
const TOGETHER: usize = 32;
/// How many entries whose rows name another day than their keys are healed for one day.
const STRAYS: i64 = 100;

/// A log's day that is to be destroyed.
#[derive(Debug)]
struct Due {
    log: i64,
    day: Day,
    key: DayKeyId,
    first: u64,
}

impl Audit {
    /// Destroys the days that have expired by both this service's clock and the database's. Returns how many days of logs it destroyed.
    pub async fn expire(&self) -> Result<u64> {
        let newest = Day::newest_expired(self.now()).min(self.newest_expired_there().await?);
        let (mut gone, mut after) = (0, (i64::MIN, i64::MIN));
        loop {
            let (due, last) = self.due(newest, after).await?;
            let Some(last) = last else { break };
            after = last;
            let mut destroyed = stream::iter(due.into_iter().map(|due| self.destroy(due))).buffer_unordered(TOGETHER);
            while let Some(done) = destroyed.next().await {
                match done {
                    Ok(()) => gone += 1,
                    // a refused log accepts no retention until it is consistent again; days of other logs are destroyed
                    Err(Error::Engine(EngineError::LogRefused { .. })) => {}
                    Err(error @ (Error::Damaged(_) | Error::Key(_))) => {
                        tracing::error!(error = chain(&error), "an expired day is not destroyed: what is stored of it contradicts itself");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        if gone > 0 {
            // deleted data must not stay in the database's write-ahead log
            self.database.flush_log().await?;
            self.metrics.expired_days.inc_by(gone);
            tracing::info!(days = gone, "expired days of logs were destroyed");
        }
        self.metrics.expiry_overdue_days.set(self.overdue().await?);
        Ok(gone)
    }

    /// The newest day that has expired by the database's own clock, which protects all later days.
    async fn newest_expired_there(&self) -> Result<Day> {
        let today: i64 = match self.database.reads() {
            Backend::Sqlite(p) => {
                sqlx::query_scalar("SELECT (CAST(strftime('%s', 'now') AS INTEGER) + 32400) / 86400").fetch_one(p).await?
            }
            Backend::Postgres(p) => sqlx::query_scalar("SELECT history_today()").fetch_one(p).await?,
        };
        let today = Day::from_number(today).ok_or_else(|| Error::Damaged("the database's clock".to_owned()))?;
        Ok(Day::newest_expired(today.starts()))
    }

    async fn due(&self, newest: Day, after: (i64, i64)) -> Result<(Vec<Due>, Option<(i64, i64)>)> {
        const DUE: &str = "SELECT day, log, key_id, first FROM day_keys
             WHERE day <= $1 AND log <> $2 AND (day, log) > ($3, $4) AND superseded_at IS NULL ORDER BY day, log LIMIT $5";
        type Row = (i64, i64, Vec<u8>, i64);
        let rows: Vec<Row> = on!(self.database.reads(), p => sqlx::query_as(DUE)
            .bind(newest.number()).bind(NO_LOG).bind(after.0).bind(after.1).bind(AT_ONCE).fetch_all(p).await)?;
        let due = |(day, log, key, first): Row| {
            let damaged = || Error::Damaged(format!("the key of a day of log {log}"));
            let key = DayKeyId::from_bytes(key.try_into().map_err(|_| damaged())?);
            Ok(Due { log, day: Day::from_number(day).ok_or_else(damaged)?, key, first: first.cast_unsigned() })
        };
        // a day whose row cannot be read stays overdue, and does not block other days
        let readable = |row: Row| due(row).inspect_err(|error: &Error| tracing::error!(%error, "an expired day is not destroyed")).ok();
        let last = rows.last().map(|(day, log, ..)| (*day, *log));
        Ok((rows.into_iter().filter_map(readable).collect(), last))
    }

    /// How many days of logs have expired and are not destroyed: none, unless something prevents it.
    async fn overdue(&self) -> Result<i64> {
        const COUNT: &str = "SELECT COUNT(*) FROM day_keys WHERE day <= $1 AND log <> $2 AND superseded_at IS NULL";
        let newest = Day::newest_expired(self.now()).number();
        Ok(on!(self.database.reads(), p => sqlx::query_scalar(COUNT).bind(newest).bind(NO_LOG).fetch_one(p).await)?)
    }

    async fn destroy(&self, due: Due) -> Result<()> {
        let gone = || Error::Damaged(format!("log {} is gone, and keys of it are not", due.log));
        let log = self.log_by_number(due.log).await?.ok_or_else(gone)?;
        self.must_be_of_its_day(&log, &due).await?;
        let Extent { first, last, count } = self.extent(&log, due.key, due.first).await?;
        self.keep_strays(&log, &due, first..last.saturating_add(1)).await?;
        let gone = GoneDay { log: due.log, day: due.day.number(), first: first.cast_signed(), last: last.cast_signed() };
        let retention = Retention { day: due.day, key: due.key, first, last, count };
        let leaf = move |sequence| Ok(Leaf { sequence, content: Content::Retention(retention.clone()) });
        // the leaf and the destruction are one transaction
        self.engine.state(Statement { log: due.log, leaf: Box::new(leaf), gone: Some(gone), lawful: false }).await?;
        Ok(())
    }

    /// Fails unless the key is of the day in its row: it was wrapped for that day and opens for no other.
    async fn must_be_of_its_day(&self, log: &Log, due: &Due) -> Result<()> {
        const OF: &str = "SELECT epoch, wrapped FROM day_keys WHERE log = $1 AND day = $2";
        let rows: Vec<(String, Vec<u8>)> =
            on!(self.database.reads(), p => sqlx::query_as(OF).bind(due.log).bind(due.day.number()).fetch_all(p).await)?;
        let wrapped = rows.into_iter().filter_map(|(epoch, bytes)| Some(WrappedKey { epoch: epoch.parse::<KeyId>().ok()?, bytes }));
        let wrapped: Vec<WrappedKey> = wrapped.collect();
        match self.keyring.unwrap(&due.key.into(), &bodies::subject(&log.id, due.day), &wrapped) {
            Ok(_) => Ok(()),
            Err(error @ KeyError::EpochMissing(_)) => Err(error.into()),
            Err(_) => Err(Error::Damaged(format!("the key of {} of log {} does not open as that of this day", due.day, log.id))),
        }
    }

    /// PostgreSQL destroys the bodies of all rows with this day. Rows of other days that wrongly have it are healed first: the healed rows
    /// take precedence, and stay.
    async fn keep_strays(&self, log: &Log, due: &Due, own: std::ops::Range<u64>) -> Result<()> {
        if let Backend::Sqlite(_) = self.database.reads() {
            // SQLite destroys only the rows of the span
            return Ok(());
        }
        for sequence in self.strays(due, &own).await? {
            self.heal_span(log, sequence..sequence.saturating_add(1)).await?;
        }
        match self.strays(due, &own).await?.first() {
            None => Ok(()),
            Some(stray) => {
                Err(Error::Damaged(format!("entry {stray} of log {} says that it is of {}, and its key does not", log.id, due.day)))
            }
        }
    }

    async fn strays(&self, due: &Due, own: &std::ops::Range<u64>) -> Result<Vec<u64>> {
        const OF: &str = "SELECT e.sequence FROM entries e WHERE e.log = $1 AND e.day = $2 AND e.sealed IS NOT NULL
             AND (e.sequence < $3 OR e.sequence >= $4)
             AND NOT EXISTS (SELECT 1 FROM healed_entries h WHERE h.log = e.log AND h.sequence = e.sequence) ORDER BY e.sequence LIMIT $5";
        let strays: Vec<i64> = on!(self.database.reads(), p => sqlx::query_scalar(OF)
            .bind(due.log)
            .bind(due.day.number())
            .bind(own.start.cast_signed())
            .bind(own.end.cast_signed())
            .bind(STRAYS)
            .fetch_all(p)
            .await)?;
        Ok(strays.into_iter().map(i64::cast_unsigned).collect())
    }
}
