//! Which keys of days are looked for.

use std::collections::BTreeSet;

use jiff::Timestamp;
use tsujiban_history::{DayKeyId, LogId};

/// Keys of days that are missing.
#[derive(Debug, Default)]
pub(crate) struct MissingKeys {
    /// Those that the scrub found since they were looked for last.
    pub(super) wanted: BTreeSet<(LogId, DayKeyId)>,
    /// Whether some are of the newest day of their log: the next entry would give that day another key.
    pub(super) is_urgent: bool,
    pub(super) looked_at: Option<Timestamp>,
    /// Those that are not in the bucket either. They are looked for again after the next start.
    pub(super) in_vain: BTreeSet<(LogId, DayKeyId)>,
}

impl MissingKeys {
    pub fn note(&mut self, log: LogId, keys: impl Iterator<Item = DayKeyId>, is_newest_day: bool) {
        let count = self.wanted.len();
        self.wanted.extend(keys.map(|key| (log, key)).filter(|key| !self.in_vain.contains(key)));
        self.is_urgent |= is_newest_day && self.wanted.len() > count;
    }
}
