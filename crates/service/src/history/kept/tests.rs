use std::collections::BTreeSet;

use proptest::prelude::*;
use tsujiban_proto::audit::v1::LogCoverage;

use super::*;

const GROUPS: [&str; 3] = ["", "acme", "other"];

fn at(minutes: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + minutes * 60).unwrap()
}

fn entry(group: &str, number: u64, acknowledged: Timestamp) -> Entry {
    Entry { group: group.to_owned(), id: u128::from(number).to_be_bytes().to_vec(), acknowledged, bytes: 100 }
}

fn answer(logs: &[(bool, &[Coverage])]) -> CoveredResponse {
    let log = |(is_erased, entries): &(bool, &[Coverage])| LogCoverage {
        is_erased: *is_erased,
        entries: entries.iter().map(|coverage| (*coverage).into()).collect(),
    };
    CoveredResponse { logs: logs.iter().map(log).collect() }
}

#[test]
fn each_answer_has_one_consequence() {
    use Coverage::{Covered, Pending, Unknown, Unspecified};
    let mut kept = Kept::default();
    for (number, group) in (0..).zip(["acme", "", "acme", "gone", "acme", ""]) {
        kept.acknowledged(entry(group, number, at(0)));
    }
    let question = kept.question(None, kept.next()).unwrap();
    let asked: Vec<_> = question.request.logs.iter().map(|log| (log.group.as_str(), log.ids.len())).collect();
    assert_eq!(asked, [("acme", 3), ("", 2), ("gone", 1)]);
    let told = answer(&[(false, &[Unknown, Covered, Pending]), (false, &[Unspecified, Unknown]), (true, &[Unknown])]);
    let verdict = kept.answered(&question, &told, at(46 * 60)).unwrap();
    assert_eq!(verdict, Verdict { lost: vec![0, 5], done: vec![2, 3], covered: 1, erased: 1, possibly_lost: 0 });
    assert_eq!((kept.len(), kept.bytes(), kept.oldest()), (4, 400, 0), "what is lost is kept until it is covered");
}

/// The history takes an id again after 48 hours: an older entry would be there twice if the answer was wrong.
#[test]
fn what_is_too_old_is_not_added_again() {
    let mut kept = Kept::default();
    kept.acknowledged(entry("acme", 1, at(0)));
    kept.acknowledged(entry("acme", 2, at(1)));
    let question = kept.question(None, kept.next()).unwrap();
    let told = answer(&[(false, &[Coverage::Unknown, Coverage::Unknown])]);
    let verdict = kept.answered(&question, &told, at(47 * 60)).unwrap();
    assert_eq!(verdict, Verdict { lost: vec![1], done: vec![0], possibly_lost: 1, ..Verdict::default() });
}

#[test]
fn an_answer_to_something_else_changes_nothing() {
    let mut kept = Kept::default();
    kept.acknowledged(entry("acme", 1, at(0)));
    let question = kept.question(None, kept.next()).unwrap();
    for wrong in [answer(&[]), answer(&[(true, &[])]), answer(&[(true, &[Coverage::Covered]), (true, &[])])] {
        assert_eq!(kept.answered(&question, &wrong, at(0)), Err(Mismatch));
    }
    assert_eq!(kept.len(), 1);
}

#[test]
fn the_oldest_are_dropped_at_the_bound() {
    let mut kept = Kept::starting_at(7);
    for number in 0..10 {
        kept.acknowledged(entry("acme", number, at(0)));
    }
    assert_eq!(kept.drop_beyond(750), [7, 8, 9]);
    assert_eq!((kept.len(), kept.bytes(), kept.oldest(), kept.next()), (7, 700, 10, 17));
    assert_eq!(kept.drop_through(12), [10, 11, 12]);
    assert_eq!(kept.drop_beyond(0).len(), 4);
    assert_eq!((kept.is_empty(), kept.oldest()), (true, 17));
}

#[test]
fn questions_have_an_end_and_leave_nothing_out() {
    let mut kept = Kept::default();
    for number in 0..2500 {
        kept.acknowledged(entry("acme", number, at(0)));
    }
    let end = kept.next();
    kept.acknowledged(entry("acme", 2500, at(0)));
    let (mut after, mut asked) = (None, Vec::new());
    while let Some(question) = kept.question(after, end) {
        asked.push(question.request.logs[0].ids.len());
        after = Some(question.last);
    }
    assert_eq!(asked, [1000, 1000, 500]);
    assert!(kept.question(Some(u64::MAX), end).is_none());
}

/// A history that loses what no root list covers, in small.
#[derive(Debug, Default)]
struct History {
    log: Vec<(String, Vec<u8>)>,
    listed: usize,
    erased: BTreeSet<String>,
}

impl History {
    fn add(&mut self, entry: &Entry) {
        let name = (entry.group.clone(), entry.id.clone());
        if !self.log.contains(&name) {
            self.log.push(name);
        }
    }

    fn answer(&self, request: &CoveredRequest) -> CoveredResponse {
        let coverage = |group: &str, id: &Vec<u8>| match self.log.iter().position(|known| known.0 == group && known.1 == *id) {
            Some(place) if place < self.listed => Coverage::Covered,
            Some(_) => Coverage::Pending,
            None => Coverage::Unknown,
        };
        let log = |log: &LogEntries| LogCoverage {
            is_erased: self.erased.contains(&log.group),
            entries: log.ids.iter().map(|id| coverage(&log.group, id).into()).collect(),
        };
        CoveredResponse { logs: request.logs.iter().map(log).collect() }
    }
}

#[derive(Debug, Clone)]
enum Event {
    Add(usize),
    List,
    LoseTail(usize),
    Erase(usize),
    Ask,
    Wait(i64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..GROUPS.len()).prop_map(Event::Add),
        1 => Just(Event::List),
        1 => (1..20_usize).prop_map(Event::LoseTail),
        1 => (1..GROUPS.len()).prop_map(Event::Erase),
        2 => Just(Event::Ask),
        2 => (0..600_i64).prop_map(Event::Wait),
    ]
}

/// Asks about everything, and adds again what is lost. Answers how many are possibly lost.
fn ask(kept: &mut Kept, history: &mut History, now: Timestamp) -> u64 {
    let (mut after, end, mut possibly_lost) = (None, kept.next(), 0);
    while let Some(question) = kept.question(after, end) {
        after = Some(question.last);
        let verdict = kept.answered(&question, &history.answer(&question.request), now).unwrap();
        possibly_lost += verdict.possibly_lost;
        assert!(verdict.lost.is_sorted(), "in the order in which they were acknowledged");
        for order in verdict.lost {
            let entry = kept.entries.get(&order).unwrap();
            assert!(now.duration_since(entry.acknowledged) < ADDED_AGAIN);
            history.add(entry);
        }
    }
    possibly_lost
}

proptest! {
    /// Whatever is acknowledged is there after the next question, or is counted as possibly lost, or its group is erased.
    #[test]
    fn nothing_that_was_acknowledged_is_lost(events in prop::collection::vec(event(), 1..200)) {
        let (mut kept, mut history, mut now) = (Kept::default(), History::default(), at(0));
        let (mut acknowledged, mut possibly_lost) = (Vec::new(), 0);
        for (number, event) in (0..).zip(events) {
            match event {
                Event::Add(group) => {
                    let entry = entry(GROUPS[group], number, now);
                    history.add(&entry);
                    kept.acknowledged(entry.clone());
                    acknowledged.push(entry);
                }
                Event::List => history.listed = history.log.len(),
                Event::LoseTail(count) => {
                    let left = history.log.len().saturating_sub(count).max(history.listed);
                    history.log.truncate(left);
                }
                Event::Erase(group) => drop(history.erased.insert(GROUPS[group].to_owned())),
                Event::Ask => possibly_lost += ask(&mut kept, &mut history, now),
                Event::Wait(minutes) => now = now.checked_add(SignedDuration::from_mins(minutes)).unwrap(),
            }
        }
        possibly_lost += ask(&mut kept, &mut history, now);
        let there = |entry: &Entry| history.log.contains(&(entry.group.clone(), entry.id.clone()));
        let missing = acknowledged.iter().filter(|entry| !history.erased.contains(&entry.group) && !there(entry)).map(|_| 1).sum::<u64>();
        prop_assert!(missing <= possibly_lost, "{missing} are missing and {possibly_lost} are said to be");
        history.listed = history.log.len();
        ask(&mut kept, &mut history, now);
        prop_assert!(kept.is_empty(), "what is covered is not kept");
    }
}
