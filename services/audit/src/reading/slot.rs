//! The content of an entry's slot. Pure: rows and keys are arguments.

use std::collections::BTreeMap;
use std::fmt;

use tsujiban_history::leaf::{Content, Opening};
use tsujiban_history::{Day, JstTime, Leaf, LogId, Operation};
use zeroize::Zeroizing;

use super::keys::{DayKeys, KeyState};
use super::stored::{Rows, Stored};
use crate::bodies::DayKey;

/// What is wrong with a stored entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// There is no row in its slot.
    Missing,
    /// The row cannot be read, or is no entry of this log.
    Unreadable,
    /// The stored leaf differs from the leaf of the body, from which it was made again.
    Leaf,
    /// The body is missing, or is not the one to which the leaf commits.
    Body,
    /// The key of its day is missing, although the day has not expired.
    Key,
    /// The key of its day is wrapped by an epoch key that is not mounted.
    NotMounted,
    /// Its row is in the slot of another entry.
    Misplaced,
    /// Its times or its day are not those of its body and its key.
    Columns,
    /// It does not lead to the hash in the tree, and its body does not prove it.
    Unproven,
}

impl Wrong {
    /// One word for records and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "MISSING",
            Self::Unreadable => "UNREADABLE",
            Self::Leaf => "LEAF",
            Self::Body => "BODY",
            Self::Key => "KEY",
            Self::NotMounted => "KEY_NOT_MOUNTED",
            Self::Misplaced => "MISPLACED",
            Self::Columns => "COLUMNS",
            Self::Unproven => "UNPROVEN",
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "its row is missing",
            Self::Unreadable => "its row cannot be read",
            Self::Leaf => "its leaf is damaged; it follows from the body, which is intact",
            Self::Body => "its body is damaged or missing",
            Self::Key => "the key of its day is damaged or missing, though the day has not expired",
            Self::NotMounted => "the key of its day is wrapped by an epoch key that is not mounted",
            Self::Misplaced => "its row stands in the slot of another entry",
            Self::Columns => "its day, times or id were changed; what is shown is what its body and its key say",
            Self::Unproven => "it does not lead to the hash that the tree has",
        })
    }
}

/// The content of an entry that could be read.
#[derive(Debug)]
pub enum Found {
    /// The body, to which the leaf commits, and which was sealed for this slot of this log.
    Body {
        body: Zeroizing<Vec<u8>>,
        opening: Opening,
        day: Day,
    },
    /// A gap or a retention.
    Record,
    /// The day has expired.
    Expired(Day),
    Nothing,
}

#[derive(Debug)]
pub struct Slot {
    pub sequence: u64,
    /// `None` if it is lost.
    pub leaf: Option<Vec<u8>>,
    pub found: Found,
    pub wrong: Option<Wrong>,
    /// The row that was read.
    pub stored: Option<Stored>,
}

impl Slot {
    /// Whether its body proves the leaf, without the tree.
    pub fn is_authentic(&self) -> bool {
        matches!(self.found, Found::Body { .. })
    }

    fn lost(sequence: u64, wrong: Wrong) -> Self {
        Self { sequence, leaf: None, found: Found::Nothing, wrong: Some(wrong), stored: None }
    }
}

/// Assigns a row to each slot from `begin` to before `end`: the row that is stored there, unless its leaf belongs to another slot that has
/// no row. `true`: the row was stored in another slot.
pub fn assign(begin: u64, end: u64, rows: Vec<Stored>) -> BTreeMap<u64, (Stored, bool)> {
    let place_of = |row: &Stored| Leaf::parse(&row.leaf).ok().map(|leaf| leaf.sequence).filter(|at| (begin..end).contains(at));
    let (fitting, other): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| place_of(row) == Some(row.sequence));
    let mut slots: BTreeMap<u64, (Stored, bool)> = fitting.into_iter().map(|row| (row.sequence, (row, false))).collect();
    let mut left = Vec::new();
    for row in other {
        match place_of(&row).filter(|at| !slots.contains_key(at)) {
            Some(at) => drop(slots.insert(at, (row, true))),
            None => left.push(row),
        }
    }
    for row in left {
        slots.entry(row.sequence).or_insert((row, false));
    }
    slots
}

/// The slots of some entries, whose keys were read before.
pub fn judge_all((log, id): (i64, &LogId), (begin, end): (u64, u64), rows: Rows, keys: &DayKeys) -> Vec<Slot> {
    let mut rows_by_place = assign(begin, end, rows.rows);
    let slot = |sequence| match rows_by_place.remove(&sequence) {
        Some((row, moved)) => {
            let slot = judge(log, id, sequence, row, keys);
            let wrong = if moved { slot.wrong.or(Some(Wrong::Misplaced)) } else { slot.wrong };
            Slot { wrong, ..slot }
        }
        None if rows.unreadable.contains(&sequence) => Slot::lost(sequence, Wrong::Unreadable),
        None => Slot::lost(sequence, Wrong::Missing),
    };
    let mut slots: Vec<Slot> = (begin..end).map(slot).collect();
    reject_old_behind_new(&mut slots);
    slots
}

/// The days of a log never decrease: an entry that names the key of an expired day after an entry of a later day is not authentic.
fn reject_old_behind_new(slots: &mut [Slot]) {
    let mut newest = None;
    for slot in slots {
        match slot.found {
            Found::Body { day, .. } => newest = newest.max(Some(day)),
            Found::Expired(day) if newest > Some(day) => {
                (slot.leaf, slot.found, slot.wrong) = (None, Found::Nothing, Some(Wrong::Unproven));
            }
            Found::Expired(_) | Found::Record | Found::Nothing => {}
        }
    }
}

fn judge(log: i64, id: &LogId, sequence: u64, row: Stored, keys: &DayKeys) -> Slot {
    let leaf = Leaf::parse(&row.leaf).ok().filter(|leaf| leaf.sequence == sequence);
    let mut slot = Slot { sequence, leaf: None, found: Found::Nothing, wrong: Some(Wrong::Unreadable), stored: None };
    match leaf.map(|leaf| leaf.content) {
        Some(Content::Gap(_) | Content::Retention(_)) if row.sealed.is_none() => {
            (slot.leaf, slot.found, slot.wrong) = (Some(row.leaf.clone()), Found::Record, None);
        }
        Some(Content::Entry { key, commitment }) => {
            let state = keys.state(log, key);
            if let KeyState::Expired(day) = state {
                (slot.leaf, slot.found, slot.wrong) = (Some(row.leaf.clone()), Found::Expired(*day), None);
            } else if let Some((opened, body)) = opened_by(log, id, sequence, &row, keys) {
                let opening = opened.mac.opening(sequence);
                let is_leaf = opened.id == key && commitment.is_to(&body, &opening);
                slot.wrong = if is_leaf { columns(&row, opened.day, &body) } else { Some(Wrong::Leaf) };
                slot.leaf = Some(if is_leaf { row.leaf.clone() } else { leaf_of(opened, sequence, &body) });
                slot.found = Found::Body { body, opening, day: opened.day };
            } else {
                slot.leaf = Some(row.leaf.clone());
                slot.wrong = Some(match state {
                    KeyState::NotMounted(_) => Wrong::NotMounted,
                    KeyState::Missing => Wrong::Key,
                    KeyState::Open(_) | KeyState::Expired(_) => Wrong::Body,
                });
            }
        }
        _ => {
            // the leaf follows from a body that opens
            if let Some((opened, body)) = opened_by(log, id, sequence, &row, keys) {
                slot.leaf = Some(leaf_of(opened, sequence, &body));
                slot.wrong = Some(Wrong::Leaf);
                slot.found = Found::Body { opening: opened.mac.opening(sequence), body, day: opened.day };
            }
        }
    }
    Slot { stored: Some(row), ..slot }
}

/// The body, opened for this slot with any key of the log.
fn opened_by<'a>(log: i64, id: &LogId, sequence: u64, row: &Stored, keys: &'a DayKeys) -> Option<(&'a DayKey, Zeroizing<Vec<u8>>)> {
    let sealed = row.sealed.as_ref()?;
    let open = |key: &'a DayKey| Some((key, key.open(id, sequence, sealed).ok()?));
    if let Ok(Leaf { content: Content::Entry { key, .. }, .. }) = Leaf::parse(&row.leaf)
        && let KeyState::Open(key) = keys.state(log, key)
        && let Some(opened) = open(key.as_ref())
    {
        return Some(opened);
    }
    keys.open(log).find_map(open)
}

fn leaf_of(key: &DayKey, sequence: u64, body: &[u8]) -> Vec<u8> {
    Leaf::entry(sequence, key.id, key.mac.opening(sequence).commit(body)).encode()
}

/// `Wrong::Columns` unless the columns match the body and its key.
fn columns(row: &Stored, day: Day, body: &[u8]) -> Option<Wrong> {
    let time = Operation::time_in(body).and_then(|time| std::str::from_utf8(&time).ok()?.parse::<JstTime>().ok());
    let time_us = time.map(|time| time.timestamp().as_microsecond());
    let is_time = time_us.is_none_or(|time| time == row.time_us);
    let appended = jiff::Timestamp::from_microsecond(row.appended_us).ok().map(Day::of);
    // an entry gets the day of the previous entry while the clock is behind it, because the clock had been ahead before
    let is_day = row.day == Some(day) && appended.is_some_and(|appended| appended <= day && day <= appended.plus(1));
    (!(is_time && is_day && row.id.is_some())).then_some(Wrong::Columns)
}

#[cfg(test)]
mod tests {
    use tsujiban_history::leaf::Retention;
    use tsujiban_history::{DayKeyId, EntryId};
    use tsujiban_sealing::{DataKey, SystemRandom};

    use super::*;

    const LOG: LogId = LogId::from_bytes([9; 16]);

    /// What is wrong with a slot, whether its leaf is known, and whether its body is.
    type Judged = (Option<Wrong>, bool, bool);

    fn day() -> Day {
        "2026-11-26".parse().unwrap()
    }

    fn key(id: u8) -> DayKey {
        DayKey::new(day(), DayKeyId::from_bytes([id; 16]), DataKey::generate(&SystemRandom::new()).unwrap())
    }

    fn body() -> (i64, Vec<u8>) {
        use tsujiban_history::operation::{Access, Actor, ActorKind, Outcome, Phase};
        let operation = Operation {
            id: EntryId::from_bytes([7; 16]),
            phase: Phase::Outcome,
            time: JstTime::new(day().starts()),
            actor: Actor { kind: ActorKind::Staff, id: "taro".to_owned() },
            from: String::new(),
            service: String::new(),
            method: "M".to_owned(),
            function: "f".to_owned(),
            operation: Access::View,
            target: String::new(),
            result: Outcome::Allowed,
            code: "OK".to_owned(),
            reason: String::new(),
            duration_us: 1,
            request_id: String::new(),
            trace_id: String::new(),
            detail: BTreeMap::new(),
        };
        (day().starts().as_microsecond(), operation.encode().unwrap())
    }

    fn row(key: &DayKey, sequence: u64) -> Stored {
        let (time_us, body) = body();
        let sealed = key.seal(&LOG, sequence, &body, &SystemRandom::new()).unwrap();
        let leaf = leaf_of(key, sequence, &body);
        Stored { sequence, day: Some(day()), time_us, appended_us: time_us, leaf, id: Some(vec![1; 16]), sealed: Some(sealed) }
    }

    fn judged(rows: Vec<Stored>, keys: &DayKeys, slots: u64) -> Vec<Judged> {
        let rows = Rows { rows, unreadable: vec![99] };
        let slots = judge_all((1, &LOG), (0, slots), rows, keys);
        slots.iter().map(|slot| (slot.wrong, slot.leaf.is_some(), slot.is_authentic())).collect()
    }

    #[test]
    fn what_is_wrong_with_an_entry_is_named_and_what_is_left_of_it_is_kept() {
        let (first, second) = (key(1), key(2));
        let ids = [first.id, second.id, DayKeyId::from_bytes([3; 16])];
        let states = [KeyState::Open(Box::new(first.clone())), KeyState::Missing, KeyState::Expired(day())];
        let keys = DayKeys::of(1, ids.into_iter().zip(states));
        let right = row(&first, 0);
        let flipped = |bytes: &[u8], at: usize| {
            let mut bytes = bytes.to_vec();
            bytes[at] ^= 1;
            bytes
        };
        let retention =
            Leaf { sequence: 0, content: Content::Retention(Retention { day: day(), key: first.id, first: 0, last: 0, count: 1 }) };
        let expired = Leaf::entry(0, ids[2], first.mac.opening(0).commit(b"")).encode();
        let cases: Vec<(&str, Stored, Judged)> = vec![
            ("sound", right.clone(), (None, true, true)),
            ("commitment", Stored { leaf: flipped(&right.leaf, 40), ..right.clone() }, (Some(Wrong::Leaf), true, true)),
            ("key id", Stored { leaf: flipped(&right.leaf, 12), ..right.clone() }, (Some(Wrong::Leaf), true, true)),
            ("kind", Stored { leaf: flipped(&right.leaf, 1), ..right.clone() }, (Some(Wrong::Leaf), true, true)),
            ("no leaf", Stored { leaf: Vec::new(), ..right.clone() }, (Some(Wrong::Leaf), true, true)),
            ("a record's leaf", Stored { leaf: retention.encode(), ..right.clone() }, (Some(Wrong::Leaf), true, true)),
            (
                "body",
                Stored { sealed: Some(flipped(right.sealed.as_ref().unwrap(), 30)), ..right.clone() },
                (Some(Wrong::Body), true, false),
            ),
            ("body gone", Stored { sealed: None, ..right.clone() }, (Some(Wrong::Body), true, false)),
            ("key gone", row(&second, 0), (Some(Wrong::Key), true, false)),
            ("both", Stored { leaf: Vec::new(), sealed: None, ..right.clone() }, (Some(Wrong::Unreadable), false, false)),
            ("time", Stored { time_us: 5, ..right.clone() }, (Some(Wrong::Columns), true, true)),
            ("day", Stored { day: None, ..right.clone() }, (Some(Wrong::Columns), true, true)),
            ("appended", Stored { appended_us: i64::MAX, ..right.clone() }, (Some(Wrong::Columns), true, true)),
            ("id", Stored { id: None, ..right.clone() }, (Some(Wrong::Columns), true, true)),
            ("retention", Stored { leaf: retention.encode(), sealed: None, id: None, ..right.clone() }, (None, true, false)),
            ("expired", Stored { leaf: expired, sealed: None, ..right.clone() }, (None, true, false)),
        ];
        for (case, row, wanted) in cases {
            assert_eq!(judged(vec![row], &keys, 1), [wanted], "{case}");
        }
        assert_eq!(judged(Vec::new(), &keys, 1), [(Some(Wrong::Missing), false, false)]);
    }

    #[test]
    fn an_expired_entry_behind_a_later_one_is_none() {
        let (key, old, earlier) = (key(1), DayKeyId::from_bytes([3; 16]), day().plus(-400));
        let keys = DayKeys::of(1, [(key.id, KeyState::Open(Box::new(key.clone()))), (old, KeyState::Expired(earlier))]);
        let expired = |sequence| {
            let leaf = Leaf::entry(sequence, old, key.mac.opening(sequence).commit(b"")).encode();
            Stored { leaf, sealed: None, ..row(&key, sequence) }
        };
        let rows = vec![expired(0), row(&key, 1), expired(2)];
        assert_eq!(judged(rows, &keys, 3), [(None, true, false), (None, true, true), (Some(Wrong::Unproven), false, false)]);
    }

    #[test]
    fn rows_that_changed_places_are_found_where_they_are() {
        let key = key(1);
        let keys = DayKeys::of(1, [(key.id, KeyState::Open(Box::new(key.clone())))]);
        let moved = |row: Stored, sequence| Stored { sequence, ..row };
        let (misplaced, sound) = ((Some(Wrong::Misplaced), true, true), (None, true, true));
        let swapped = vec![moved(row(&key, 2), 0), row(&key, 1), moved(row(&key, 0), 2)];
        assert_eq!(judged(swapped, &keys, 3), [misplaced, sound, misplaced]);
        // a second row of an entry takes nobody's slot
        let doubled = vec![row(&key, 0), moved(row(&key, 0), 1)];
        assert_eq!(judged(doubled, &keys, 2), [sound, (Some(Wrong::Unreadable), false, false)]);
    }
}
