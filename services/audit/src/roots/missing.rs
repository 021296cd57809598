//! Root lists that are missing in the bucket although their locks have not ended.

use std::collections::BTreeSet;

use tsujiban_database::on;
use tsujiban_history::leaf::ListLoss;

use super::survey::Survey;
use super::{LOCKED, PREFIX};
use crate::error::Result;
use crate::service::Audit;

/// How many ranges of missing lists one gap declares. The rest stays damage.
const STATED: usize = 256;

impl Audit {
    /// Adds the missing lists to a survey that this database has recorded and that are still locked, so that a gap and the list after it
    /// declare them: the survey itself begins with the newest full list.
    pub(super) async fn survey_missing(&self, survey: &mut Survey) -> Result<()> {
        let (mut ranges, mut next) = (0, None);
        for number in self.missing_lists().await? {
            ranges += usize::from(next != Some(number));
            if ranges > STATED {
                return Ok(());
            }
            next = number.checked_add(1);
            survey.lost.entry(number).or_insert(ListLoss::Missing);
        }
        Ok(())
    }

    async fn missing_lists(&self) -> Result<BTreeSet<u64>> {
        const NOTED: &str = "SELECT number FROM root_lists WHERE at > $1";
        let locked = i64::try_from(LOCKED.as_micros()).unwrap_or(i64::MAX);
        let since = self.now().as_microsecond().saturating_sub(locked);
        let noted: Vec<i64> = on!(self.database.reads(), p => sqlx::query_scalar(NOTED).bind(since).fetch_all(p).await)?;
        let mut missing: BTreeSet<u64> = noted.into_iter().map(i64::cast_unsigned).collect();
        let mut from = None;
        loop {
            let page = self.store.list(PREFIX, from).await?;
            for entry in page.entries.iter().filter(|entry| !entry.delete_marker) {
                if let Some(number) = entry.key.strip_prefix(PREFIX).and_then(|digits| digits.parse().ok()) {
                    missing.remove(&number);
                }
            }
            from = page.next;
            if from.is_none() {
                return Ok(missing);
            }
        }
    }

    /// Whether a signed list skips this number.
    pub(crate) async fn is_skipped(&self, number: u64) -> bool {
        let listing = self.listing.lock().await;
        listing.skipped.contains(number) && !listing.damaged.contains(&number)
    }
}
