//! Brings back from the archive what the root lists say and this database lacks: everything after a lost volume, the newest entries after an
//! older one, and rows that are gone.
//!
//! Parts are signed by this service and hold what it had. Whether all of it together is the history, the lists say: nothing is written to
//! before that was checked.

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

/// How many entries one transaction brings back.
const PORTION: usize = 2048;
/// How often it is said how far it has come.
const PROGRESS: Duration = Duration::from_secs(10);
/// How long entries of groups without a log wait until the operator has said which of the logs is the group's. After that they get a new log, and
/// what came back stays nobody's: an operator that is away for a night must not lead to that.
pub(crate) const CLAIMS: SignedDuration = SignedDuration::from_hours(24);
const CLAIMED_AT: &str = "logs are claimed until";

/// What came back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rebuilt {
    pub logs: u64,
    pub entries: u64,
    /// Entries whose leaf came back and whose body did not.
    pub without_body: u64,
    pub parts: u64,
    pub damaged_parts: u64,
    /// The numbers of lists of which every part was read.
    pub read: BTreeSet<u64>,
}

/// A log as far as it is here.
struct Here {
    number: i64,
    end: u64,
    /// Its head cannot be read, so nothing can be put behind it.
    is_damaged: bool,
}

struct Rebuild<'a> {
    audit: &'a Audit,
    generations: HashMap<LogId, u32>,
    here: HashMap<LogId, Here>,
    /// Keys that were looked at.
    keys: HashSet<(LogId, i64, String)>,
    /// Keys of logs that are not there yet: parts from before a gap hold keys, and no entries that are taken.
    later: Vec<KeyCopy>,
    /// Whether sections were passed over since what stands before them was not there yet.
    has_holes: bool,
    /// Whether what stands before them does not come any more: sections with the hashes above them are put behind the hole.
    past_holes: bool,
    done: Rebuilt,
    told: std::time::Instant,
}

impl Audit {
    /// Brings back what the lists name and is not here; and all that the archive has if a list cannot be read that may name more. Damaged parts
    /// are named, and passed over.
    pub(crate) async fn rebuild(&self, wanted: &BTreeMap<LogId, TreeHead>, lacks_list: bool) -> Result<Rebuilt> {
        self.mend_heads(&self.log_numbers().await?).await?;
        let mut lacking = lacks_list;
        for (log, head) in wanted {
            lacking |= self.lack(*log, *head).await?.is_some();
        }
        let mut done = Rebuilt::default();
        if lacking {
            done = self.rebuild_from_parts().await?;
            // rows that stood behind a hole are part of their log again
            self.mend_heads(&self.log_numbers().await?).await?;
        }
        for log in self.readable_logs().await? {
            self.mend_rows(&log).await?;
        }
        Ok(done)
    }

    /// The same for the logs that are refused: the others are written to meanwhile.
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
        // rows that stood behind a hole are part of their log again
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
            // what was put once more lies behind what follows it
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

    /// Logs came back whose groups are not known: entries of groups without a log wait for a while.
    pub(crate) async fn hold_for_claims(&self) -> Result<()> {
        let until = self.now().checked_add(CLAIMS).unwrap_or(Timestamp::MAX);
        self.put_meta(CLAIMED_AT, until.to_string()).await?;
        self.engine.hold_new_logs(until);
        Ok(())
    }

    /// At start: logs that came back wait for the operator, also over a restart.
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

    /// Puts behind a log what is missing. Answers what the archive has of it, once it is here.
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
                    None => self.put_behind(number, end..past, entries).await?,
                    Some(Above { edge: Some(edge), nodes }) => {
                        let hashes = RestoredHashes { edge, nodes };
                        self.audit.engine.restore_below(number, entries, hashes).await?
                    }
                    // a later section has the hashes
                    Some(Above { edge: None, .. }) => {
                        self.has_holes = true;
                        0
                    }
                };
                self.done.entries += u64::try_from(came_back).unwrap_or_default();
                // another replica may have brought some of them back
                let gone = || Error::Damaged(format!("log {log} is gone"));
                let size = self.audit.log_by_number(number).await?.ok_or_else(gone)?.size();
                self.here.insert(log, Here { number, end: size, is_damaged: false });
            }
            Ok(self.here.get(&log).is_some_and(|here| here.end >= past).then_some(span))
        })
    }

    /// The entries of a section from `end` on, but for those that the database had lost. What has expired comes without its body.
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

    /// Puts entries behind the last one of a log, up to the first that was lost: another part may have that. Answers how many were missing.
    async fn put_behind(&mut self, log: i64, wanted: std::ops::Range<u64>, mut entries: Vec<Restored>) -> Result<usize> {
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

    async fn here(&mut self, section: &Section) -> Result<&Here> {
        let log = section.log;
        if !self.here.contains_key(&log) {
            let here = match self.audit.log_by_id(&log).await {
                Ok(Some(log)) => Here { number: log.number, end: log.size(), is_damaged: false },
                Ok(None) => {
                    let number = self.audit.engine.adopt(Adopted { id: log, is_platform: section.is_platform }).await?;
                    self.done.logs += 1;
                    Here { number, end: 0, is_damaged: false }
                }
                Err(Error::Damaged(_)) => Here { number: 0, end: 0, is_damaged: true },
                Err(error) => return Err(error),
            };
            self.here.insert(log, here);
        }
        self.here.get(&log).ok_or_else(|| Error::Damaged(format!("log {log} is gone")))
    }

    async fn is_here(&self, log: &LogId) -> Result<bool> {
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
