//! Logs to which nothing is added, since what is stored of them does not hold together and could not be healed: all others go on. Which ones
//! is remembered in the database, so that a restart forgets none of them.

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
    /// What was found before is still so, until it is checked. Another replica may have found it.
    pub(crate) async fn recall_refused(&self) -> Result<()> {
        let remembered = self.meta(REFUSED).await?.unwrap_or_else(|| "{}".to_owned());
        // what is no such list hides nothing: the comparison at start finds what does not hold together
        let logs: BTreeMap<i64, String> = serde_json::from_str(&remembered).unwrap_or_default();
        self.show_refused(logs.into_iter().map(|(log, why)| (log, why.into())).collect());
        Ok(())
    }

    /// Adds nothing more to these logs.
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

    /// These logs are refused, and no others.
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

    /// Heals the logs that are refused from what is left of them and from the archive, and lets those go on that hold together again.
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

    /// What is still wrong with a log, in words, once everything was healed that can be.
    async fn log_fault(&self, number: i64, heads: &BTreeMap<LogId, Vec<TreeHead>>) -> Result<Option<String>> {
        let log = match self.log_by_number(number).await {
            Ok(Some(log)) => log,
            // it was there when it was refused
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

    /// What is damaged of a log and was not declared, in words, once everything was healed that can be.
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
