//! Whether the stamp `changed-by` of an object is trusted.
//!
//! The apiserver writes the stamp while MutatingAdmissionPolicy `tsujiban-changed-by` and its binding are installed as the chart has them.
//! Without them any user can write the annotation. So the stamp of a change is trusted only if the same two objects were unchanged from
//! before the change until a check after it. Their UID and generation reveal a change that was undone between two checks, even while no
//! operator ran.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// How long the apiserver may take to enforce a policy once it is stored.
const ACTS: SignedDuration = SignedDuration::from_secs(10);

/// The live policy or its binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    pub uid: String,
    pub generation: Option<i64>,
    pub created: Option<Timestamp>,
}

/// A version of the policy or of its binding. The UID changes when the object is recreated, the generation when its spec is changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Version {
    uid: String,
    generation: Option<i64>,
}

/// Since when the policy and its binding have been unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    since: Timestamp,
    versions: [Version; 2],
}

/// What the checks have shown until now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Observation {
    /// There was no check yet.
    #[default]
    Nothing,
    /// In the last check, the policy or its binding differed from the chart.
    Broken,
    Standing(Period),
}

impl Observation {
    /// The observation after one more check. `seen` is `None` when the policy or its binding differs from the chart.
    fn after(&self, seen: Option<&[Sight; 2]>, now: Timestamp) -> Self {
        let Some(seen) = seen else { return Self::Broken };
        let versions = seen.each_ref().map(|sight| Version { uid: sight.uid.clone(), generation: sight.generation });
        let since = match self {
            Self::Standing(before) if before.versions == versions => return self.clone(),
            // an object of generation 1 is unchanged since its creation, even if that was before the first check
            Self::Nothing => {
                let first = |sight: &Sight| sight.created.filter(|_| sight.generation == Some(1)).unwrap_or(now);
                let [policy, binding] = seen;
                first(policy).max(first(binding))
            }
            Self::Broken | Self::Standing(_) => now,
        };
        Self::Standing(Period { since: since.saturating_add(ACTS).unwrap_or(Timestamp::MAX), versions })
    }
}

/// Decides whether stamps are trusted.
#[derive(Debug)]
pub struct Stamps {
    /// Whether the chart installs the policy that stamps.
    are_made: bool,
    known: Mutex<Observation>,
    /// Whether the state of the previous operator process is restored.
    is_restored: watch::Sender<bool>,
}

impl Stamps {
    pub fn new(are_made: bool) -> Self {
        Self { are_made, known: Mutex::default(), is_restored: watch::Sender::new(false) }
    }

    pub const fn are_made(&self) -> bool {
        self.are_made
    }

    /// Restores the state of the previous operator process.
    pub fn restore(&self, before: Observation) {
        *self.lock() = before;
        self.is_restored.send_replace(true);
    }

    /// Waits until [`restore`](Self::restore) was called: before it, nothing is known of the time without an operator.
    pub async fn restored(&self) {
        let _ended = self.is_restored.subscribe().wait_for(|is_restored| *is_restored).await.is_err(); // fails only while the process ends
    }

    /// Notes the result of a check.
    pub fn look(&self, seen: Option<&[Sight; 2]>, now: Timestamp) {
        let mut known = self.lock();
        *known = known.after(seen, now);
    }

    pub fn known(&self) -> Observation {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Observation> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether to trust the stamp of a change made at `changed_at`, by the apiserver's clock. Call it only after a check that followed the
    /// change.
    pub fn are_trusted(&self, changed_at: Option<Timestamp>) -> bool {
        match &*self.lock() {
            Observation::Standing(period) => self.are_made && changed_at.is_some_and(|at| at >= period.since),
            Observation::Nothing | Observation::Broken => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn sight(uid: &str, generation: i64, created: i64) -> Sight {
        Sight { uid: uid.to_owned(), generation: Some(generation), created: Some(at(created)) }
    }

    /// Whether changes of these seconds are believed.
    fn believed<const N: usize>(stamps: &Stamps, seconds: [i64; N]) -> [bool; N] {
        seconds.map(|second| stamps.are_trusted(Some(at(second))))
    }

    #[test]
    fn a_policy_that_was_never_changed_is_believed_since_it_was_made() {
        let stamps = Stamps::new(true);
        assert_eq!(believed(&stamps, [500]), [false], "nobody has looked");
        stamps.look(Some(&[sight("p", 1, 100), sight("b", 1, 101)]), at(1000));
        assert_eq!(believed(&stamps, [99, 105, 111, 999]), [false, false, true, true]);
        assert!(!stamps.are_trusted(None), "nobody knows when it was changed");
        let off = Stamps::new(false);
        off.look(Some(&[sight("p", 1, 100), sight("b", 1, 101)]), at(1000));
        assert_eq!(believed(&off, [999]), [false], "the chart has nobody stamp");
    }

    /// The binding deleted, and put back a minute later: what was changed meanwhile is nobody's, and neither is what was changed before and is
    /// looked at only afterwards.
    #[test]
    fn nothing_is_believed_of_the_time_without_the_policy() {
        let stamps = Stamps::new(true);
        stamps.look(Some(&[sight("p", 1, 100), sight("b", 1, 100)]), at(1000));
        stamps.look(None, at(1020));
        assert_eq!(believed(&stamps, [1010, 1030]), [false, false]);
        stamps.look(Some(&[sight("p", 1, 100), sight("b2", 1, 1060)]), at(1080));
        assert_eq!(believed(&stamps, [1010, 1030, 1070, 1089, 1090]), [false, false, false, false, true]);
    }

    /// The same between two looks: the uid tells of it.
    #[test]
    fn a_policy_that_was_made_again_between_two_looks_is_another_one() {
        let stamps = Stamps::new(true);
        stamps.look(Some(&[sight("p", 1, 100), sight("b", 1, 100)]), at(1000));
        stamps.look(Some(&[sight("p", 1, 100), sight("b2", 1, 1015)]), at(1020));
        assert_eq!(believed(&stamps, [1010, 1029, 1030]), [false, false, true]);
    }

    /// Changed and changed back between two looks: the generation tells of it, and when it happened nobody knows.
    #[test]
    fn a_policy_that_was_changed_is_believed_from_the_look_after() {
        let stamps = Stamps::new(true);
        stamps.look(Some(&[sight("p", 1, 100), sight("b", 1, 100)]), at(1000));
        stamps.look(Some(&[sight("p", 3, 100), sight("b", 1, 100)]), at(1020));
        assert_eq!(believed(&stamps, [1010, 1025, 1030]), [false, false, true]);
    }

    /// An operator that was away for a day takes up what the one before it knew.
    #[test]
    fn the_time_without_an_operator_counts_when_the_policy_is_still_the_same() {
        let (policy, binding) = (sight("p", 2, 100), sight("b", 1, 100));
        let before = Stamps::new(true);
        before.look(Some(&[policy.clone(), binding.clone()]), at(1000));
        let known = before.known();
        before.look(Some(&[policy.clone(), binding.clone()]), at(1020));
        assert_eq!(before.known(), known, "nothing to write down");
        let written: Observation = serde_json::from_str(&serde_json::to_string(&known).unwrap()).unwrap();
        for (now_policy, expected) in [(policy, true), (sight("p", 4, 100), false), (sight("p2", 1, 50_000), false)] {
            let after = Stamps::new(true);
            after.restore(written.clone());
            after.look(Some(&[now_policy, binding.clone()]), at(90_000));
            assert_eq!(believed(&after, [40_000]), [expected]);
        }
    }
}
