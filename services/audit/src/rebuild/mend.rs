//! Repairs missing or wrong heads and missing rows, from the remaining rows and from the archive.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;
use tsujiban_database::on;
use tsujiban_history::merkle::{Range, leaf_hash};
use tsujiban_history::{Day, Leaf};

use crate::archive::ArchivedEntry;
use crate::error::{Error, Result};
use crate::reading::{Log, Stored, Wrong};
use crate::scrub::{Damaged, Kind};
use crate::service::Audit;

const PORTION: u64 = 4096;

impl Audit {
    /// Computes missing or wrong heads of logs from their leaves. The comparison with the root lists then checks them.
    pub(super) async fn mend_heads(&self, numbers: &[i64]) -> Result<()> {
        let mut mended = false;
        for number in numbers {
            mended |= self.mend_head(*number).await?;
        }
        // once for all logs, since it reads the cached ids again
        if mended { Ok(self.engine.forget().await?) } else { Ok(()) }
    }

    async fn mend_head(&self, number: i64) -> Result<bool> {
        const PUT: &str = "INSERT INTO heads (log, size, peaks, day) VALUES ($1, $2, $3, $4)
             ON CONFLICT (log) DO UPDATE SET size = excluded.size, peaks = excluded.peaks, day = excluded.day";
        const SIZE: &str = "SELECT size FROM heads WHERE log = $1";
        let log = match self.log_by_number(number).await {
            Ok(log) => log,
            Err(Error::Damaged(_)) => None,
            Err(error) => return Err(error),
        };
        if let Some(log) = &log
            && self.inconsistency(log).await?.is_none()
        {
            return Ok(false);
        }
        let (edge, day) = self.edge_of_rows(number).await?;
        let size: Option<i64> = on!(self.database.reads(), p => sqlx::query_scalar(SIZE).bind(number).fetch_optional(p).await)?;
        // a head never becomes smaller; missing rows are restored elsewhere
        if size.is_some_and(|size| edge.end() < size.cast_unsigned()) || log.is_some_and(|log| edge == log.edge) {
            return Ok(false);
        }
        let peaks: Vec<u8> = edge.hashes().flat_map(|hash| *hash.as_bytes()).collect();
        on!(self.database.writes(), p => sqlx::query(PUT)
            .bind(number).bind(edge.end().cast_signed()).bind(peaks.clone()).bind(day).execute(p).await.map(drop))?;
        tracing::warn!(log = number, size = edge.end(), "the head of a log was computed anew from its entries");
        Ok(true)
    }

    /// The edge of the tree of a log's rows, healed ones included, up to the first missing or misplaced row, and the day of the last.
    async fn edge_of_rows(&self, number: i64) -> Result<(Range, i64)> {
        const DAY: &str = "SELECT COALESCE(MAX(day), $3) FROM entries WHERE log = $1 AND sequence < $2";
        let mut edge = Range::empty(0);
        'rows: loop {
            let (from, past) = (edge.end(), edge.end().saturating_add(PORTION));
            for (sequence, leaf) in self.leaf_rows(number, from, past).await? {
                if sequence != edge.end() || Leaf::parse(&leaf).ok().is_none_or(|leaf| leaf.sequence != sequence) {
                    break 'rows;
                }
                edge.append_hash(leaf_hash(&leaf), |_, _| ()).map_err(|error| Error::Damaged(error.to_string()))?;
            }
            if edge.end() < past {
                break;
            }
        }
        let never = Day::of(jiff::Timestamp::UNIX_EPOCH).number();
        let day: i64 = on!(self.database.reads(), p => sqlx::query_scalar(DAY)
            .bind(number).bind(edge.end().cast_signed()).bind(never).fetch_one(p).await)?;
        Ok((edge, day))
    }

    /// Restores missing rows of a log, and returns whether it restored any. Does not change wrong rows.
    pub(crate) async fn mend_rows(&self, log: &Log) -> Result<bool> {
        const COUNT: &str = "SELECT COUNT(*) FROM (SELECT sequence FROM entries WHERE log = $1
             UNION SELECT sequence FROM healed_entries WHERE log = $1) AS there";
        let rows: i64 = on!(self.database.reads(), p => sqlx::query_scalar(COUNT).bind(log.number).fetch_one(p).await)?;
        if rows.cast_unsigned() < log.size() { self.mend_rows_of(log).await } else { Ok(false) }
    }

    async fn mend_rows_of(&self, log: &Log) -> Result<bool> {
        const ROWS: &str = "SELECT sequence FROM entries WHERE log = $1 AND sequence >= $2
             UNION SELECT sequence FROM healed_entries WHERE log = $1 AND sequence >= $2 ORDER BY sequence LIMIT $3";
        let (mut next, mut missing) = (0_u64, Vec::new());
        while next < log.size() {
            let rows: Vec<i64> = on!(self.database.reads(), p => sqlx::query_scalar(ROWS)
                .bind(log.number).bind(next.cast_signed()).bind(PORTION.cast_signed()).fetch_all(p).await)?;
            let is_last = rows.is_empty();
            for sequence in rows.into_iter().map(i64::cast_unsigned) {
                missing.extend(next..sequence);
                next = sequence.saturating_add(1);
            }
            if is_last {
                missing.extend(next..log.size());
                next = log.size();
            }
        }
        self.put_rows_back(log, &missing).await
    }

    async fn put_rows_back(&self, log: &Log, missing: &[u64]) -> Result<bool> {
        let (now, mut back) = (self.now(), 0_u64);
        let mut wanted: BTreeSet<u64> = missing.iter().copied().collect();
        // parts also repeat leaves without bodies
        let mut without_body: BTreeMap<u64, ArchivedEntry> = BTreeMap::new();
        let mut parts = self.read_parts(self.archive_parts().await?.into_iter().rev().collect());
        while let Some((_, part)) = parts.try_next().await? {
            if wanted.is_empty() {
                break;
            }
            let Ok(part) = part else { continue };
            for section in part.sections {
                if section.log != log.id {
                    continue;
                }
                for (sequence, entry) in (section.first..).zip(section.entries) {
                    if entry.leaf.is_empty() || !wanted.contains(&sequence) {
                        continue;
                    }
                    if entry.is_whole(now) {
                        wanted.remove(&sequence);
                        self.put_row_back(log, sequence, entry).await?;
                        back += 1;
                    } else {
                        without_body.insert(sequence, entry);
                    }
                }
            }
        }
        for (sequence, entry) in without_body {
            if wanted.remove(&sequence) {
                self.put_row_back(log, sequence, entry).await?;
                back += 1;
            }
        }
        if back > 0 {
            self.engine.forget().await?;
            let there = missing.iter().copied().filter(|sequence| !wanted.contains(sequence));
            for run in Damaged::runs(there, Wrong::Missing) {
                self.note_healed(log.number, Kind::Entries, &run).await?;
            }
            tracing::warn!(log = %log.id, rows = back, left = wanted.len(), "rows of the history that were gone came back from the archive");
        }
        Ok(back > 0)
    }

    async fn put_row_back(&self, log: &Log, sequence: u64, entry: ArchivedEntry) -> Result<()> {
        let day = Day::from_number(entry.day);
        let is_expired = day.is_none_or(|day| day.is_expired(self.now()));
        let row = Stored {
            sequence,
            day,
            time_us: entry.time_us,
            appended_us: entry.appended_us,
            leaf: entry.leaf,
            id: entry.id.map(|id| id.to_vec()),
            sealed: entry.sealed.filter(|_| !is_expired),
        };
        self.put_back(log.number, &row).await.map(drop)
    }
}
