//! Restores from the archive what the root lists cover and this database lacks: everything after the volume was lost, the newest entries
//! after an older volume was restored, and missing rows.
//!
//! This service signed the parts, with the entries that it had. Only the root lists prove that all of it together is the history: no log
//! accepts entries before that is checked.

mod keys;
mod mend;
mod missing;

pub(crate) use self::missing::MissingKeys;

use futures::TryStreamExt;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tsujiban_history::{Day, LogId, TreeHead};

use crate::archive::{Above, ArchivedEntry, Batch, KeyCopy, Part, Section, Span, lock_day};
use crate::engine::{Adopted, RefusedLogs, Restored, RestoredHashes};
use crate::error::{Error, Result};
use crate::service::Audit;

/// How many entries one transaction restores.
const PORTION: usize = 2048;
/// How often progress is logged.
const PROGRESS: Duration = Duration::from_secs(10);
/// How long entries of groups without a log are refused, until the operator has claimed the group's log. After that the group gets a new
/// log, and its restored log stays unclaimed: this must not happen if the operator is down for a night.
pub(crate) const CLAIMS: SignedDuration = SignedDuration::from_hours(24);
const CLAIMED_AT: &str = "logs are claimed until";

/// What was restored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rebuilt {
    pub logs: u64,
    pub entries: u64,
    /// Entries whose leaf was restored and whose body was not.
    pub without_body: u64,
    pub parts: u64,
    pub damaged_parts: u64,
    /// The numbers of lists whose parts were all read.
    pub read: BTreeSet<u64>,
}

/// A log as it is in this database.
struct LocalLog {
    number: i64,
    end: u64,
    /// Its head cannot be read, so nothing can be appended.
    is_damaged: bool,
}

struct Rebuild<'a> {
    audit: &'a Audit,
    generations: HashMap<LogId, u32>,
    here: HashMap<LogId, LocalLog>,
    /// Keys that were processed.
    keys: HashSet<(LogId, i64, String)>,
    /// Keys of logs that do not exist yet: parts from before a gap have keys, but no entries that are restored.
    later: Vec<KeyCopy>,
    /// Whether sections were skipped since the entries before them were not restored yet.
    has_holes: bool,
    /// Whether the entries before them cannot be restored: sections with the hashes above them are appended after the hole.
    past_holes: bool,
    done: Rebuilt,
    told: std::time::Instant,
}

impl Audit {
    /// Restores what the lists name and this database lacks, and all that the archive has if an unreadable list may name more. Reports and
    /// skips damaged parts.
    pub(crate) async fn rebuild(&self, wanted: &BTreeMap<LogId, TreeHead>, lacks_list: bool) -> Result<Rebuilt> {
        self.mend_heads(&self.log_numbers().await?).await?;
        let mut lacking = lacks_list;
        for (log, head) in wanted {
            lacking |= self.lack(*log, *head).await?.is_some();
        }
        let mut done = Rebuilt::default();
        if lacking {
            done = self.rebuild_from_parts().await?;
            // rows after a filled hole belong to their log again
            self.mend_heads(&self.log_numbers().await?).await?;
        }
        for log in self.readable_logs().await? {
            self.mend_rows(&log).await?;
        }
        Ok(done)
    }

    /// Like [`Audit::rebuild`], for the refused logs: the other logs accept entries meanwhile.
    pub(crate) async fn bring_back(&self, refused: &RefusedLogs, wanted: &BTreeMap<LogId, TreeHead>) -> Result<()> {
        let numbers: Vec<i64> = refused.keys().copied().collect();
        self.mend_heads(&numbers).await?;
        let mut lacking = false;
        for number in &numbers {
            if let Ok(Some(log)) = self.log_by_number(*number).await
                && let Some(head) = wanted.get(&log.id)
            {
                lacking |= self.lack(log.id, *head).await?.is_some();
            }
        }
        if lacking {
            self.rebuild_from_parts().await?;
        }
        // rows after a filled hole belong to their log again
        self.mend_heads(&numbers).await?;
        for number in &numbers {
            if let Ok(Some(log)) = self.log_by_number(*number).await {
                self.mend_rows(&log).await?;
            }
        }
        Ok(())
    }

    async fn rebuild_from_parts(&self) -> Result<Rebuilt> {
        let parts = self.archive_parts().await?;
        if parts.is_empty() {
            return Ok(Rebuilt::default());
        }
        tracing::warn!(parts = parts.len(), "the history comes back from the archive in the bucket");
        let mut rebuild = Rebuild::of(self);
        for found in parts.iter().rev() {
            if let Ok(part) = self.read_part(found).await? {
                rebuild.generations = part.generations.into_iter().collect();
                break;
            }
        }
        loop {
            let before = rebuild.done.entries;
            (rebuild.has_holes, rebuild.done.parts, rebuild.done.damaged_parts) = (false, 0, 0);
            let mut reading = self.read_parts(parts.clone());
            let mut damaged = BTreeSet::new();
            while let Some((found, part)) = reading.try_next().await? {
                rebuild.done.parts += 1;
                rebuild.done.read.insert(found.number);
                match part {
                    Ok(part) => rebuild.part(&found.name, part).await?,
                    Err(why) => {
                        rebuild.done.damaged_parts += 1;
                        damaged.insert(found.number);
                        tracing::error!(part = found.name, why, "a part of the archive is damaged, and is passed over");
                    }
                }
                rebuild.tell(parts.len());
            }
            rebuild.done.read.retain(|number| !damaged.contains(number));
            if !rebuild.has_holes || rebuild.past_holes && rebuild.done.entries == before {
                break;
            }
            // repeated entries are in a later part than the entries that follow them
            rebuild.past_holes = rebuild.done.entries == before;
        }
        for found in self.archived_keys().await? {
            match self.read_part(&found).await? {
                Ok(set) => drop(rebuild.keys(set.keys).await?),
                Err(why) => tracing::error!(set = found.name, why, "a set of day keys is damaged, and is passed over"),
            }
        }
        let later = std::mem::take(&mut rebuild.later);
        rebuild.keys(later).await?;
        let done = rebuild.done;
        if done.entries > 0 {
            self.engine.forget().await?;
        }
        if done.logs > 0 {
            self.hold_for_claims().await?;
        }
        tracing::warn!(
            logs = done.logs,
            entries = done.entries,
            without_body = done.without_body,
            parts = done.parts,
            damaged = done.damaged_parts,
            "the history was rebuilt from the archive"
        );
        Ok(done)
    }

    /// Refuses entries of groups without a log for [`CLAIMS`], since the groups of restored logs are not known.
    pub(crate) async fn hold_for_claims(&self) -> Result<()> {
        let until = self.now().checked_add(CLAIMS).unwrap_or(Timestamp::MAX);
        self.put_meta(CLAIMED_AT, until.to_string()).await?;
        self.engine.hold_new_logs(until);
        Ok(())
    }

    /// At start: refuses such entries until the stored time, so that restored logs wait for the operator across restarts.
    pub(crate) async fn recall_claims(&self) -> Result<()> {
        if let Some(until) = self.meta(CLAIMED_AT).await?.and_then(|until| until.parse().ok()) {
            self.engine.hold_new_logs(until);
        }
        Ok(())
    }
}

impl<'a> Rebuild<'a> {
    fn of(audit: &'a Audit) -> Self {
        Self {
            audit,
            generations: HashMap::new(),
            here: HashMap::new(),
            keys: HashSet::new(),
            later: Vec::new(),
            has_holes: false,
            past_holes: false,
            done: Rebuilt::default(),
            told: std::time::Instant::now(),
        }
    }

    async fn part(&mut self, name: &str, part: Part) -> Result<()> {
        let (number, put_us) = (part.number, part.put_us);
        let mut spans = Vec::new();
        for section in part.sections {
            if self.generations.get(&section.log).copied().unwrap_or_default() == section.generation {
                spans.extend(self.section(section).await?);
            }
        }
        self.keys(part.keys).await?;
        let batch = Batch { name: name.to_owned(), number, put_us, lock_day: lock_day(put_us), spans };
        self.audit.record(&batch).await
    }

    /// Appends missing entries to a log. Returns the archived span once the database has all of its entries.
    fn section(&mut self, mut section: Section) -> BoxFuture<'_, Result<Option<Span>>> {
        Box::pin(async move {
            let here = self.here(&section).await?;
            let (number, end) = (here.number, here.end);
            if here.is_damaged {
                return Ok(None);
            }
            let (log, past) = (section.log, section.end());
            let span = Span {
                log: number,
                generation: section.generation,
                first: section.first,
                past,
                repeated: section.repeated,
                replaces: None,
            };
            let above = section.above.take();
            let follows = section.first <= end || self.past_holes && above.is_some();
            self.has_holes |= !follows;
            if follows && past > end {
                let entries = self.missing_entries(section, end);
                let came_back = match above {
                    None => self.append_restored(number, end..past, entries).await?,
                    Some(Above { edge: Some(edge), nodes }) => {
                        let hashes = RestoredHashes { edge, nodes };
                        self.audit.engine.restore_below(number, entries, hashes).await?
                    }
                    // a later section has the missing edge
                    Some(Above { edge: None, .. }) => {
                        self.has_holes = true;
                        0
                    }
                };
                self.done.entries += u64::try_from(came_back).unwrap_or_default();
                // another replica may have restored some of them
                let gone = || Error::Damaged(format!("log {log} is gone"));
                let size = self.audit.log_by_number(number).await?.ok_or_else(gone)?.size();
                self.here.insert(log, LocalLog { number, end: size, is_damaged: false });
            }
            Ok(self.here.get(&log).is_some_and(|here| here.end >= past).then_some(span))
        })
    }

    /// The entries of a section from `end` on, without those that the database had lost. Expired entries have no body.
    fn missing_entries(&mut self, section: Section, end: u64) -> Vec<Restored> {
        let now = self.audit.now();
        let mut missing = Vec::new();
        for (sequence, entry) in
            (section.first..).zip(section.entries).filter(|(sequence, entry)| *sequence >= end && !entry.leaf.is_empty())
        {
            let ArchivedEntry { day, time_us, appended_us, id, leaf, sealed } = entry;
            let is_expired = Day::from_number(day).is_none_or(|day| day.is_expired(now));
            let sealed = sealed.filter(|_| !is_expired);
            self.done.without_body += u64::from(sealed.is_none() && id.is_some() && !is_expired);
            missing.push(Restored { sequence, day, time_us, appended_us, id, leaf, sealed });
        }
        missing
    }

    /// Appends entries to a log, up to the first lost one, which another part may have. Returns how many were missing.
    async fn append_restored(&mut self, log: i64, wanted: std::ops::Range<u64>, mut entries: Vec<Restored>) -> Result<usize> {
        let count = wanted.clone().zip(&entries).take_while(|(sequence, entry)| *sequence == entry.sequence).count();
        self.has_holes |= u64::try_from(count).unwrap_or_default() < wanted.end - wanted.start;
        entries.truncate(count);
        let portions = entries.chunks(PORTION).map(|portion| self.audit.engine.restore(log, portion.to_vec()));
        let mut came_back = 0;
        for done in futures::future::join_all(portions).await {
            came_back += done?;
        }
        Ok(came_back)
    }

    async fn here(&mut self, section: &Section) -> Result<&LocalLog> {
        let log = section.log;
        if !self.here.contains_key(&log) {
            let here = match self.audit.log_by_id(&log).await {
                Ok(Some(log)) => LocalLog { number: log.number, end: log.size(), is_damaged: false },
                Ok(None) => {
                    let number = self.audit.engine.adopt(Adopted { id: log, is_platform: section.is_platform }).await?;
                    self.done.logs += 1;
                    LocalLog { number, end: 0, is_damaged: false }
                }
                Err(Error::Damaged(_)) => LocalLog { number: 0, end: 0, is_damaged: true },
                Err(error) => return Err(error),
            };
            self.here.insert(log, here);
        }
        self.here.get(&log).ok_or_else(|| Error::Damaged(format!("log {log} is gone")))
    }

    async fn has_local_log(&self, log: &LogId) -> Result<bool> {
        if self.here.contains_key(log) {
            return Ok(true);
        }
        match self.audit.log_by_id(log).await {
            Ok(log) => Ok(log.is_some()),
            Err(Error::Damaged(_)) => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn tell(&mut self, parts: usize) {
        if self.told.elapsed() >= PROGRESS {
            self.told = std::time::Instant::now();
            tracing::info!(read = self.done.parts, parts, entries = self.done.entries, "the history comes back from the archive");
        }
    }
}
