//! What is kept of the lists between looks at them, and where they lie.

use std::collections::BTreeSet;

use jiff::Timestamp;
use tsujiban_history::LogId;
use tsujiban_history::roots::Skipped;

pub(crate) const PREFIX: &str = "roots/";
/// How many ranges of numbers lists skip for lists that are damaged at most. More than any bucket has, and far fewer than a list has room for.
pub(super) const MOST_SKIPPED: usize = 500;

/// What is kept of the lists between looks at them. Whoever holds it is alone in comparing, putting lists and declaring gaps.
#[derive(Debug, Default)]
pub struct Listing {
    /// Numbers that a signed list says are not lists of this chain.
    pub(super) skipped: Skipped,
    /// Lists that are damaged in the bucket and that this database knows: the next list is a full one, which says again what they said.
    pub(super) damaged: BTreeSet<u64>,
    /// When the archive was last asked for all that is missing.
    pub(super) rebuilt_at: Option<Timestamp>,
    /// Whether it was looked up in the bucket which groups were erased.
    pub(super) knows_erasures: bool,
    /// When the logs that are refused were last healed as far as that was possible.
    pub(super) readmitted_at: Option<Timestamp>,
    /// Logs that are left out of lists, since their entries do not lead to their heads.
    pub(super) faulty: BTreeSet<LogId>,
}

impl Listing {
    /// Lets the next list be a full one that skips a damaged one. One that is skipped already needs none.
    pub(super) fn repeat(&mut self, number: u64) {
        if !self.skipped.contains(number) && self.skipped.ranges().count() < MOST_SKIPPED {
            self.skipped.insert(number);
            self.damaged.insert(number);
        }
    }
}
