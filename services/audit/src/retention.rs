//! The end of a day (C5): what was done on day D is readable to the end of D+365, and unreadable from 00:00 JST of D+366. Its key and its
//! bodies are destroyed, and a leaf says so; leaves and tree stay, so that every proof still holds.

use tsujiban_database::{Backend, on};
use tsujiban_history::leaf::{Content, Retention};
use tsujiban_history::{Day, DayKeyId, Leaf};

use crate::engine::{EngineError, GoneDay, Statement};
use crate::error::{Error, Result};
use crate::service::Audit;
use crate::signing::NO_LOG;

/// How many days of logs are looked for at once.
const AT_ONCE: i64 = 1000;

/// A log's day that is to go.
#[derive(Debug)]
struct Due {
    log: i64,
    day: Day,
    key: DayKeyId,
    first: u64,
    last: u64,
}

impl Audit {
    /// Destroys what has expired by this service's clock and by the database's. Answers how many days of logs went.
    pub async fn expire(&self) -> Result<u64> {
        let newest = Day::newest_expired(self.now()).min(self.newest_expired_there().await?);
        let (mut gone, mut after) = (0, (i64::MIN, i64::MIN));
        loop {
            let due = self.due(newest, after).await?;
            let Some(last) = due.last() else { break };
            after = (last.day.number(), last.log);
            let destroyed = futures::future::join_all(due.iter().map(|due| self.destroy(due))).await;
            for done in destroyed {
                match done {
                    Ok(()) => gone += 1,
                    // nothing is stated in it until it holds together again; the others' days go
                    Err(Error::Engine(EngineError::LogRefused { .. })) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        if gone > 0 {
            // what was deleted must not be found in the database's log
            self.database.flush_log().await?;
            self.metrics.expired_days.inc_by(gone);
            tracing::info!(days = gone, "expired days of logs were destroyed");
        }
        self.metrics.expiry_overdue_days.set(self.overdue().await?);
        Ok(gone)
    }

    /// The newest day that has expired by the database's own clock, which guards the rest.
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

    async fn due(&self, newest: Day, after: (i64, i64)) -> Result<Vec<Due>> {
        // the day ends where the log's next day begins, or the log
        const DUE: &str = "SELECT k.day, k.log, k.key_id, k.first, COALESCE(
                (SELECT MIN(n.first) FROM day_keys n WHERE n.log = k.log AND n.day > k.day),
                (SELECT h.size FROM heads h WHERE h.log = k.log))
             FROM day_keys k WHERE k.day <= $1 AND k.log <> $2 AND (k.day, k.log) > ($3, $4) AND k.superseded_at IS NULL
             ORDER BY k.day, k.log LIMIT $5";
        type Row = (i64, i64, Vec<u8>, i64, i64);
        let rows: Vec<Row> = on!(self.database.reads(), p => sqlx::query_as(DUE)
            .bind(newest.number()).bind(NO_LOG).bind(after.0).bind(after.1).bind(AT_ONCE).fetch_all(p).await)?;
        let due = |(day, log, key, first, end): Row| {
            let damaged = || Error::Damaged(format!("the key of a day of log {log}"));
            let key = DayKeyId::from_bytes(key.try_into().map_err(|_| damaged())?);
            let last = end.cast_unsigned().saturating_sub(1);
            Ok(Due { log, day: Day::from_number(day).ok_or_else(damaged)?, key, first: first.cast_unsigned(), last })
        };
        rows.into_iter().map(due).collect()
    }

    /// How many days of logs are still there though they have expired: none, unless something is in the way.
    async fn overdue(&self) -> Result<i64> {
        const COUNT: &str = "SELECT COUNT(*) FROM day_keys WHERE day <= $1 AND log <> $2 AND superseded_at IS NULL";
        let newest = Day::newest_expired(self.now()).number();
        Ok(on!(self.database.reads(), p => sqlx::query_scalar(COUNT).bind(newest).bind(NO_LOG).fetch_one(p).await)?)
    }

    async fn destroy(&self, due: &Due) -> Result<()> {
        let gone = GoneDay { log: due.log, day: due.day.number(), first: due.first.cast_signed(), last: due.last.cast_signed() };
        let (first, last, count) = self.sealed_between(due).await?;
        let retention = Retention { day: due.day, key: due.key, first, last, count };
        let leaf = move |sequence| Ok(Leaf { sequence, content: Content::Retention(retention.clone()) });
        // the leaf and the destruction are one transaction
        self.engine.state(Statement { log: due.log, leaf: Box::new(leaf), gone: Some(gone), lawful: false }).await?;
        Ok(())
    }

    /// The first and the last entry under the key, and how many there are: between them lie gaps and retentions of other days.
    async fn sealed_between(&self, due: &Due) -> Result<(u64, u64, u64)> {
        const OF: &str = "SELECT COALESCE(MIN(sequence), $2), COALESCE(MAX(sequence), $2), COUNT(*) FROM entries
             WHERE log = $1 AND sequence >= $2 AND sequence <= $3 AND day = $4 AND id IS NOT NULL";
        let (first, last, count): (i64, i64, i64) = on!(self.database.reads(), p => sqlx::query_as(OF)
            .bind(due.log)
            .bind(due.first.cast_signed())
            .bind(due.last.cast_signed())
            .bind(due.day.number())
            .fetch_one(p)
            .await)?;
        Ok((first.cast_unsigned(), last.cast_unsigned(), count.cast_unsigned()))
    }
}
