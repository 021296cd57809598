//! A log as a file: for the verifier, or for a spreadsheet. It is read while it is sent, a portion at a time.

use std::collections::HashSet;

use jiff::Timestamp;
use tsujiban_core::error::chain;
use tsujiban_database::on;
use tsujiban_history::export::{CSV_HEADER, Footer, Header, Opened, Outside, csv_expired, csv_row, entry_line};
use tsujiban_history::merkle::Node;
use tsujiban_history::operation::{Outcome, Phase};
use tsujiban_history::{Leaf, Operation};

use crate::error::{Error, Result};
use crate::reading::{DayKeys, Log};
use crate::service::Audit;

/// How many entries are read at once.
const PORTION: u32 = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For the verifier: every leaf of the span, what opens it, and what proves it.
    JsonLines,
    /// For a spreadsheet: operations.
    Csv,
}

/// An export on its way: of the log as it was when it began.
pub struct Export {
    log: Log,
    format: Format,
    first: u64,
    end: u64,
    at: Step,
    /// Intents without an outcome.
    open: HashSet<u64>,
    keys: DayKeys,
}

enum Step {
    Head,
    Entry(u64),
    /// Gaps and retentions outside of the span, from this one on.
    Outside(u64),
    Foot,
    Done,
}

impl Export {
    /// Of the entries that were appended in a span of time; the end is not included.
    pub async fn begin(audit: &Audit, log: Log, (from, to): (Option<Timestamp>, Option<Timestamp>), format: Format) -> Result<Self> {
        let log = audit.covered(&log).await?;
        let first = match from {
            Some(from) => audit.first_appended(&log, from.as_microsecond()).await?,
            None => 0,
        };
        let end = match to {
            Some(to) => audit.first_appended(&log, to.as_microsecond()).await?,
            None => log.size(),
        };
        let open = audit.open_intents(log.number).await?;
        let (first, end) = (first.min(log.size()), end.min(log.size()));
        Ok(Self { log, format, first, end: end.max(first), at: Step::Head, open, keys: DayKeys::default() })
    }

    /// The next piece; `None` after the last.
    pub async fn next(&mut self, audit: &Audit) -> Result<Option<Vec<u8>>> {
        match self.at {
            Step::Head => {
                self.at = Step::Entry(self.first);
                self.head(audit).await.map(Some)
            }
            Step::Entry(from) if from < self.end => self.entries(audit, from).await.map(Some),
            Step::Entry(_) if self.format == Format::Csv => Ok(None),
            Step::Entry(_) => {
                self.at = Step::Outside(0);
                Ok(Some(Vec::new()))
            }
            Step::Outside(from) => self.outside(audit, from).await.map(Some),
            Step::Foot => {
                self.at = Step::Done;
                let right = audit.hashes(&self.log, &Node::cover(self.end, self.log.size()), self.log.size()).await?;
                let checkpoint = audit.sign(self.log.id, self.log.head())?;
                Ok(Some(Footer { right, checkpoint }.line()))
            }
            Step::Done => Ok(None),
        }
    }

    async fn head(&self, audit: &Audit) -> Result<Vec<u8>> {
        if self.format == Format::Csv {
            return Ok(CSV_HEADER.as_bytes().to_vec());
        }
        let left = audit.hashes(&self.log, &Node::cover(0, self.first), self.log.size()).await?;
        let origin = audit.origin(self.log.id);
        let key = audit.verifier().for_origin(&origin.to_string()).map_err(|error| Error::Damaged(chain(&error)))?;
        Ok(Header::new(&origin, &key, self.log.size(), self.first..self.end, left).line())
    }

    async fn entries(&mut self, audit: &Audit, from: u64) -> Result<Vec<u8>> {
        let limit = u32::try_from(self.end - from).unwrap_or(u32::MAX).min(PORTION);
        let entries = audit.entries(self.log.number, from, limit).await?;
        let (mut lines, mut rows) = (Vec::new(), String::new());
        let mut next = from;
        for entry in &entries {
            if entry.sequence != next {
                return Err(Error::Damaged(format!("entry {next} of log {} is not there", self.log.id)));
            }
            next += 1;
            let body = audit.body(&self.log, entry, &mut self.keys).await?;
            match self.format {
                Format::JsonLines => {
                    let key = audit.day_key(&self.log, entry.day, &mut self.keys).await?;
                    let opening = key.map(|key| key.mac.opening(entry.sequence));
                    let opened = opening.zip(body.as_ref()).map(|(opening, body)| Opened { opening, body });
                    entry_line(&mut lines, entry.sequence, &entry.leaf, opened);
                }
                Format::Csv => match body {
                    Some(body) => {
                        let damaged = |_| Error::Damaged(format!("entry {} is no operation", entry.sequence));
                        self.row(&mut rows, entry.sequence, Operation::parse(&body).map_err(damaged)?);
                    }
                    None if entry.has_id => csv_expired(&mut rows, entry.sequence, entry.day),
                    None => {}
                },
            }
        }
        if entries.is_empty() {
            return Err(Error::Damaged(format!("entry {next} of log {} is not there", self.log.id)));
        }
        self.at = Step::Entry(next);
        lines.extend_from_slice(rows.as_bytes());
        Ok(lines)
    }

    fn row(&self, rows: &mut String, sequence: u64, mut operation: Operation) {
        if operation.phase == Phase::Intent {
            if !self.open.contains(&sequence) {
                return;
            }
            operation.result = Outcome::Unknown;
        }
        csv_row(rows, sequence, &operation);
    }

    async fn outside(&mut self, audit: &Audit, from: u64) -> Result<Vec<u8>> {
        const OF: &str = "SELECT sequence, leaf FROM entries WHERE log = $1 AND id IS NULL AND sequence >= $2 AND sequence < $3
             AND (sequence < $4 OR sequence >= $5) ORDER BY sequence LIMIT $6";
        let rows: Vec<(i64, Vec<u8>)> = on!(audit.database.reads(), p => sqlx::query_as(OF)
            .bind(self.log.number)
            .bind(from.cast_signed())
            .bind(self.log.size().cast_signed())
            .bind(self.first.cast_signed())
            .bind(self.end.cast_signed())
            .bind(i64::from(PORTION))
            .fetch_all(p)
            .await)?;
        let Some((last, _)) = rows.last() else {
            self.at = Step::Foot;
            return Ok(Vec::new());
        };
        self.at = Step::Outside(last.cast_unsigned() + 1);
        let mut lines = Vec::new();
        for (sequence, leaf) in rows {
            let leaf = Leaf::parse(&leaf).map_err(|error| Error::Damaged(format!("entry {sequence}: {error}")))?;
            let proof = audit.prove_inclusion(&self.log, leaf.sequence, self.log.size()).await?;
            lines.extend(Outside::new(&leaf, proof).line());
        }
        Ok(lines)
    }
}
