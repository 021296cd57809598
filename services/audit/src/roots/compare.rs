//! Whether this history is the newest one.

use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::fmt;

use tsujiban_database::on;
use tsujiban_history::leaf::ListLoss;
use tsujiban_history::roots::{Chain, RootList, Scope};
use tsujiban_history::{JstTime, LogId, TreeHead};

use super::{AGAIN_AFTER, Listing, Survey};
use crate::engine::{RefusedLogs, Standing};
use crate::error::{Error, Result};
use crate::reading::Log;
use crate::service::Audit;

/// How this database differs from the newest state in the bucket.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Why it is uncertain whether this is the newest history, in words.
    pub whole: Option<String>,
    /// Logs that are inconsistent in this database.
    pub logs: RefusedLogs,
}

/// How a log differs from a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lack {
    /// The log here is consistent, but differs or is shorter: the whole history may be older, or a different one.
    Other(String),
    /// The log with this number is damaged in this database.
    Damaged(i64, String),
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(what) | Self::Damaged(_, what) => f.write_str(what),
        }
    }
}

impl Faults {
    /// Adds a log's difference from the lists. `tell` makes the fault's text from it.
    fn take(&mut self, lack: Lack, tell: impl Fn(&str) -> String) {
        match lack {
            Lack::Other(what) => drop(self.whole.get_or_insert(tell(&what))),
            Lack::Damaged(log, what) => drop(self.logs.insert(log, what.into())),
        }
    }
}

impl Audit {
    /// Compares the history with the lists that are new in the bucket. Refuses damaged logs, and makes a differing history read-only.
    pub(super) async fn compare(&self, listing: &mut Listing) -> Result<()> {
        let Faults { whole, logs } = self.new_faults(listing).await?;
        self.refuse(logs).await?;
        match whole {
            Some(fault) => self.turn_read_only(&fault).await,
            None => Ok(()),
        }
    }

    /// Compares the history with all current lists in the bucket. Refuses damaged logs, and makes a differing history read-only.
    pub(super) async fn compare_all(&self, listing: &mut Listing) -> Result<()> {
        let survey = self.survey().await?;
        (listing.skipped, listing.damaged) = (survey.skipped(), survey.damaged.clone());
        let Faults { whole, logs } = self.faults(&survey, &survey.heads()).await?;
        self.refuse(logs).await?;
        if let Some(fault) = whole {
            return self.turn_read_only(&fault).await;
        }
        self.note_all(&survey).await?;
        if let Standing::Forked(fault) = self.engine.standing() {
            // an earlier fault stays until the history was checked as a whole
            self.turn_read_only(&fault).await?;
        }
        Ok(())
    }

    /// Recovers a read-only history: restores entries from the archive, checks the whole history, and makes it writable if it agrees with
    /// the lists. Refuses the logs that are still damaged.
    pub(super) async fn recover(&self, listing: &mut Listing) -> Result<()> {
        let mut survey = self.survey().await?;
        let heads = survey.heads();
        let now = self.now();
        if listing.rebuilt_at.is_none_or(|at| now.duration_since(at) >= AGAIN_AFTER) {
            let rebuilt = self.rebuild(&newest(&heads), survey.lacks_lists()).await?;
            survey.bridge(&rebuilt.read);
            listing.rebuilt_at = Some(now);
        }
        (listing.skipped, listing.damaged) = (survey.skipped(), survey.damaged.clone());
        let Faults { whole, mut logs } = self.faults(&survey, &heads).await?;
        if let Some(fault) = whole {
            self.refuse(logs).await?;
            return self.turn_read_only(&fault).await;
        }
        for (log, what) in self.damaged_logs().await? {
            logs.entry(log).or_insert(what);
        }
        self.set_refused(logs).await?;
        self.note_all(&survey).await?;
        let was = match self.engine.standing() {
            Standing::Forked(why) => why,
            Standing::Sound => return Ok(()),
        };
        self.recall_erasures().await?;
        let lost_tail = self.engine.lost_tail();
        self.turn_sound().await?;
        listing.rebuilt_at = None;
        tracing::warn!(was = &*was, "all of the history was checked: it is what the bucket says, and goes on");
        if lost_tail { self.record_lost_tail(&was).await } else { Ok(()) }
    }

    /// How this database differs from the newest state in the bucket.
    async fn faults(&self, survey: &Survey, heads: &BTreeMap<LogId, Vec<TreeHead>>) -> Result<Faults> {
        let mut faults = Faults { whole: survey.fault(), logs: self.inconsistent_logs().await? };
        for (log, heads) in heads {
            if let Some(head) = heads.first()
                && let Some(lack) = self.lack(*log, *head).await?
            {
                faults.take(lack, |what| format!("the root lists say more: {what}"));
            }
        }
        Ok(faults)
    }

    /// How this database differs from lists that are new in the bucket. Also checks that the newest recorded list is still there.
    async fn new_faults(&self, listing: &mut Listing) -> Result<Faults> {
        let whole = |fault: String| Ok(Faults { whole: Some(fault), ..Faults::default() });
        let mut faults = Faults::default();
        let known = self.known().await?;
        let number = known.as_ref().map_or(0, |known| known.number);
        let lying = self.list_objects_after(number.saturating_sub(1)).await?;
        let mut covered_over = 0;
        let mut chain = Chain::new();
        if let Some(known) = &known {
            let Some(found) = lying.iter().find(|lying| lying.number == number) else {
                return whole(format!("root list {number} is not in the bucket any more"));
            };
            covered_over += i64::from(found.objects > 1);
            if lying.iter().any(|lying| lying.number > number) {
                match self.fetch(&found.key, found.version.as_ref()).await? {
                    Ok(list) if list.digest() != known.hash => {
                        return whole(format!("root list {number} in the bucket is another one than this database knows"));
                    }
                    Ok(list) => chain = Chain::after(&list),
                    // the database has what this list said: the next full list repeats it
                    Err(lost) if lost.was == ListLoss::Damaged && lost.is_certain => {
                        chain.pass(number, JstTime::new(known.at), known.hash);
                        listing.repeat(number);
                    }
                    Err(lost) => return whole(lost.why),
                }
            }
        }
        for lying in &lying {
            if lying.number <= number || listing.skipped.contains(lying.number) {
                continue;
            }
            covered_over += i64::from(lying.objects > 1);
            let list = match self.fetch(&lying.key, lying.version.as_ref()).await? {
                Ok(list) => list,
                Err(lost) => return whole(lost.why),
            };
            if number == 0 && lying.number != 1 && chain.next().is_none() {
                return whole(format!("the bucket has root lists, the first of them {}, and this database knows none", lying.number));
            }
            listing.skipped.extend(&list.skipped);
            listing.damaged.retain(|number| !list.skipped.contains(*number));
            if let Err(broken) = chain.follow(&list) {
                return whole(broken.to_string());
            }
            for (log, head) in &list.roots {
                if let Some(lack) = self.lack(*log, *head).await? {
                    faults.take(lack, |what| format!("root list {} of {} says more: {what}", list.number, list.time));
                }
            }
            if faults.whole.is_some() {
                return Ok(faults);
            }
            // another replica put the list, or this one did and was stopped before it recorded it
            self.note(&list).await?;
        }
        if covered_over > 0 && self.metrics.covered_over.get() == 0 {
            tracing::error!(
                newest = number,
                "another version or a delete marker lies over a root list; the first version is still there, and counts"
            );
        }
        self.metrics.covered_over.set(covered_over);
        Ok(faults)
    }

    /// How a log differs from a head; `None` if it agrees. An inconsistent log proves nothing about the rest of the history.
    pub(crate) async fn lack(&self, log: LogId, head: TreeHead) -> Result<Option<Lack>> {
        let Some(number) = self.number_of(&log).await? else {
            return Ok(Some(Lack::Other(format!("log {log} has {} entries there and is not here", head.size))));
        };
        let here = match self.log_by_number(number).await {
            Ok(Some(here)) => here,
            Ok(None) => return Ok(Some(Lack::Other(format!("log {log} has {} entries there and is not here", head.size)))),
            Err(Error::Damaged(what)) => {
                return Ok(Some(Lack::Damaged(
                    number,
                    format!("log {log} has {} entries there, and here it is damaged: {what}", head.size),
                )));
            }
            Err(error) => return Err(error),
        };
        let difference = match self.difference(&here, head).await? {
            None => return Ok(None),
            Some(Lack::Other(difference)) => difference,
            damaged => return Ok(damaged),
        };
        if self.engine.refused().why(number).is_some() {
            // a refused log is not trusted anyway
            return Ok(Some(Lack::Damaged(number, difference)));
        }
        let fault = self.inconsistency(&here).await?;
        Ok(Some(fault.map_or(Lack::Other(difference), |fault| Lack::Damaged(number, fault))))
    }

    async fn difference(&self, here: &Log, head: TreeHead) -> Result<Option<Lack>> {
        let log = here.id;
        if here.size() < head.size {
            return Ok(Some(Lack::Other(format!("log {log} has {} entries there and {} here", head.size, here.size()))));
        }
        match self.root_at(here, head.size).await {
            Ok(root) if root == head.root => Ok(None),
            Ok(_) => Ok(Some(Lack::Other(format!("log {log} has other entries there among its first {}", head.size)))),
            // the root within a tile with declared damage cannot be computed until the tile is whole
            Err(Error::Damaged(_)) if self.is_declared_at(here, head.size).await? => Ok(None),
            Err(Error::Damaged(what)) => {
                Ok(Some(Lack::Damaged(here.number, format!("log {log} is damaged among its first {}: {what}", head.size))))
            }
            Err(error) => Err(error),
        }
    }

    async fn number_of(&self, log: &LogId) -> Result<Option<i64>> {
        const OF: &str = "SELECT number FROM logs WHERE log_id = $1";
        let id = log.as_bytes().to_vec();
        Ok(on!(self.database.reads(), p => sqlx::query_scalar(OF).bind(id).fetch_optional(p).await)?)
    }

    pub(super) fn note_all<'a>(&'a self, survey: &'a Survey) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            for list in &survey.lists {
                self.note(list).await?;
            }
            Ok(())
        })
    }

    /// Records in the database that a list is in the bucket.
    pub(super) async fn note(&self, list: &RootList) -> Result<()> {
        const LIST: &str = "INSERT INTO root_lists (number, hash, day, is_full, at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
        const LOG: &str = "INSERT INTO listed (log, size) SELECT number, $2 FROM logs WHERE log_id = $1
             ON CONFLICT (log) DO UPDATE SET size = excluded.size";
        let at = list.time.timestamp();
        tsujiban_database::transaction!(self.database, tx => {
            on!(tx.on(), c => sqlx::query(LIST)
                .bind(list.number.cast_signed())
                .bind(list.digest().as_bytes().to_vec())
                .bind(list.time.day().number())
                .bind(list.scope == Scope::Full)
                .bind(at.as_microsecond())
                .execute(c)
                .await
                .map(drop))?;
            for (log, head) in &list.roots {
                on!(tx.on(), c => sqlx::query(LOG)
                    .bind(log.as_bytes().to_vec()).bind(head.size.cast_signed()).execute(c).await.map(drop))?;
            }
            Ok::<(), Error>(())
        })?;
        self.metrics.root_list_number.set(list.number.cast_signed());
        self.metrics.root_list_timestamp.set(at.as_duration().as_secs_f64());
        Ok(())
    }
}

/// The newest head of each log.
pub(super) fn newest(heads: &BTreeMap<LogId, Vec<TreeHead>>) -> BTreeMap<LogId, TreeHead> {
    heads.iter().filter_map(|(log, heads)| Some((*log, *heads.first()?))).collect()
}
