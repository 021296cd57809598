//! Rows of entries. A healed row takes precedence over the damaged one.

use tsujiban_database::{Backend, is_unavailable, on};
use tsujiban_history::leaf::Content;
use tsujiban_history::{Day, DayKeyId, Leaf};

use crate::error::{Error, Result};
use crate::service::Audit;

/// An entry as it is stored. Only leaf and body are bound to the log; the other columns are hints.
#[derive(Debug, Clone)]
pub struct Stored {
    pub sequence: u64,
    /// `None` if the column has no valid day.
    pub day: Option<Day>,
    pub time_us: i64,
    pub appended_us: i64,
    pub leaf: Vec<u8>,
    /// By which duplicates are detected; a gap and a retention have none.
    pub id: Option<Vec<u8>>,
    /// `None` for a gap, a retention, and a destroyed day.
    pub sealed: Option<Vec<u8>>,
}

impl Stored {
    /// The key that the leaf names, and the day among whose keys to look first.
    pub(crate) fn key(&self) -> (Option<DayKeyId>, Option<Day>) {
        let id = match Leaf::parse(&self.leaf) {
            Ok(Leaf { content: Content::Entry { key, .. }, .. }) => Some(key),
            _ => None,
        };
        (id, self.day)
    }
}

type Row = (i64, i64, i64, i64, Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>);

/// The rows of some entries in their order, and the entries whose rows the database cannot read.
#[derive(Debug, Default)]
pub struct Rows {
    pub rows: Vec<Stored>,
    pub unreadable: Vec<u64>,
}

const ENTRIES: &str = "SELECT sequence, day, time_us, appended_us, leaf, id, sealed FROM entries
     WHERE log = $1 AND sequence >= $2 AND sequence < $3 ORDER BY sequence";
const HEALED: &str = "SELECT sequence, day, time_us, appended_us, leaf, id, sealed FROM healed_entries
     WHERE log = $1 AND sequence >= $2 AND sequence < $3 ORDER BY sequence";

impl Audit {
    /// The rows of up to `limit` slots from `from` on, in their order. Skips slots without a row.
    pub async fn entries(&self, log: i64, from: u64, limit: u32) -> Result<Vec<Stored>> {
        Ok(self.rows(log, from, from.saturating_add(limit.into())).await?.rows)
    }

    /// The rows of entries from `first` to before `end`. If the database cannot read them together, reads them one by one.
    pub(crate) async fn rows(&self, log: i64, first: u64, end: u64) -> Result<Rows> {
        let mut rows = match self.read(ENTRIES, log, first, end).await {
            Ok(rows) => Rows { rows, unreadable: Vec::new() },
            Err(error) if is_unavailable(&error) => return Err(error.into()),
            Err(_) => self.one_by_one(log, first, end).await?,
        };
        for healed in self.read(HEALED, log, first, end).await? {
            rows.unreadable.retain(|sequence| *sequence != healed.sequence);
            match rows.rows.binary_search_by_key(&healed.sequence, |row| row.sequence) {
                Ok(at) => rows.rows.splice(at..=at, [healed]).for_each(drop),
                Err(at) => rows.rows.insert(at, healed),
            }
        }
        Ok(rows)
    }

    async fn one_by_one(&self, log: i64, first: u64, end: u64) -> Result<Rows> {
        let mut rows = Rows::default();
        for sequence in first..end {
            match self.read(ENTRIES, log, sequence, sequence.saturating_add(1)).await {
                Ok(row) => rows.rows.extend(row),
                Err(error) if is_unavailable(&error) => return Err(error.into()),
                Err(_) => rows.unreadable.push(sequence),
            }
        }
        Ok(rows)
    }

    async fn read(&self, query: &'static str, log: i64, first: u64, end: u64) -> Result<Vec<Stored>, sqlx::Error> {
        // no sequence exceeds a signed column
        let end = i64::try_from(end).unwrap_or(i64::MAX);
        let rows: Vec<Row> = on!(self.database.reads(), p => sqlx::query_as(query)
            .bind(log).bind(first.cast_signed()).bind(end).fetch_all(p).await)?;
        Ok(rows.into_iter().map(stored).collect())
    }

    /// Inserts a missing row again, in the segment in which its id is looked up when it is sent again: callers have to call
    /// `Engine::forget` afterwards. Returns whether the row was missing.
    pub(crate) async fn put_back(&self, log: i64, entry: &Stored) -> Result<bool> {
        const PUT: &str = "INSERT INTO entries (log, sequence, day, time_us, appended_us, segment, id, leaf, sealed)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING";
        const SEGMENT: &str = "SELECT COALESCE(MAX(segment), 0) FROM segments";
        let day = entry.day.ok_or_else(|| Error::Damaged(format!("the day of entry {}", entry.sequence)))?;
        let segment: i64 = match self.database.reads() {
            Backend::Sqlite(pool) => sqlx::query_scalar(SEGMENT).fetch_one(pool).await?,
            Backend::Postgres(_) => Day::of(self.now()).number(),
        };
        let put = on!(self.database.writes(), p => sqlx::query(PUT)
            .bind(log)
            .bind(entry.sequence.cast_signed())
            .bind(day.number())
            .bind(entry.time_us)
            .bind(entry.appended_us)
            .bind(segment)
            .bind(entry.id.clone())
            .bind(entry.leaf.clone())
            .bind(entry.sealed.clone())
            .execute(p)
            .await
            .map(|done| done.rows_affected()))?;
        Ok(put > 0)
    }

    /// Stores the right form of an entry beside the damaged row.
    pub(crate) async fn put_healed(&self, log: i64, entry: &Stored) -> Result<()> {
        const PUT: &str = "INSERT INTO healed_entries (log, sequence, day, time_us, appended_us, id, leaf, sealed, healed_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING";
        let day = entry.day.ok_or_else(|| Error::Damaged(format!("the day of entry {}", entry.sequence)))?;
        let now = self.now().as_microsecond();
        on!(self.database.writes(), p => sqlx::query(PUT)
            .bind(log)
            .bind(entry.sequence.cast_signed())
            .bind(day.number())
            .bind(entry.time_us)
            .bind(entry.appended_us)
            .bind(entry.id.clone())
            .bind(entry.leaf.clone())
            .bind(entry.sealed.clone())
            .bind(now)
            .execute(p)
            .await
            .map(drop))?;
        Ok(())
    }
}

fn stored((sequence, day, time_us, appended_us, leaf, id, sealed): Row) -> Stored {
    Stored { sequence: sequence.cast_unsigned(), day: Day::from_number(day), time_us, appended_us, leaf, id, sealed }
}
