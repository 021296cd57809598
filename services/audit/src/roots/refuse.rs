//! Logs that accept no entries, since they are inconsistent and could not be healed: all other logs accept entries. The database records
//! the refused logs, so that they stay refused after a restart.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use tsujiban_history::{LogId, TreeHead};

use super::compare::newest;
use super::{AGAIN_AFTER, Listing};
use crate::engine::RefusedLogs;
use crate::error::{Error, Result};
use crate::reading::Log;
use crate::service::Audit;

const REFUSED: &str = "refused logs";

impl Audit {
    /// Reads the refused logs from the database, since they stay refused until they are checked. Another replica may have refused them.
    pub(crate) async fn recall_refused(&self) -> Result<()> {
        let remembered = self.meta(REFUSED).await?.unwrap_or_else(|| "{}".to_owned());
        // if this value is damaged, no fault stays hidden: the comparison at start finds inconsistent logs
        let logs: BTreeMap<i64, String> = serde_json::from_str(&remembered).unwrap_or_default();
        self.show_refused(logs.into_iter().map(|(log, why)| (log, why.into())).collect());
        Ok(())
    }

    /// Refuses entries to these logs, too.
    pub(super) async fn refuse(&self, found: RefusedLogs) -> Result<()> {
        let known = self.engine.refused().all();
        if found.keys().all(|log| known.contains_key(log)) {
            return Ok(());
        }
        let mut logs = RefusedLogs::clone(&known);
        for (log, why) in found {
            if let Entry::Vacant(new) = logs.entry(log) {
                tracing::error!(
                    log,
                    why = &*why,
                    "nothing is added to a log: what is stored of it does not hold together; all others go on"
                );
                new.insert(why);
            }
        }
        self.set_refused(logs).await
    }

    /// Refuses entries to exactly these logs.
    pub(super) async fn set_refused(&self, logs: RefusedLogs) -> Result<()> {
        let known = self.engine.refused().all();
        if *known == logs {
            return Ok(());
        }
        for log in known.keys().filter(|log| !logs.contains_key(log)) {
            tracing::warn!(log, "a log that was refused holds together again, and goes on");
        }
        let text: BTreeMap<i64, &str> = logs.iter().map(|(log, why)| (*log, &**why)).collect();
        let text = serde_json::to_string(&text).map_err(|error| Error::invalid(error.to_string()))?;
        self.put_meta(REFUSED, text).await?;
        self.show_refused(logs);
        Ok(())
    }

    fn show_refused(&self, logs: RefusedLogs) {
        self.metrics.refused_logs.set(i64::try_from(logs.len()).unwrap_or(i64::MAX));
        self.engine.refused().set(logs);
    }

    /// Heals the refused logs from their remaining rows and from the archive, and readmits those that are consistent again.
    pub(super) async fn readmit(&self, listing: &mut Listing) -> Result<()> {
        let (refused, now) = (self.engine.refused().all(), self.now());
        if refused.is_empty() || listing.readmitted_at.is_some_and(|at| now.duration_since(at) < AGAIN_AFTER) {
            return Ok(());
        }
        let heads = self.survey().await?.heads();
        self.bring_back(&refused, &newest(&heads)).await?;
        let mut left = RefusedLogs::new();
        for number in refused.keys() {
            if let Some(why) = self.log_fault(*number, &heads).await? {
                left.insert(*number, why.into());
            }
        }
        listing.readmitted_at = Some(now);
        self.set_refused(left).await
    }

    /// Heals a log, and describes in words what is still wrong with it.
    async fn log_fault(&self, number: i64, heads: &BTreeMap<LogId, Vec<TreeHead>>) -> Result<Option<String>> {
        let log = match self.log_by_number(number).await {
            Ok(Some(log)) => log,
            // the log existed when it was refused
            Ok(None) => return Ok(None),
            Err(Error::Damaged(what)) => return Ok(Some(what)),
            Err(error) => return Err(error),
        };
        let damage = self.healed_damage(&log).await?;
        if let Some(head) = heads.get(&log.id).and_then(|heads| heads.first())
            && let Some(lack) = self.lack(log.id, *head).await?
        {
            return Ok(Some(lack.to_string()));
        }
        Ok(self.inconsistency(&log).await?.or(damage))
    }

    /// Heals a log, and describes in words the damage that is left and not declared.
    pub(super) async fn healed_damage(&self, log: &Log) -> Result<Option<String>> {
        let damaged = self.undeclared_spans(log).await?;
        if damaged.is_empty() {
            return Ok(None);
        }
        for span in damaged {
            self.heal_span(log, span).await?;
        }
        self.mend_nodes(log).await?;
        let left = self.undeclared_spans(log).await?.into_iter().next();
        Ok(left.map(|span| format!("log {} is damaged from entry {} to {}", log.id, span.start, span.end.saturating_sub(1))))
    }
}
