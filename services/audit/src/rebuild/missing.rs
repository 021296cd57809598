//! Which day keys are searched in the bucket.

use std::collections::BTreeSet;

use jiff::Timestamp;
use tsujiban_history::{DayKeyId, LogId};

/// Missing day keys.
#[derive(Debug, Default)]
pub(crate) struct MissingKeys {
    /// The ones that the scrub found since the last search.
    pub(super) wanted: BTreeSet<(LogId, DayKeyId)>,
    /// Whether some are of the newest day of their log: the next entry would make another key for that day.
    pub(super) is_urgent: bool,
    pub(super) looked_at: Option<Timestamp>,
    /// The ones that are not in the bucket either. They are searched again after the next start.
    pub(super) not_in_bucket: BTreeSet<(LogId, DayKeyId)>,
}

impl MissingKeys {
    pub fn note(&mut self, log: LogId, keys: impl Iterator<Item = DayKeyId>, is_newest_day: bool) {
        let count = self.wanted.len();
        self.wanted.extend(keys.map(|key| (log, key)).filter(|key| !self.not_in_bucket.contains(key)));
        self.is_urgent |= is_newest_day && self.wanted.len() > count;
    }
}
