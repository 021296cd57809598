//! The lawful recovery after a real loss: staff state what happened, each log that lacks entries gets a signed leaf that declares it, a
//! signed root list skips the lost ones, and the history becomes writable again.

mod explain;

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use tsujiban_database::on;
use tsujiban_history::leaf::{Content, LostLists, Span, UnsignedGap};
use tsujiban_history::merkle::sha256;
use tsujiban_history::{JstTime, Leaf, LogId, TreeHead};
use tsujiban_proto::error::Kind;

use super::Listing;
use crate::engine::{Adopted, RefusedLogs, Standing, Statement};
use crate::error::{Error, Result};
use crate::owner::Owner;
use crate::reading::Log;
use crate::service::Audit;

/// How many damaged spans and lost ranges of lists one gap names: a leaf has no room for more. Any further ones are merged into one span.
const NAMED: usize = 24;

/// For which logs the gap is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GapScope {
    All,
    Of(Owner),
}

/// What a gap of a log has to declare.
struct Loss {
    log: Log,
    agreed: u64,
    newest: TreeHead,
    damaged: Vec<Span>,
}

impl Audit {
    /// Restores what the archive has. Then appends a gap to each log that still lacks entries or has damaged rows, puts a list of all
    /// roots that skips the lost lists, and makes the history writable once every loss is declared. Returns how many gaps it appended.
    pub fn declare_gap<'a>(&'a self, scope: &'a GapScope, reason: &'a str, by: &'a str) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            let mut listing = self.listing.lock().await;
            self.declare(&mut listing, scope, reason, by).await
        })
    }

    async fn declare(&self, listing: &mut Listing, scope: &GapScope, reason: &str, by: &str) -> Result<u64> {
        let is_sound = || self.engine.standing() == Standing::Sound;
        let is_whole = || is_sound() && self.engine.refused().is_empty();
        if is_sound() {
            self.compare_all(listing).await?;
        }
        if is_whole() {
            return Err(no_gap("the history is the newest one: there is no gap to declare"));
        }
        (listing.rebuilt_at, listing.readmitted_at) = (None, None);
        if is_sound() {
            self.readmit(listing).await?;
        } else {
            self.recover(listing).await?;
        }
        if is_whole() {
            return Err(no_gap("all that was missing came back from the bucket, and the history goes on: there is no gap to declare"));
        }
        let since = JstTime::new(self.read_only_since().await?);
        let wanted = match scope {
            GapScope::All => None,
            GapScope::Of(owner) => Some(self.some_log_of(owner).await?.id),
        };
        let mut survey = self.survey().await?;
        self.survey_missing(&mut survey).await?;
        let (lists, heads) = (bounded(survey.lost_lists()), survey.heads());
        self.note_all(&survey).await?;
        let (mut declared, mut left, mut is_any) = (Vec::new(), 0_u64, false);
        let mut refused = RefusedLogs::clone(&self.engine.refused().all());
        for loss in self.losses(&heads).await? {
            let is_there = self.has_gap_to(&loss).await?;
            if wanted.is_some_and(|wanted| wanted != loss.log.id) {
                left += u64::from(!is_there);
                continue;
            }
            if !is_there {
                let unsigned = UnsignedGap {
                    agreed: loss.agreed,
                    newest: loss.newest,
                    since,
                    by: by.to_owned(),
                    reason: sha256(reason.as_bytes()),
                    damaged: loss.damaged,
                    lists: lists.clone(),
                };
                self.append_gap(&loss.log, unsigned).await?;
                declared.push(loss.log.clone());
            }
            let gone = || Error::Damaged(format!("log {} is gone", loss.log.id));
            let size = self.log_by_number(loss.log.number).await?.ok_or_else(gone)?.size();
            self.archive_anew(loss.log.number, size).await?;
            refused.remove(&loss.log.number);
            is_any = true;
        }
        let count = u64::try_from(declared.len()).unwrap_or_default();
        if !is_sound() && left > 0 {
            let others = "nothing is recorded while other histories lack entries: declare the gap of all of them";
            return match (count, is_any) {
                (0, false) => Err(no_gap(&format!("the history that is named lacks nothing, and {others}"))),
                (0, true) => Err(no_gap(&format!("the gap of the history that is named was declared before, and {others}"))),
                _ => Ok(count),
            };
        }
        if is_sound() && !is_any {
            return Err(no_gap("what is damaged is of other histories than the one that is named: there is no gap to declare in it"));
        }
        self.set_refused(refused).await?;
        // from here on the lists name the logs as they are in this database
        self.publish_behind(survey.lists.last(), survey.skipped(), listing).await?;
        if !is_sound() {
            self.recall_erasures().await?;
            self.turn_sound().await?;
        }
        tracing::warn!(logs = declared.len(), lists = lists.len(), by, "a gap was declared, and the history goes on");
        self.explain(&declared, &lists, reason, by).await?;
        Ok(count)
    }

    /// What each log lacks of the newest head in the bucket, and which of its rows are damaged. A missing log is made again, empty, under
    /// its id.
    async fn losses(&self, heads: &BTreeMap<LogId, Vec<TreeHead>>) -> Result<Vec<Loss>> {
        let mut losses = Vec::new();
        for (id, heads) in heads {
            let Some(newest) = heads.first().copied() else { continue };
            if self.lack(*id, newest).await?.is_none() {
                continue;
            }
            let log = match self.log_by_id(id).await {
                Ok(Some(log)) => log,
                Ok(None) => self.begin_anew(*id).await?,
                // no gap can be appended to a log whose head cannot be read: it stays refused
                Err(Error::Damaged(_)) => continue,
                Err(error) => return Err(error),
            };
            let agreed = self.agreed(&log, heads).await?;
            losses.push(Loss { agreed, newest, damaged: self.undeclared(&log).await?, log });
        }
        for log in self.readable_logs().await? {
            if losses.iter().any(|loss| loss.log.id == log.id) {
                continue;
            }
            let damaged = self.undeclared(&log).await?;
            if !damaged.is_empty() {
                let newest = heads.get(&log.id).and_then(|heads| heads.first()).copied().unwrap_or_else(|| log.head());
                losses.push(Loss { agreed: newest.size, newest, damaged, log });
            }
        }
        Ok(losses)
    }

    async fn begin_anew(&self, id: LogId) -> Result<Log> {
        let number = self.engine.adopt(Adopted { id, is_platform: false }).await?;
        self.hold_for_claims().await?;
        self.log_by_number(number).await?.ok_or_else(|| Error::Damaged(format!("log {id} was not made")))
    }

    /// Damaged spans that no gap names yet.
    async fn undeclared(&self, log: &Log) -> Result<Vec<Span>> {
        let spans = self.undeclared_spans(log).await?.into_iter();
        let mut spans: Vec<Span> = spans.map(|span| Span { from: span.start, to: span.end }).collect();
        if spans.len() > NAMED
            && let (Some(first), Some(last)) = (spans.get(NAMED - 1).copied(), spans.last().copied())
        {
            spans.truncate(NAMED - 1);
            spans.push(Span { from: first.from, to: last.to });
        }
        Ok(spans)
    }

    async fn append_gap(&self, log: &Log, unsigned: UnsignedGap) -> Result<()> {
        let origin = self.origin(log.id);
        let key = self.key.clone();
        let leaf = move |sequence| Ok(Leaf { sequence, content: Content::Gap(unsigned.clone().sign(&key, &origin, sequence)?) });
        self.engine.state(Statement { log: log.number, leaf: Box::new(leaf), gone: None, lawful: true }).await?;
        Ok(())
    }

    /// Whether the newest entry of a log is a gap that already declares all of this, so that an interrupted declaration can resume.
    async fn has_gap_to(&self, loss: &Loss) -> Result<bool> {
        let Some(last) = loss.log.size().checked_sub(1) else { return Ok(false) };
        let entry = self.entries(loss.log.number, last, 1).await?.pop();
        let leaf = entry.and_then(|entry| Leaf::parse(&entry.leaf).ok());
        let says = |gap: &UnsignedGap| gap.newest == loss.newest && loss.damaged.iter().all(|span| gap.damaged.contains(span));
        Ok(leaf.is_some_and(|leaf| matches!(leaf.content, Content::Gap(gap) if says(&gap.unsigned))))
    }

    /// The largest size at which a log agrees with the roots in the bucket, as far as is known here.
    async fn agreed(&self, log: &Log, heads: &[TreeHead]) -> Result<u64> {
        const LISTED: &str = "SELECT size FROM listed WHERE log = $1";
        for head in heads {
            if head.size > log.size() {
                continue;
            }
            match self.root_at(log, head.size).await {
                Ok(root) if root == head.root => return Ok(head.size),
                Ok(_) | Err(Error::Damaged(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let smallest = heads.iter().map(|head| head.size).min().unwrap_or_default();
        let listed: Option<i64> = on!(self.database.reads(), p => sqlx::query_scalar(LISTED).bind(log.number).fetch_optional(p).await)?;
        // a size in table `listed` agreed with a list older than these heads
        Ok(listed.map_or(0, i64::cast_unsigned).min(log.size()).min(smallest.saturating_sub(1)))
    }
}

/// The ranges that a leaf has room for.
fn bounded(mut lists: Vec<LostLists>) -> Vec<LostLists> {
    if lists.len() > NAMED
        && let Some(last) = lists.last().copied()
    {
        lists.truncate(NAMED);
        if let Some(range) = lists.last_mut() {
            range.last = last.last;
        }
    }
    lists
}

fn no_gap(message: &str) -> Error {
    Error::refuse(Kind::Precondition, "NO_GAP", message)
}
