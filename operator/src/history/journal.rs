//! Observations that the audit service has not acknowledged yet, and acknowledged ones that the objects' status does not show yet.
//!
//! Nothing here has to survive a restart: every object is reconciled again then, and its status shows what is not recorded yet. So the
//! queue is bounded, and an observation that does not fit is made again later.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tsujiban_api::Recorded;
use tsujiban_core::id::GroupId;
use tsujiban_proto::audit::v1::NewEntry;

use super::{Kind, Observation, entry};

/// How many observations wait at most: all Devices of a large installation, when it is upgraded from a version without a history.
const MOST: usize = 50_000;

/// Whether an observation is about the spec of an object or about its deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Subject {
    Spec,
    Deletion,
}

/// An observation that is not acknowledged yet.
#[derive(Debug, Clone)]
pub struct Waiting {
    pub kind: Kind,
    pub group: GroupId,
    pub name: String,
    uid: String,
    /// `None` for a deletion.
    spec: Option<Recorded>,
    pub seen: Timestamp,
    /// When the spec was changed, if the entry names who did that.
    pub stamped_at: Option<Timestamp>,
    pub entry: NewEntry,
}

#[derive(Debug, Default)]
struct State {
    /// In the order in which they were observed.
    queue: BTreeMap<u64, Waiting>,
    next: u64,
    /// The place in the queue of an object's newest observation: of its spec, and of its deletion.
    places: HashMap<(String, Subject), u64>,
    /// The places that are being sent now. They are not replaced by newer observations.
    sent: HashSet<u64>,
    /// The newest acknowledged spec of each object, until the object's status shows it.
    specs: HashMap<String, Recorded>,
    deletions: HashSet<String>,
    /// Objects whose running reconcile will still ask what is recorded.
    being_reconciled: HashSet<String>,
    /// Whether the last attempt to send succeeded.
    last_send_succeeded: bool,
}

/// Holds the observations that are to be recorded.
#[derive(Debug)]
pub struct Journal {
    /// Whether there is a history.
    is_kept: bool,
    state: Mutex<State>,
    more: Notify,
    acknowledged: watch::Sender<u64>,
}

impl Journal {
    pub fn new(is_kept: bool) -> Self {
        let state = Mutex::new(State { last_send_succeeded: true, ..State::default() });
        Self { is_kept, state, more: Notify::new(), acknowledged: watch::Sender::new(0) }
    }

    pub fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Adds observations that are not in the queue yet. A newer change of a spec replaces an older one that is not being sent yet.
    pub fn note(&self, observations: &[Observation], now: Timestamp) {
        if !self.is_kept || observations.is_empty() {
            return;
        }
        let mut state = self.state();
        for observation in observations {
            state.note(observation, now);
        }
        drop(state);
        self.more.notify_one();
    }

    /// Notes that a running reconcile of an object will ask what is recorded, so that an acknowledgement need not queue the object.
    pub fn begin_reconcile(&self, uid: &str) {
        if self.is_kept {
            self.state().being_reconciled.insert(uid.to_owned());
        }
    }

    /// Notes that the reconcile has asked.
    pub fn end_reconcile(&self, uid: &str) {
        self.state().being_reconciled.remove(uid);
    }

    /// The newest recorded spec of an object: the one in its status, or one that was acknowledged since.
    pub fn recorded(&self, uid: &str, in_status: Option<&Recorded>) -> Option<Recorded> {
        let mut state = self.state();
        let newer = state.specs.get(uid).filter(|known| in_status.is_none_or(|recorded| recorded.generation < known.generation)).cloned();
        if newer.is_none() {
            state.specs.remove(uid); // the status shows it by now
        }
        newer.or_else(|| in_status.cloned())
    }

    /// Counts a spec as recorded that was recorded before the object had a status that could show it.
    pub(super) fn adopt(&self, uid: &str, spec: Recorded) {
        self.state().specs.insert(uid.to_owned(), spec);
    }

    /// Whether the deletion of an object is recorded. Always true without a history.
    pub fn is_deletion_recorded(&self, uid: &str) -> bool {
        !self.is_kept || self.state().deletions.contains(uid)
    }

    /// Drops an object that is gone.
    pub fn forget(&self, uid: &str) {
        let mut state = self.state();
        state.specs.remove(uid);
        state.deletions.remove(uid);
        state.being_reconciled.remove(uid);
    }

    /// Whether an observation of a group is not acknowledged yet.
    pub fn waits_for(&self, group: &GroupId) -> bool {
        self.state().queue.values().any(|waiting| waiting.group == *group)
    }

    /// Waits until all observations of an object are acknowledged, at most for `limit`. Does not wait while sending fails, as when the
    /// audit service is unreachable.
    pub async fn settle(&self, uid: &str, limit: Duration) {
        let mut acknowledged = self.acknowledged.subscribe();
        let settled = async {
            while self.is_expected(uid) {
                if acknowledged.changed().await.is_err() {
                    return;
                }
            }
        };
        let _late = timeout(limit, settled).await.is_err(); // a later acknowledgement queues the object
    }

    fn is_expected(&self, uid: &str) -> bool {
        let state = self.state();
        state.last_send_succeeded
            && [Subject::Spec, Subject::Deletion].into_iter().any(|what| state.places.contains_key(&(uid.to_owned(), what)))
    }

    /// Waits until an observation is added.
    pub(super) async fn more(&self) {
        self.more.notified().await;
    }

    /// The oldest observations, to be sent, except those of groups for which `but` is true. They stay in the queue until they are
    /// acknowledged.
    pub(super) fn take(&self, most: usize, but: impl Fn(&GroupId) -> bool) -> Vec<(u64, Waiting)> {
        let mut state = self.state();
        let taken: Vec<_> =
            state.queue.iter().filter(|(_, waiting)| !but(&waiting.group)).take(most).map(|(at, it)| (*at, it.clone())).collect();
        state.sent = taken.iter().map(|(at, _)| *at).collect();
        taken
    }

    /// Notes that these observations are durable. Returns those whose object has to be queued, since no running reconcile will ask for it.
    pub(super) fn acknowledge<'a>(&self, taken: &'a [(u64, Waiting)]) -> Vec<&'a Waiting> {
        let mut state = self.state();
        for (at, waiting) in taken {
            state.queue.remove(at);
            let key = waiting.key();
            if state.places.get(&key) == Some(at) {
                state.places.remove(&key);
            }
            match &waiting.spec {
                Some(spec) => {
                    let known = state.specs.entry(waiting.uid.clone()).or_insert_with(|| spec.clone());
                    if known.generation < spec.generation {
                        known.clone_from(spec);
                    }
                }
                None => {
                    state.deletions.insert(waiting.uid.clone());
                }
            }
        }
        state.sent.clear();
        state.last_send_succeeded = true;
        let alone = taken.iter().map(|(_, waiting)| waiting).filter(|waiting| !state.being_reconciled.contains(&waiting.uid)).collect();
        drop(state);
        self.acknowledged.send_modify(|count| *count += 1);
        alone
    }

    /// Notes that the audit service did not accept what was being sent.
    pub(super) fn give_back(&self) {
        let mut state = self.state();
        state.sent.clear();
        state.last_send_succeeded = false;
        drop(state);
        self.acknowledged.send_modify(|count| *count += 1); // wakes the reconciles that wait
    }

    /// How many observations wait, and since when the oldest has waited.
    pub fn backlog(&self) -> (usize, Option<Timestamp>) {
        let state = self.state();
        (state.queue.len(), state.queue.values().map(|waiting| waiting.seen).min())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn key(&self) -> (String, Subject) {
        (self.uid.clone(), if self.spec.is_some() { Subject::Spec } else { Subject::Deletion })
    }
}

impl State {
    fn note(&mut self, observation: &Observation, now: Timestamp) {
        let spec = observation.what.recorded();
        let is_known = match spec {
            Some(spec) => self.specs.get(&observation.uid).is_some_and(|known| known.generation >= spec.generation),
            None => self.deletions.contains(&observation.uid),
        };
        let key = (observation.uid.clone(), if spec.is_some() { Subject::Spec } else { Subject::Deletion });
        let same = self.places.get(&key).and_then(|at| Some((*at, self.queue.get(at)?)));
        if is_known || same.is_some_and(|(_, waiting)| waiting.spec.as_ref() == spec) {
            return;
        }
        let (at, seen) = match same.map(|(at, waiting)| (at, waiting.seen)).filter(|(at, _)| !self.sent.contains(at)) {
            Some(place) => place,
            None if self.queue.len() >= MOST => return,
            None => {
                self.next += 1;
                (self.next, now)
            }
        };
        self.places.insert(key, at);
        let waiting = Waiting {
            kind: observation.kind,
            group: observation.group.clone(),
            name: observation.name.clone(),
            uid: observation.uid.clone(),
            spec: spec.cloned(),
            seen,
            stamped_at: observation.changed_at.filter(|_| observation.changed_by.is_some()),
            entry: entry(observation, seen),
        };
        self.queue.insert(at, waiting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Change;

    fn spec(generation: i64) -> Recorded {
        Recorded { generation, digest: format!("{generation:064}") }
    }

    fn seen(uid: &str, group: &str, what: Change) -> Observation {
        let (kind, name) = (Kind::Device, uid.to_owned());
        Observation { kind, group: group.parse().unwrap(), name, uid: uid.into(), what, changed_by: None, changed_at: None, created: None }
    }

    fn changed(uid: &str, from: i64, to: i64) -> Observation {
        seen(uid, "acme", Change::Changed { before: spec(from), after: spec(to) })
    }

    fn generations(taken: &[(u64, Waiting)]) -> Vec<String> {
        let detail = |waiting: &Waiting| waiting.entry.operation.as_ref().unwrap().detail.get("generations").cloned();
        taken.iter().map(|(_, waiting)| detail(waiting).unwrap_or_else(|| "deleted".into())).collect()
    }

    fn all(journal: &Journal) -> Vec<(u64, Waiting)> {
        journal.take(usize::MAX, |_| false)
    }

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    #[test]
    fn what_is_noted_again_waits_once_and_counts_when_it_is_acknowledged() {
        let journal = Journal::new(true);
        for _ in 0..3 {
            journal.note(&[changed("u1", 1, 2)], NOW);
        }
        assert_eq!(generations(&all(&journal)), ["2"]);
        assert_eq!(journal.recorded("u1", Some(&spec(1))), Some(spec(1)), "nobody has acknowledged it");
        let taken = all(&journal);
        journal.give_back();
        assert_eq!((generations(&all(&journal)), journal.recorded("u1", Some(&spec(1)))), (vec!["2".to_owned()], Some(spec(1))));
        journal.acknowledge(&taken);
        assert_eq!((all(&journal).len(), journal.recorded("u1", Some(&spec(1)))), (0, Some(spec(2))));
        journal.note(&[changed("u1", 1, 2)], NOW); // by a cache that lags behind
        assert!(all(&journal).is_empty());
        assert_eq!(journal.recorded("u1", Some(&spec(2))), Some(spec(2)));
        assert!(journal.state().specs.is_empty(), "the object says so itself");
    }

    #[test]
    fn edits_merge_until_they_are_sent() {
        let journal = Journal::new(true);
        journal.note(&[changed("u1", 1, 2)], NOW);
        journal.note(&[changed("u2", 1, 2)], NOW);
        journal.note(&[changed("u1", 1, 3)], NOW + Duration::from_secs(1));
        let taken = all(&journal);
        assert_eq!(generations(&taken), ["2-3", "2"]);
        assert_eq!(taken[0].1.seen, NOW, "since the first of them");
        journal.note(&[changed("u1", 1, 4)], NOW); // what is being sent stays what it is
        journal.acknowledge(&taken);
        assert_eq!(generations(&all(&journal)), ["2-4"]);
        assert_eq!(journal.recorded("u1", Some(&spec(1))), Some(spec(3)));
        journal.acknowledge(&all(&journal));
        assert_eq!(journal.recorded("u1", Some(&spec(1))), Some(spec(4)));
    }

    #[test]
    fn a_deletion_waits_for_itself_and_behind_the_change_before_it() {
        let journal = Journal::new(true);
        journal.note(&[changed("u1", 1, 2), seen("u1", "acme", Change::Deleted { before: None })], NOW);
        assert_eq!(generations(&all(&journal)), ["2", "deleted"]);
        assert!(!journal.is_deletion_recorded("u1") && journal.waits_for(&"acme".parse().unwrap()));
        journal.acknowledge(&all(&journal));
        assert!(journal.is_deletion_recorded("u1") && !journal.waits_for(&"acme".parse().unwrap()));
        journal.forget("u1");
        assert!(!journal.is_deletion_recorded("u1"));
    }

    #[test]
    fn who_is_attended_to_is_not_woken() {
        let journal = Journal::new(true);
        journal.begin_reconcile("u1");
        journal.note(&[changed("u1", 1, 2), changed("u2", 1, 2)], NOW);
        let taken = all(&journal);
        let woken = journal.acknowledge(&taken).iter().map(|waiting| waiting.name.as_str()).collect::<Vec<_>>();
        assert_eq!(woken, ["u2"]);
        journal.end_reconcile("u1");
        journal.note(&[changed("u1", 2, 3)], NOW);
        assert_eq!(journal.acknowledge(&all(&journal)).len(), 1);
    }

    #[test]
    fn one_group_does_not_hold_up_another() {
        let journal = Journal::new(true);
        journal.note(&[changed("u1", 1, 2), seen("u2", "borealis", Change::Created(spec(1)))], NOW);
        let taken = journal.take(10, |group| group.as_str() == "acme");
        assert_eq!(taken.iter().map(|(_, waiting)| waiting.name.as_str()).collect::<Vec<_>>(), ["u2"]);
    }

    #[test]
    fn the_queue_has_an_end_and_nothing_is_kept_without_a_history() {
        let journal = Journal::new(true);
        let many: Vec<_> = (0..=MOST).map(|i| changed(&format!("u{i}"), 1, 2)).collect();
        journal.note(&many, NOW);
        assert_eq!(journal.backlog(), (MOST, Some(NOW)));
        let off = Journal::new(false);
        off.note(&[changed("u1", 1, 2)], NOW);
        assert_eq!(off.backlog(), (0, None));
        assert!(off.is_deletion_recorded("u1"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_does_not_wait_while_the_service_is_away() {
        let journal = Journal::new(true);
        journal.note(&[changed("u1", 1, 2)], NOW);
        let limit = Duration::from_millis(500);
        let start = tokio::time::Instant::now();
        journal.settle("u1", limit).await;
        assert_eq!(start.elapsed(), limit);
        let taken = all(&journal);
        journal.give_back();
        journal.settle("u1", limit).await;
        assert_eq!(start.elapsed(), limit, "it is away");
        journal.acknowledge(&taken);
        journal.settle("u1", limit).await;
        assert_eq!(start.elapsed(), limit);
    }
}
