//! Power cuts at a chosen write.
//!
//! Several groups can be tested at once, each with a write of its own, after which the group is cut off: the apiserver has done the write,
//! its answer never arrives, and every later request of the group hangs. When all groups are cut off, the test ends the operator. For each
//! group that is a power cut right after its write.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where the power is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aim {
    /// After so many writes.
    Nth(usize),
    /// After this write.
    Write(String),
}

#[derive(Debug, Default)]
struct Lane {
    aim: Option<Aim>,
    writes: Vec<String>,
}

impl Lane {
    fn is_dead(&self) -> bool {
        match &self.aim {
            None => false,
            Some(Aim::Nth(count)) => self.writes.len() >= *count,
            Some(Aim::Write(write)) => self.writes.last() == Some(write),
        }
    }
}

/// The writes of groups, and where they are cut off. Clones share everything.
#[derive(Debug, Clone, Default)]
pub struct Crash(Arc<Mutex<BTreeMap<String, Lane>>>);

impl Crash {
    /// Counts the writes of a group from now on, and cuts the group off after the write that `aim` names.
    pub fn aim(&self, group: &str, aim: Option<Aim>) {
        self.lanes().insert(group.to_owned(), Lane { aim, writes: Vec::new() });
    }

    /// The writes of the group since [`Crash::aim`] was called for it.
    pub fn writes(&self, group: &str) -> Vec<String> {
        self.lanes().get(group).map(|lane| lane.writes.clone()).unwrap_or_default()
    }

    /// The write after which the group was cut off; `None` if it was not.
    pub fn struck(&self, group: &str) -> Option<String> {
        let lanes = self.lanes();
        let lane = lanes.get(group).filter(|lane| lane.is_dead())?;
        lane.writes.last().cloned()
    }

    /// Whether the group is cut off.
    pub fn is_dead(&self, group: &str) -> bool {
        self.lanes().get(group).is_some_and(Lane::is_dead)
    }

    /// Notes that a write was done. Returns whether the client may get its answer.
    pub fn may_answer(&self, group: &str, write: &str) -> bool {
        let mut lanes = self.lanes();
        let Some(lane) = lanes.get_mut(group) else { return true };
        if !lane.is_dead() {
            lane.writes.push(write.to_owned());
        }
        !lane.is_dead()
    }

    fn lanes(&self) -> MutexGuard<'_, BTreeMap<String, Lane>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_write_is_the_last() {
        let crash = Crash::default();
        crash.aim("a", Some(Aim::Nth(2)));
        crash.aim("b", None);
        assert!(crash.may_answer("a", "one") && !crash.is_dead("a"));
        assert!(!crash.may_answer("a", "two") && crash.is_dead("a"));
        assert_eq!(crash.struck("a").as_deref(), Some("two"));
        assert!(!crash.may_answer("a", "three"));
        assert_eq!(crash.writes("a"), ["one", "two"]);
        assert!((0..9).all(|_| crash.may_answer("b", "more")) && crash.struck("b").is_none());
        crash.aim("a", None);
        assert!(crash.may_answer("a", "one") && crash.writes("a") == ["one"]);
        crash.aim("a", Some(Aim::Write("two".to_owned())));
        assert!(crash.may_answer("a", "one") && !crash.may_answer("a", "two"));
        assert_eq!(crash.struck("a").as_deref(), Some("two"));
    }
}
