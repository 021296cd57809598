//! Conditions of a status.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The status of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    True,
    False,
    Unknown,
}

impl State {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// The content of a condition: its status, a reason for programs, a message for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub state: State,
    pub reason: String,
    pub message: String,
}

impl Verdict {
    pub fn holds(reason: &str, message: impl Into<String>) -> Self {
        Self { state: State::True, reason: reason.to_owned(), message: message.into() }
    }

    pub fn fails(reason: &str, message: impl Into<String>) -> Self {
        Self { state: State::False, reason: reason.to_owned(), message: message.into() }
    }

    pub fn unknown(reason: &str, message: impl Into<String>) -> Self {
        Self { state: State::Unknown, reason: reason.to_owned(), message: message.into() }
    }

    pub fn is_true(&self) -> bool {
        self.state == State::True
    }
}

/// The conditions of one object while they are computed.
#[derive(Debug, Clone)]
pub struct Conditions {
    by_type: BTreeMap<String, Condition>,
    generation: Option<i64>,
    now: Timestamp,
}

impl Conditions {
    /// Starts from the conditions in the status. Conditions that are not set again stay as they are.
    pub fn from_previous(previous: &[Condition], generation: Option<i64>, now: Timestamp) -> Self {
        let now = whole_second(now);
        let by_type = previous.iter().map(|condition| (condition.type_.clone(), condition.clone())).collect();
        Self { by_type, generation, now }
    }

    pub fn get(&self, type_: &str) -> Option<&Condition> {
        self.by_type.get(type_)
    }

    /// Whether a condition holds.
    pub fn is_true(&self, type_: &str) -> bool {
        self.get(type_).is_some_and(|condition| condition.status == State::True.as_str())
    }

    /// Sets a condition. The time of the last transition stays while the state stays.
    pub fn set(&mut self, type_: &str, verdict: &Verdict) {
        let status = verdict.state.as_str();
        let since = self.get(type_).filter(|previous| previous.status == status).map(|previous| previous.last_transition_time.clone());
        let condition = Condition {
            last_transition_time: since.unwrap_or(Time(self.now)),
            message: verdict.message.clone(),
            observed_generation: self.generation,
            reason: verdict.reason.clone(),
            status: status.to_owned(),
            type_: type_.to_owned(),
        };
        self.by_type.insert(type_.to_owned(), condition);
    }

    /// Sets a condition with now as the time of its last transition, even if its state stays.
    pub fn restart(&mut self, type_: &str, verdict: &Verdict) {
        self.by_type.remove(type_);
        self.set(type_, verdict);
    }

    /// In the order of their types, so that equal conditions are equal lists.
    pub fn into_list(self) -> Vec<Condition> {
        self.by_type.into_values().collect()
    }
}

/// A time in whole seconds, as Kubernetes stores it. A status with finer times would never equal the one that is read back.
pub fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// The condition of a type.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether a condition holds.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.status == State::True.as_str())
}

/// Whether a condition is known not to hold.
pub fn is_false(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.status == State::False.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_transition_time_stays_while_the_state_stays() {
        let mut first = Conditions::from_previous(&[], Some(1), at(10));
        first.set("Ready", &Verdict::fails("NoSite", "site s is missing"));
        let first = first.into_list();
        let mut second = Conditions::from_previous(&first, Some(2), at(20));
        second.set("Ready", &Verdict::fails("NoSecret", "secret s is missing"));
        assert_eq!(second.get("Ready").unwrap().last_transition_time, Time(at(10)));
        second.set("Ready", &Verdict::holds("Ready", ""));
        assert_eq!(second.get("Ready").unwrap().last_transition_time, Time(at(20)));
        assert_eq!(second.get("Ready").unwrap().observed_generation, Some(2));
    }

    #[test]
    fn setting_the_same_again_changes_nothing() {
        let mut first = Conditions::from_previous(&[], Some(1), at(10));
        first.set("Ready", &Verdict::holds("Ready", "all is well"));
        let first = first.into_list();
        let mut second = Conditions::from_previous(&first, Some(1), at(99));
        second.set("Ready", &Verdict::holds("Ready", "all is well"));
        assert_eq!(second.into_list(), first);
    }
}
