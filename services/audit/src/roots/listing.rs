//! The state of the lists between comparisons, and their prefix in the bucket.

use std::collections::BTreeSet;

use jiff::Timestamp;
use tsujiban_history::LogId;
use tsujiban_history::roots::Skipped;

pub(crate) const PREFIX: &str = "roots/";
/// The most ranges of numbers that lists skip because of damaged lists. More than any bucket has, and far fewer than fit into a list.
pub(super) const MOST_SKIPPED: usize = 500;

/// The state of the lists between comparisons. Its lock is held while comparing, putting lists and declaring gaps.
#[derive(Debug, Default)]
pub struct Listing {
    /// Numbers that a signed list skips as not being lists of this chain, or that the next list is to skip.
    pub(super) skipped: Skipped,
    /// Lists that are damaged in the bucket and that this database has recorded: the next list is a full one, which repeats their content.
    pub(super) damaged: BTreeSet<u64>,
    /// When a rebuild from the archive was last tried.
    pub(super) rebuilt_at: Option<Timestamp>,
    /// Whether the erasures in the bucket were read.
    pub(super) knows_erasures: bool,
    /// When healing the refused logs was last tried.
    pub(super) readmitted_at: Option<Timestamp>,
    /// Logs that are left out of lists, since their entries do not lead to their heads.
    pub(super) faulty: BTreeSet<LogId>,
}

impl Listing {
    /// Makes the next list a full one that skips the damaged list, unless that is skipped already.
    pub(super) fn repeat(&mut self, number: u64) {
        if !self.skipped.contains(number) && self.skipped.ranges().count() < MOST_SKIPPED {
            self.skipped.insert(number);
            self.damaged.insert(number);
        }
    }
}
