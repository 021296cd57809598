//! A log as a file: for the verifier, or for a spreadsheet. It is read while it is sent, a bundle at a time. Statements that the log's key
//! signs declare damaged entries; all other entries are exported as usual.

mod damage;
mod outcomes;

use std::ops::Range;

use jiff::Timestamp;
use tsujiban_core::error::chain;
use tsujiban_database::on;
use tsujiban_history::export::{CSV_HEADER, Footer, Header, Opened, Outside, csv_damaged, csv_expired, csv_row, entry_line};
use tsujiban_history::merkle::Node;
use tsujiban_history::operation::{Outcome, Phase};
use tsujiban_history::{Leaf, Operation};

use self::outcomes::Outcomes;
use crate::error::{Error, Result};
use crate::reading::{Bundle, DayKeys, Found, Log, operation};
use crate::service::Audit;

/// How many gaps and retentions are read at once.
const PORTION: u32 = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For the verifier: every leaf of the span, with its opening, body and proofs.
    JsonLines,
    /// For a spreadsheet: operations.
    Csv,
}

/// An export in progress, of the log as it was when the export began.
pub struct Export {
    log: Log,
    format: Format,
    first: u64,
    end: u64,
    /// How many entries after `end` no root list covers yet.
    uncovered: u64,
    at: Step,
    keys: DayKeys,
    outcomes: Outcomes,
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
    /// Begins an export of the entries that were appended in a span of time; the end is not included. If entries are lost, widens the span
    /// until the tree can prove it.
    pub async fn begin(audit: &Audit, log: Log, (from, to): (Option<Timestamp>, Option<Timestamp>), format: Format) -> Result<Self> {
        let newest = log.size();
        let log = audit.covered(&log).await?;
        let first = match from {
            Some(from) => audit.first_since(&log, from).await?,
            None => 0,
        };
        let end = match to {
            Some(to) => audit.end_before(&log, to).await?,
            None => log.size(),
        };
        let (first, end) = (first.min(log.size()), end.min(log.size()));
        let mut span = first..end.max(first);
        if format == Format::JsonLines {
            span = audit.mended_span(&log, span).await?;
        }
        let (keys, outcomes) = (DayKeys::default(), Outcomes::default());
        let uncovered = if span.end == log.size() { newest.saturating_sub(log.size()) } else { 0 };
        Ok(Self { log, format, first: span.start, end: span.end, uncovered, at: Step::Head, keys, outcomes })
    }

    /// How many entries had been appended after its last one that no root list covers yet.
    pub const fn uncovered(&self) -> u64 {
        self.uncovered
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

    /// The entries of one bundle, as far as they are in the span.
    async fn entries(&mut self, audit: &Audit, from: u64) -> Result<Vec<u8>> {
        let bundle = audit.examine(&self.log, Bundle::of(from), &mut self.keys).await?;
        let next = Bundle::span(Bundle::of(from), self.log.size()).end.min(self.end);
        self.at = Step::Entry(next);
        match self.format {
            Format::JsonLines => self.lines(audit, &bundle, from..next),
            Format::Csv => {
                self.outcomes.look_ahead(audit, &self.log, next, &mut self.keys).await?;
                Ok(self.rows(&bundle, from..next).into_bytes())
            }
        }
    }

    fn lines(&self, audit: &Audit, bundle: &Bundle, span: Range<u64>) -> Result<Vec<u8>> {
        let statements = damage::statements(&self.log, bundle, span.clone(), &self.keys)?;
        let mut statements = statements.into_iter().peekable();
        let (mut lines, origin) = (Vec::new(), audit.origin(self.log.id));
        for place in bundle.between(span.start, span.end) {
            while let Some(statement) = statements.next_if(|statement| statement.damaged == place.sequence) {
                lines.extend(statement.sign(&audit.key, &origin).line());
            }
            let Some(leaf) = &place.leaf else { continue };
            let opened = match &place.found {
                Found::Body { body, opening, .. } => Some(Opened { opening: *opening, body }),
                Found::Record | Found::Expired(_) | Found::Nothing => None,
            };
            entry_line(&mut lines, place.sequence, leaf, opened);
        }
        Ok(lines)
    }

    fn rows(&self, bundle: &Bundle, span: Range<u64>) -> String {
        let mut rows = String::new();
        for place in bundle.between(span.start, span.end) {
            match (operation(place), &place.found) {
                (Some(Ok(operation)), _) => self.row(&mut rows, place.sequence, operation),
                (_, Found::Expired(day)) if place.wrong.is_none() => csv_expired(&mut rows, place.sequence, *day),
                (_, Found::Record) if place.wrong.is_none() => {}
                _ => csv_damaged(&mut rows, place.sequence),
            }
        }
        rows
    }

    fn row(&self, rows: &mut String, sequence: u64, mut operation: Operation) {
        if operation.phase == Phase::Intent {
            if self.outcomes.has(&operation.id) {
                return;
            }
            operation.result = Outcome::Unknown;
        }
        csv_row(rows, sequence, &operation);
    }

    async fn outside(&mut self, audit: &Audit, from: u64) -> Result<Vec<u8>> {
        const OF: &str = "SELECT sequence FROM entries WHERE log = $1 AND id IS NULL AND sequence >= $2 AND sequence < $3
             AND (sequence < $4 OR sequence >= $5) ORDER BY sequence LIMIT $6";
        let rows: Vec<i64> = on!(audit.database.reads(), p => sqlx::query_scalar(OF)
            .bind(self.log.number)
            .bind(from.cast_signed())
            .bind(self.log.size().cast_signed())
            .bind(self.first.cast_signed())
            .bind(self.end.cast_signed())
            .bind(i64::from(PORTION))
            .fetch_all(p)
            .await)?;
        let Some(last) = rows.last() else {
            self.at = Step::Foot;
            return Ok(Vec::new());
        };
        self.at = Step::Outside(last.cast_unsigned() + 1);
        let mut lines = Vec::new();
        for sequence in rows.into_iter().map(i64::cast_unsigned) {
            let leaf = audit.leaf(&self.log, sequence).await?;
            let leaf = Leaf::parse(&leaf).map_err(|error| Error::Damaged(format!("entry {sequence}: {error}")))?;
            if matches!(leaf.content, tsujiban_history::leaf::Content::Entry { .. }) {
                // the column marks it as a gap or a retention, but its leaf is an operation
                continue;
            }
            let proof = audit.prove_inclusion(&self.log, sequence, self.log.size()).await?;
            lines.extend(Outside::new(&leaf, proof).line());
        }
        Ok(lines)
    }
}
