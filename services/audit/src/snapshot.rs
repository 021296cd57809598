//! Exports a log into the tenant snapshot, and imports it. Bodies stay sealed under their day keys, and those wrapped by the epoch keys: a
//! snapshot restores nothing that was destroyed.
//!
//! An import appends the entries that a log lacks, if it is older than the snapshot. It appends only what this service has signed: the
//! checkpoint at the end proves every leaf before it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tsujiban_core::id::IncarnationId;
use tsujiban_database::on;
use tsujiban_history::merkle::leaf_hash;
use tsujiban_history::{Checkpoint, LogId};
use tsujiban_proto::error::Kind;
use tsujiban_service::caller::GroupScope;

use crate::engine::Restored;
use crate::error::{Error, Result};
use crate::reading::{Log, Stored};
use crate::seals;
use crate::service::Audit;

const PORTION: u64 = 256;
/// The longest line: a sealed body of 64 KiB in hexadecimal digits, and the fields around it.
const MAX_LINE: usize = 160 * 1024;
/// The most entries that are restored at once.
const AT_ONCE: usize = 256;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Log {
        id: LogId,
        size: u64,
    },
    Key {
        day: i64,
        epoch: String,
        key: String,
        first: i64,
        wrapped: String,
        superseded_at: Option<i64>,
    },
    Entry(Box<EntryLine>),
    /// An entry that was damaged when the snapshot was made.
    Lost {
        sequence: u64,
    },
    End {
        checkpoint: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryLine {
    sequence: u64,
    day: i64,
    time_us: i64,
    appended_us: i64,
    id: Option<String>,
    leaf: String,
    sealed: Option<String>,
}

/// An export in progress.
pub struct Snapshot {
    log: Log,
    next: Option<u64>,
    begun: bool,
}

impl Snapshot {
    pub async fn begin(audit: &Audit, scope: &GroupScope, incarnation: &IncarnationId) -> Result<Self> {
        let log = audit.covered(&log_of(audit, scope, incarnation).await?).await?;
        Ok(Self { log, next: Some(0), begun: false })
    }

    /// The next piece; `None` after the last.
    pub async fn next(&mut self, audit: &Audit) -> Result<Option<Vec<u8>>> {
        let Some(from) = self.next else { return Ok(None) };
        let mut lines = Vec::new();
        if !std::mem::replace(&mut self.begun, true) {
            put(&mut lines, &Line::Log { id: self.log.id, size: self.log.size() });
            for key in self.keys(audit).await? {
                put(&mut lines, &key);
            }
            return Ok(Some(lines));
        }
        if from >= self.log.size() {
            self.next = None;
            put(&mut lines, &Line::End { checkpoint: audit.sign(self.log.id, self.log.head())? });
            return Ok(Some(lines));
        }
        let end = from.saturating_add(PORTION).min(self.log.size());
        let mut rows = audit.rows(self.log.number, from, end).await?.rows.into_iter().peekable();
        for sequence in from..end {
            let Some((row, day)) = rows.next_if(|row| row.sequence == sequence).and_then(|row| row.day.map(|day| (row, day))) else {
                put(&mut lines, &Line::Lost { sequence });
                continue;
            };
            let Stored { time_us, appended_us, leaf, id, sealed, .. } = row;
            let (id, leaf, sealed) = (id.map(hex::encode), hex::encode(leaf), sealed.map(hex::encode));
            put(&mut lines, &Line::Entry(Box::new(EntryLine { sequence, day: day.number(), time_us, appended_us, id, leaf, sealed })));
        }
        self.next = Some(end);
        Ok(Some(lines))
    }

    async fn keys(&self, audit: &Audit) -> Result<Vec<Line>> {
        const OF: &str = "SELECT day, epoch, key_id, first, wrapped, superseded_at FROM day_keys WHERE log = $1 ORDER BY day, epoch";
        type Row = (i64, String, Vec<u8>, i64, Vec<u8>, Option<i64>);
        let rows: Vec<Row> = on!(audit.database.reads(), p => sqlx::query_as(OF).bind(self.log.number).fetch_all(p).await)?;
        let key = |(day, epoch, key, first, wrapped, superseded_at): Row| Line::Key {
            day,
            epoch,
            key: hex::encode(key),
            first,
            wrapped: hex::encode(wrapped),
            superseded_at,
        };
        Ok(rows.into_iter().map(key).collect())
    }
}

/// An import in progress.
pub struct Import {
    log: Log,
    waiting: Vec<u8>,
    keys: Vec<Line>,
    missing: BTreeMap<u64, EntryLine>,
    /// The size of the snapshot, once it has begun, and its checkpoint, once it has ended.
    size: Option<u64>,
    checkpoint: Option<String>,
}

impl Import {
    pub async fn begin(audit: &Audit, scope: &GroupScope, incarnation: &IncarnationId) -> Result<Self> {
        let log = log_of(audit, scope, incarnation).await?;
        Ok(Self { log, waiting: Vec::new(), keys: Vec::new(), missing: BTreeMap::new(), size: None, checkpoint: None })
    }

    pub async fn push(&mut self, audit: &Audit, chunk: &[u8]) -> Result<()> {
        self.waiting.extend_from_slice(chunk);
        let mut rest = std::mem::take(&mut self.waiting);
        while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
            let after = rest.split_off(at + 1);
            let line = serde_json::from_slice(&rest).map_err(|_| not_ours())?;
            self.take(audit, line).await?;
            rest = after;
        }
        if rest.len() > MAX_LINE {
            return Err(not_ours());
        }
        self.waiting = rest;
        Ok(())
    }

    async fn take(&mut self, audit: &Audit, line: Line) -> Result<()> {
        match line {
            Line::Log { id, size } if self.size.is_none() && id == self.log.id => self.size = Some(size),
            Line::Key { .. } if self.size.is_some() => self.keys.push(line),
            Line::Entry(entry) if self.size.is_some() => {
                if entry.sequence >= self.log.size() {
                    self.missing.insert(entry.sequence, *entry);
                } else {
                    let here = audit.entries(self.log.number, entry.sequence, 1).await?.pop();
                    if here.is_none_or(|here| hex::encode(here.leaf) != entry.leaf) {
                        return Err(other(entry.sequence));
                    }
                }
            }
            // an entry that the log has is not needed
            Line::Lost { sequence } if self.size.is_some() && sequence < self.log.size() => {}
            Line::Lost { sequence } if self.size.is_some() => return Err(lost(sequence)),
            Line::End { checkpoint } if self.size.is_some() && self.checkpoint.is_none() => self.checkpoint = Some(checkpoint),
            _ => return Err(not_ours()),
        }
        Ok(())
    }

    /// Restores the missing entries, if the checkpoint proves them. Returns how many.
    pub async fn end(self, audit: &Audit) -> Result<u64> {
        let origin = audit.origin(self.log.id).to_string();
        let key = audit.verifier().for_origin(&origin).map_err(|_| not_ours())?;
        let checkpoint = self.checkpoint.ok_or_else(not_ours)?;
        let head = Checkpoint::open(checkpoint.as_bytes(), &key, &origin).map_err(|_| not_ours())?.head;
        if self.size != Some(head.size) {
            return Err(not_ours());
        }
        let mut edge = self.log.edge.clone();
        let mut restored = Vec::new();
        for entry in self.missing.into_values() {
            let bytes = |text: &str| hex::decode(text).map_err(|_| not_ours());
            let leaf = bytes(&entry.leaf)?;
            if entry.sequence != edge.end() {
                return Err(not_ours());
            }
            edge.append_hash(leaf_hash(&leaf), |_, _| ()).map_err(|_| not_ours())?;
            restored.push(Restored {
                sequence: entry.sequence,
                day: entry.day,
                time_us: entry.time_us,
                appended_us: entry.appended_us,
                id: entry.id.map(|id| bytes(&id)?.try_into().map_err(|_| not_ours())).transpose()?,
                sealed: entry.sealed.map(|sealed| bytes(&sealed)).transpose()?,
                leaf,
            });
        }
        if restored.is_empty() {
            return Ok(0);
        }
        if edge.end() != head.size || edge.root() != Some(head.root) {
            return Err(other(self.log.size()));
        }
        for key in &self.keys {
            put_key(audit, self.log.number, key).await?;
        }
        let mut count = 0;
        let mut restored = restored.into_iter().peekable();
        while restored.peek().is_some() {
            let portion: Vec<Restored> = restored.by_ref().take(AT_ONCE).collect();
            count += u64::try_from(audit.engine.restore(self.log.number, portion).await?).unwrap_or_default();
        }
        Ok(count)
    }
}

/// Restores a wrapping beside the existing ones.
async fn put_key(audit: &Audit, log: i64, key: &Line) -> Result<()> {
    const PUT: &str = "INSERT INTO day_keys (day, log, epoch, key_id, first, wrapped, superseded_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";
    let Line::Key { day, epoch, key, first, wrapped, superseded_at } = key else { return Ok(()) };
    let bytes = |text: &str| hex::decode(text).map_err(|_| not_ours());
    let (key, wrapped) = (bytes(key)?, bytes(wrapped)?);
    on!(audit.database.writes(), p => sqlx::query(PUT)
        .bind(*day)
        .bind(log)
        .bind(epoch.clone())
        .bind(key)
        .bind(*first)
        .bind(wrapped)
        .bind(*superseded_at)
        .execute(p)
        .await
        .map(drop))?;
    Ok(())
}

async fn log_of(audit: &Audit, scope: &GroupScope, incarnation: &IncarnationId) -> Result<Log> {
    let group = audit.incarnation(scope.group(), incarnation).await?;
    let gone = || Error::Damaged(format!("log {} is not there", group.number));
    let log = audit.log_by_number(group.number).await?.ok_or_else(gone)?;
    if log.is_sealed { Ok(log) } else { Err(Error::Damaged(seals::other_owner(log.number, &log.owner))) }
}

fn put(lines: &mut Vec<u8>, line: &Line) {
    // texts and numbers: this cannot fail
    lines.extend(serde_json::to_vec(line).unwrap_or_default());
    lines.push(b'\n');
}

fn not_ours() -> Error {
    Error::refuse(Kind::Invalid, "NOT_OURS", "this is not what Export gave for this incarnation, or it is cut; nothing was taken back")
}

fn lost(sequence: u64) -> Error {
    let message = format!("entry {sequence} was damaged when the snapshot was made; nothing was taken back");
    Error::refuse(Kind::Precondition, "LOST_THERE", message)
}

fn other(sequence: u64) -> Error {
    let message = format!("from entry {sequence} on the history here is another one than in the snapshot; nothing was taken back");
    Error::refuse(Kind::Precondition, "OTHER_HISTORY", message)
}
