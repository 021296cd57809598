//! Logs that accept no entries, since what is stored of them is inconsistent. All other logs accept entries.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Refused logs by their numbers in the database, each with the reason.
pub type RefusedLogs = BTreeMap<i64, Arc<str>>;

/// The logs that are refused now. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Refused(Arc<RwLock<Arc<RefusedLogs>>>);

impl Refused {
    pub fn all(&self) -> Arc<RefusedLogs> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Why a log is refused; `None` for one that is not.
    pub fn why(&self, log: i64) -> Option<Arc<str>> {
        self.all().get(&log).cloned()
    }

    pub fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    pub fn set(&self, logs: RefusedLogs) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(logs);
    }
}
