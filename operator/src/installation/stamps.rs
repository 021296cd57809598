//! Whether the stamp `changed-by` of an object is believed.
//!
//! The apiserver writes the stamp while MutatingAdmissionPolicy `tsujiban-changed-by` and its binding stand as the chart has them. Without them
//! the annotation is whatever somebody wrote there. So a stamp is believed only of a change that was made while the same two objects stood
//! unchanged, from before the change until they are looked at after it. Uid and generation tell of a change that was undone again between two
//! looks, also while no operator ran.

use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// How long a policy may take to act once it is stored.
const ACTS: SignedDuration = SignedDuration::from_secs(10);

/// The policy or its binding, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    pub uid: String,
    pub generation: Option<i64>,
    pub created: Option<Timestamp>,
}

/// One of the two in one state: it has another uid when it was made again, and another generation when its spec was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Version {
    uid: String,
    generation: Option<i64>,
}

/// Since when the policy and its binding have stood unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    since: Timestamp,
    versions: [Version; 2],
}

/// The period that holds after a look. `seen` is `None` when one of the two is not as the chart has it.
fn period(before: Option<&Period>, seen: Option<&[Sight; 2]>, now: Timestamp) -> Option<Period> {
    let seen = seen?;
    let versions = seen.each_ref().map(|sight| Version { uid: sight.uid.clone(), generation: sight.generation });
    if let Some(before) = before.filter(|before| before.versions == versions) {
        return Some(before.clone());
    }
    // what was never changed since it was made has stood since then, whoever looked
    let first = |sight: &Sight| sight.created.filter(|_| sight.generation == Some(1)).unwrap_or(now);
    let [policy, binding] = seen;
    let since = first(policy).max(first(binding)).saturating_add(ACTS).unwrap_or(Timestamp::MAX);
    Some(Period { since, versions })
}

/// What is known of the stamps.
#[derive(Debug)]
pub struct Stamps {
    /// Whether the chart has the apiserver stamp at all.
    are_made: bool,
    period: Mutex<Option<Period>>,
}

impl Stamps {
    pub fn new(are_made: bool) -> Self {
        Self { are_made, period: Mutex::new(None) }
    }

    pub const fn are_made(&self) -> bool {
        self.are_made
    }

    /// Takes up what an operator before this one knew.
    pub fn restore(&self, before: Option<Period>) {
        *self.period.lock().unwrap_or_else(PoisonError::into_inner) = before;
    }

    /// Notes how the two stand now.
    pub fn look(&self, seen: Option<&[Sight; 2]>, now: Timestamp) {
        let mut known = self.period.lock().unwrap_or_else(PoisonError::into_inner);
        *known = period(known.as_ref(), seen, now);
    }

    pub fn period(&self) -> Option<Period> {
        self.period.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the stamp of a change is believed that was made at a time, by the apiserver's clock. To be asked after a look that followed it.
    pub fn are_believed(&self, changed_at: Option<Timestamp>) -> bool {
        let known = self.period.lock().unwrap_or_else(PoisonError::into_inner);
        self.are_made && known.as_ref().is_some_and(|period| changed_at.is_some_and(|at| at >= period.since))
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
        seconds.map(|second| stamps.are_believed(Some(at(second))))
    }

    #[test]
    fn a_policy_that_was_never_changed_is_believed_since_it_was_made() {
        let stamps = Stamps::new(true);
        assert_eq!(believed(&stamps, [500]), [false], "nobody has looked");
        stamps.look(Some(&[sight("p", 1, 100), sight("b", 1, 101)]), at(1000));
        assert_eq!(believed(&stamps, [99, 105, 111, 999]), [false, false, true, true]);
        assert!(!stamps.are_believed(None), "nobody knows when it was changed");
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
        assert_eq!(believed(&stamps, [1010, 1030, 1065, 1070, 1100]), [false, false, false, true, true]);
    }

    /// The same between two looks: the uid tells of it.
    #[test]
    fn a_policy_that_was_made_again_between_two_looks_is_another_one() {
        let stamps = Stamps::new(true);
        stamps.look(Some(&[sight("p", 1, 100), sight("b", 1, 100)]), at(1000));
        stamps.look(Some(&[sight("p", 1, 100), sight("b2", 1, 1015)]), at(1020));
        assert_eq!(believed(&stamps, [1010, 1030]), [false, true]);
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
        let period = before.period();
        before.look(Some(&[policy.clone(), binding.clone()]), at(1020));
        assert_eq!(before.period(), period, "nothing to write down");
        let written: Option<Period> = serde_json::from_str(&serde_json::to_string(&period).unwrap()).unwrap();
        for (now_policy, expected) in [(policy, true), (sight("p", 4, 100), false), (sight("p2", 1, 50_000), false)] {
            let after = Stamps::new(true);
            after.restore(written.clone());
            after.look(Some(&[now_policy, binding.clone()]), at(90_000));
            assert_eq!(believed(&after, [40_000]), [expected]);
        }
    }
}
