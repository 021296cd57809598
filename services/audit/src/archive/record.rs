//! Puts parts, and records in the database what the archive contains.

use bytes::Bytes;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tsujiban_database::on;
use tsujiban_history::Day;
use tsujiban_history::merkle::sha256;
use tsujiban_objects::{LockUntil, StoreError};

use super::collect::Span;
use super::{Part, part_name};
use crate::error::{Error, Result};
use crate::service::Audit;

/// A part that was put, and the spans in it.
#[derive(Debug)]
pub(crate) struct Batch {
    pub name: String,
    pub number: u64,
    pub put_us: i64,
    /// The day on which its lock ends.
    pub lock_day: i64,
    pub spans: Vec<Span>,
}

impl Audit {
    pub(crate) async fn put_part(&self, part: &Part, spans: Vec<Span>, until: LockUntil) -> Result<Batch> {
        let bytes = part.encode(&self.key, &self.environment);
        let name = part_name(part.number, &sha256(&bytes));
        match self.store.put_new(&name, Bytes::from(bytes), Some(until)).await {
            // the same bytes under the same digest: the answer to an earlier put was lost
            Ok(_) | Err(StoreError::AlreadyExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Batch { name, number: part.number, put_us: part.put_us, lock_day: Day::of(until.time()).number(), spans })
    }

    /// Records the archived size of each log, and until when the locks last.
    pub(crate) fn record<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            const PART: &str = "INSERT INTO archive_parts (name, number, put_us) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
            const SIZE: &str = "INSERT INTO archived (log, size, generation, newest_first, newest_number) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (log) DO UPDATE SET size = excluded.size, generation = excluded.generation,
                 newest_first = excluded.newest_first, newest_number = excluded.newest_number
             WHERE archived.generation < excluded.generation OR (archived.generation = excluded.generation AND archived.size < excluded.size)";
            const SPAN: &str = "INSERT INTO archived_spans (log, lock_day, repeated, first, past) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (log, lock_day, repeated) DO UPDATE
             SET first = CASE WHEN excluded.first < archived_spans.first THEN excluded.first ELSE archived_spans.first END,
                 past = CASE WHEN excluded.past > archived_spans.past THEN excluded.past ELSE archived_spans.past END";
            const REPLACED: &str = "DELETE FROM archived_spans WHERE log = $1 AND lock_day = $2 AND past <= $3";
            const SHORTENED: &str = "UPDATE archived_spans SET first = $3 WHERE log = $1 AND lock_day = $2 AND first < $3";
            tsujiban_database::transaction!(self.database, tx => {
                on!(tx.on(), c => sqlx::query(PART)
                    .bind(batch.name.clone()).bind(batch.number.cast_signed()).bind(batch.put_us).execute(c).await.map(drop))?;
                for span in &batch.spans {
                    let (first, past) = (span.first.cast_signed(), span.past.cast_signed());
                    if let Some(lock_day) = span.replaces {
                        on!(tx.on(), c => sqlx::query(REPLACED).bind(span.log).bind(lock_day).bind(past).execute(c).await.map(drop))?;
                        on!(tx.on(), c => sqlx::query(SHORTENED).bind(span.log).bind(lock_day).bind(past).execute(c).await.map(drop))?;
                    }
                    if !span.repeated {
                        on!(tx.on(), c => sqlx::query(SIZE)
                            .bind(span.log).bind(past).bind(i64::from(span.generation)).bind(first).bind(batch.number.cast_signed()).execute(c).await.map(drop))?;
                    }
                    on!(tx.on(), c => sqlx::query(SPAN)
                        .bind(span.log).bind(batch.lock_day).bind(span.repeated).bind(first).bind(past).execute(c).await.map(drop))?;
                }
                Ok::<(), Error>(())
            })
        })
    }

    /// Archives a log again from its first entry, since it no longer continues the log in the archive. Lists name it as it is now.
    pub(crate) fn archive_anew(&self, log: i64, size: u64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            const ANEW: &str = "INSERT INTO archived (log, size, generation, newest_first, newest_number) VALUES ($1, 0, 1, 0, 0)
             ON CONFLICT (log) DO UPDATE SET size = 0, generation = archived.generation + 1, newest_first = 0, newest_number = 0";
            const LISTED: &str = "INSERT INTO listed (log, size) VALUES ($1, $2) ON CONFLICT (log) DO UPDATE SET size = excluded.size";
            const SPANS: &str = "DELETE FROM archived_spans WHERE log = $1";
            tsujiban_database::transaction!(self.database, tx => {
                on!(tx.on(), c => sqlx::query(ANEW).bind(log).execute(c).await.map(drop))?;
                on!(tx.on(), c => sqlx::query(LISTED).bind(log).bind(size.cast_signed()).execute(c).await.map(drop))?;
                on!(tx.on(), c => sqlx::query(SPANS).bind(log).execute(c).await.map(drop))?;
                Ok::<(), Error>(())
            })
        })
    }
}

/// The day on which the lock ends on a part that was put at this time.
pub(crate) fn lock_day(put_us: i64) -> i64 {
    let put = Timestamp::from_microsecond(put_us).unwrap_or(Timestamp::UNIX_EPOCH);
    put.checked_add(super::LOCKED).map_or(0, |until| Day::of(until).number())
}
