//! The findings of the scrub, for the operator and for metrics.

use std::collections::HashMap;

use jiff::Timestamp;
use tsujiban_database::on;

use crate::error::Result;
use crate::service::Audit;
use crate::signing::NO_LOG;

/// How many damaged things are named.
const NAMED: i64 = 10;

/// Whether the stored data of a log, or the data that belongs to no log, is intact.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Integrity {
    /// The first names of damaged things.
    pub damaged: Vec<String>,
    pub damaged_count: u64,
    /// Everything was read again at this time or later; `None` until one pass is complete.
    pub checked_at: Option<Timestamp>,
}

impl Audit {
    /// The integrity of each log, and under number 0 of the data that belongs to no log.
    pub async fn integrity(&self) -> Result<HashMap<i64, Integrity>> {
        const CHECKED: &str = "SELECT log, whole_at FROM scrubs WHERE whole_at IS NOT NULL";
        const COUNTS: &str = "SELECT log, CAST(SUM(beyond - first) AS BIGINT) FROM damages WHERE healed_at IS NULL GROUP BY log";
        const NAMES: &str = "SELECT place FROM damages WHERE log = $1 AND healed_at IS NULL ORDER BY kind, first, place LIMIT $2";
        let mut known: HashMap<i64, Integrity> = HashMap::new();
        let checked: Vec<(i64, i64)> = on!(self.database.reads(), p => sqlx::query_as(CHECKED).fetch_all(p).await)?;
        for (log, at) in checked {
            known.entry(log).or_default().checked_at = Timestamp::from_microsecond(at).ok();
        }
        let counts: Vec<(i64, i64)> = on!(self.database.reads(), p => sqlx::query_as(COUNTS).fetch_all(p).await)?;
        for (log, count) in counts {
            let damaged = on!(self.database.reads(), p => sqlx::query_scalar(NAMES).bind(log).bind(NAMED).fetch_all(p).await)?;
            let known = known.entry(log).or_default();
            (known.damaged, known.damaged_count) = (damaged, count.cast_unsigned());
        }
        Ok(known)
    }

    /// The integrity of the data that belongs to no group: the platform's own log, and the data that belongs to no log.
    pub async fn shared_integrity(&self, known: &HashMap<i64, Integrity>) -> Result<Integrity> {
        const OWN: &str = "SELECT MAX(number) FROM logs WHERE group_id = ''";
        let mut shared = known.get(&NO_LOG).cloned().unwrap_or_default();
        let own: Option<i64> = on!(self.database.reads(), p => sqlx::query_scalar(OWN).fetch_one(p).await)?;
        if let Some(own) = own {
            let own = known.get(&own).cloned().unwrap_or_default();
            shared.damaged.extend(own.damaged.into_iter().map(|place| format!("{place} of the platform's own history")));
            shared.damaged.truncate(usize::try_from(NAMED).unwrap_or_default());
            shared.damaged_count = shared.damaged_count.saturating_add(own.damaged_count);
            shared.checked_at = shared.checked_at.zip(own.checked_at).map(|(shared, own)| shared.min(own));
        }
        Ok(shared)
    }

    /// Updates the scrub's metrics. A log that was never read again counts from when it was made.
    pub(super) async fn show_scrub(&self) -> Result<()> {
        const DAMAGED: &str = "SELECT CAST(COALESCE(SUM(beyond - first), 0) AS BIGINT) FROM damages WHERE healed_at IS NULL";
        const OLDEST: &str = "SELECT MIN(COALESCE(s.whole_at, l.made_at)) FROM logs l LEFT JOIN scrubs s ON s.log = l.number";
        let damaged: i64 = on!(self.database.reads(), p => sqlx::query_scalar(DAMAGED).fetch_one(p).await)?;
        let oldest: Option<i64> = on!(self.database.reads(), p => sqlx::query_scalar(OLDEST).fetch_one(p).await)?;
        self.metrics.scrub_damaged.set(damaged);
        let oldest = oldest.and_then(|at| Timestamp::from_microsecond(at).ok()).unwrap_or_else(|| self.now());
        self.metrics.scrub_oldest_check.set(oldest.as_duration().as_secs_f64());
        Ok(())
    }
}
