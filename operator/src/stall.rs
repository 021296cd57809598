//! Detects that reconciles are stalled, and says why.
//!
//! The age of a waiting change alone proves nothing: ten thousand Devices that are applied at once wait for minutes in a healthy operator.
//! Reconciles are stalled when a change waits and no reconcile of its kind succeeds; when one reconcile does not end; when a watch, which
//! restarts every half minute, is not answered; or when the watchdog itself does not get to run. A replica that waits for the lease does
//! not reconcile, and is healthy.

mod listening;
mod look;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use listening::listening;
pub use look::run;

/// A stall of this length is reported. People must see it within a minute, and checks are [`LOOK`] apart.
pub const STALLED: Duration = Duration::from_secs(45);
/// How often the caches are checked.
pub const LOOK: Duration = Duration::from_secs(5);
/// After a stall of this length a restart may help.
const RESTART_AFTER: Duration = Duration::from_mins(10);

/// More waiting changes than this count as high load.
const BUSY: usize = 20;

/// How a reconcile ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Well,
    /// With an error, which is logged elsewhere.
    Failed,
    /// It was cancelled at its deadline.
    GivenUp,
}

/// An object whose newest generation no reconcile has observed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    pub object: String,
    pub generation: i64,
}

/// Tracks the progress of reconciles and watches.
#[derive(Debug, Default)]
pub struct Watchdog(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    kinds: BTreeMap<&'static str, Kind>,
    /// When the caches were last checked; `None` while this replica does not lead.
    looked: Option<Instant>,
    /// Since when reconciles have been stalled without interruption.
    since: Option<Instant>,
}

#[derive(Debug)]
struct Kind {
    /// Since when the unfinished reconcile of each object has run. One that was cancelled at its deadline stays until a later one ends.
    running: HashMap<String, Instant>,
    /// Since when each change has waited.
    behind: HashMap<String, (i64, Instant)>,
    succeeded: Instant,
    /// When the watch was answered last.
    observe: Instant,
    is_listed: bool,
}

impl Kind {
    fn new(now: Instant) -> Self {
        Self { running: HashMap::new(), behind: HashMap::new(), succeeded: now, observe: now, is_listed: false }
    }

    fn lag(&self, now: Instant) -> Duration {
        self.behind.values().map(|(_, since)| now.duration_since(*since)).max().unwrap_or_default()
    }
}

impl Watchdog {
    /// Notes that this replica leads from now on, and reconciles these kinds.
    pub fn lead(&self, kinds: &[&'static str], now: Instant) {
        let kinds = kinds.iter().map(|kind| (*kind, Kind::new(now))).collect();
        *self.state() = State { kinds, looked: Some(now), since: None };
    }

    /// Notes that a reconcile begins.
    pub fn begun(&self, kind: &str, object: &str, now: Instant) {
        if let Some(kind) = self.state().kinds.get_mut(kind) {
            kind.running.entry(object.to_owned()).or_insert(now);
        }
    }

    /// Notes that a reconcile ended.
    pub fn ended(&self, kind: &str, object: &str, end: End, now: Instant) {
        if let Some(kind) = self.state().kinds.get_mut(kind) {
            if end != End::GivenUp {
                kind.running.remove(object);
            }
            if end == End::Well {
                kind.succeeded = now;
            }
        }
    }

    /// Notes that the apiserver has answered a watch.
    pub fn observe(&self, kind: &str, now: Instant) {
        if let Some(kind) = self.state().kinds.get_mut(kind) {
            kind.observe = now;
        }
    }

    /// Notes which objects of a kind are behind; `listed` is `None` until the kind is listed. Drops the running reconciles of objects that
    /// no longer exist.
    pub fn check(&self, kind: &str, listed: Option<Vec<Behind>>, exists: impl Fn(&str) -> bool, now: Instant) {
        let mut state = self.state();
        if let Some(kind) = state.kinds.get_mut(kind) {
            kind.is_listed = listed.is_some();
            let mut before = std::mem::take(&mut kind.behind);
            for Behind { object, generation } in listed.unwrap_or_default() {
                let known = before.remove(&object).filter(|(known, _)| *known <= generation);
                // a newer change does not reset how long the object has waited
                kind.behind.insert(object, (generation, known.map_or(now, |(_, since)| since)));
            }
            kind.running.retain(|object, since| now.duration_since(*since) < LOOK || exists(object));
        }
        state.looked = Some(now);
        let stands_still = !state.reasons(now).is_empty();
        state.since = stands_still.then(|| state.since.unwrap_or(now));
    }

    /// Whether so many changes wait that work that can be deferred should be.
    pub fn is_busy(&self) -> bool {
        self.state().kinds.values().map(|kind| kind.behind.len()).sum::<usize>() > BUSY
    }

    /// For each kind: for how long the oldest change has waited, and for how long its watch was not answered.
    pub fn ages(&self, now: Instant) -> Vec<(&'static str, Duration, Duration)> {
        self.state().kinds.iter().map(|(name, kind)| (*name, kind.lag(now), now.duration_since(kind.observe))).collect()
    }

    /// Why reconciles are stalled; empty if they are not.
    pub fn reasons(&self, now: Instant) -> Vec<String> {
        self.state().reasons(now)
    }

    /// Whether reconciles have been stalled for so long that a restart may help. It does not help when one object hangs while others of its
    /// kind succeed: that object would hang again.
    pub fn liveness_failed(&self, now: Instant) -> bool {
        let state = self.state();
        let long_ago = |then: Instant| now.duration_since(then) >= RESTART_AFTER;
        state.since.is_some_and(long_ago) && state.kinds.values().any(|kind| long_ago(kind.succeeded) || long_ago(kind.observe))
            || state.looked.is_some_and(long_ago)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn reasons(&self, now: Instant) -> Vec<String> {
        let mut reasons = Vec::new();
        let Some(looked) = self.looked else { return reasons };
        let age = |then: Instant| now.duration_since(then);
        if age(looked) >= STALLED {
            reasons.push(format!("the operator was starved of CPU for {} s", age(looked).as_secs()));
        }
        for (name, kind) in &self.kinds {
            if !kind.is_listed && age(kind.succeeded) >= STALLED {
                reasons.push(format!("{name}: not listed yet after {} s", age(kind.succeeded).as_secs()));
            }
            if age(kind.observe) >= STALLED {
                reasons.push(format!("{name}: the watch was not answered for {} s", age(kind.observe).as_secs()));
            }
            if kind.lag(now) >= STALLED && age(kind.succeeded) >= STALLED {
                let (waits, done) = (kind.lag(now).as_secs(), age(kind.succeeded).as_secs());
                reasons.push(format!("{name}: a change has waited for {waits} s, and no reconcile has ended well for {done} s"));
            }
            if let Some((object, since)) = kind.running.iter().min_by_key(|(_, since)| **since)
                && age(*since) >= STALLED
            {
                reasons.push(format!("{name}: the reconcile of {object} has not ended for {} s", age(*since).as_secs()));
            }
        }
        reasons
    }
}

#[cfg(test)]
mod tests;
