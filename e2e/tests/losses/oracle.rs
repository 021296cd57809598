//! What was acknowledged, and what of it is missing afterwards. Pure: lists in, names out.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;

use crate::row::Loses;

/// Remembers what was acknowledged.
#[derive(Debug, Default, Clone)]
pub struct Oracle {
    /// The ids of snapshots.
    snapshots: BTreeSet<String>,
    /// The ids of snapshots that were erased: nobody may ever read them again.
    erased: BTreeSet<String>,
    /// Entries of the group's history by id and phase.
    entries: BTreeMap<String, Acknowledged>,
    /// Times of which nobody is left who has what was added then.
    lapses: Vec<Lapse>,
    /// How many times secrets were revealed: each call was acknowledged after its intent was durable.
    revealed: usize,
    /// How many other calls were answered of which each is an entry.
    called: u64,
}

/// An entry that a list showed.
#[derive(Debug, Clone)]
struct Acknowledged {
    /// Its place in the log.
    sequence: u64,
    appended_at: Option<Timestamp>,
    /// Whether the audit service added it itself: what it keeps lies on the volume of the history.
    is_audits_own: bool,
}

/// A time before the volume of the history was lost, from which no root list was left. Whoever added entries then keeps them, unless its volume went as
/// well. The service that begins another spool says so.
#[derive(Debug, Clone)]
pub struct Lapse {
    pub from: Timestamp,
    pub to: Timestamp,
    /// Whether the volume of the other services was lost as well, before they could add again what they kept.
    pub of_all: bool,
    /// Whether the platform's history says that a spool began or was lost since.
    pub is_named: bool,
}

/// How many of the newest entries a list shows at most.
pub const LISTED: usize = 5000;

/// What can be read now.
#[derive(Debug, Default)]
pub struct Found {
    pub snapshots: Vec<Value>,
    /// Every entry of an export.
    pub entries: Vec<Value>,
    /// What a list shows: the newest [`LISTED`] at most.
    pub listed: Vec<Value>,
    /// The places in the log whose entries are named as damaged.
    pub damaged: BTreeSet<u64>,
    /// What `audit verify` answered for a fresh export.
    pub verdict: Value,
}

impl Oracle {
    /// Takes down what lists show.
    pub fn remember(&mut self, snapshots: &[Value], entries: &[Value]) {
        let ids = snapshots.iter().filter(|snapshot| !is_damaged(snapshot)).map(|snapshot| text(snapshot, "id"));
        self.snapshots.extend(ids.filter(|id| !self.erased.contains(id)));
        let acknowledged = |entry: &Value| Acknowledged {
            sequence: entry["sequence"].as_u64().unwrap_or_default(),
            appended_at: entry["appendedAt"].as_str().and_then(|at| at.parse().ok()),
            is_audits_own: text(entry, "service").contains("audit"),
        };
        self.entries.extend(entries.iter().map(|entry| (name(entry), acknowledged(entry))));
    }

    /// Nobody has any more what was added in these times.
    pub fn lapsed(&mut self, lapses: Vec<Lapse>) {
        self.lapses = lapses;
    }

    fn has_lapsed(&self, entry: &Acknowledged) -> bool {
        let is_in = |lapse: &Lapse| entry.appended_at.is_some_and(|at| lapse.from <= at && at <= lapse.to);
        self.lapses.iter().any(|lapse| lapse.is_named && (lapse.of_all || entry.is_audits_own) && is_in(lapse))
    }

    /// These snapshots were erased, and that was acknowledged.
    pub fn erased(&mut self, snapshots: impl IntoIterator<Item = String>) {
        self.erased.extend(snapshots);
        self.snapshots.retain(|id| !self.erased.contains(id));
    }

    /// A call that reveals secrets was answered.
    pub fn revealed(&mut self) {
        self.revealed += 1;
    }

    /// So many calls were answered, each of which is an entry.
    pub fn called(&mut self, times: u64) {
        self.called += times;
    }

    /// What was acknowledged and is neither there nor named as lost, and what is named as lost that must not be. Empty: all is well.
    pub fn wrong(&self, found: &Found, loses: Loses) -> Vec<String> {
        let (may_lose_contents, may_lose_entries) = (loses == Loses::Contents, loses == Loses::Entries);
        let mut wrong = Vec::new();
        let there: BTreeMap<String, bool> = found.snapshots.iter().map(|snapshot| (text(snapshot, "id"), is_damaged(snapshot))).collect();
        for id in &self.snapshots {
            match there.get(id) {
                None => wrong.push(format!("snapshot {id} is in no list")),
                Some(true) if !may_lose_contents => wrong.push(format!("snapshot {id} is damaged")),
                Some(_) => {}
            }
        }
        wrong.extend(self.erased.iter().filter(|id| there.contains_key(*id)).map(|id| format!("snapshot {id} was erased and is listed")));
        let names: BTreeSet<String> = found.entries.iter().map(name).collect();
        if names.len() < found.entries.len() {
            wrong.push(format!("{} entries are there twice", found.entries.len() - names.len()));
        }
        let gaps = found.verdict["gaps"].as_u64().unwrap_or_default();
        for (entry, acknowledged) in self.entries.iter().filter(|(entry, _)| !names.contains(*entry)) {
            if self.has_lapsed(acknowledged) {
                continue;
            }
            let sequence = &acknowledged.sequence;
            let is_named = gaps > 0 || found.damaged.contains(sequence);
            if !(may_lose_entries && is_named) {
                wrong.push(format!("entry {entry} at {sequence} is not there{}", if is_named { ", and a copy was kept" } else { "" }));
            }
        }
        let listed: BTreeSet<String> = found.listed.iter().map(name).collect();
        let places = found.listed.iter().filter_map(|entry| entry["sequence"].as_u64());
        let oldest = if found.listed.len() < LISTED { 0 } else { places.min().unwrap_or_default() };
        let within = self.entries.iter().filter(|(entry, known)| known.sequence >= oldest && names.contains(*entry));
        for (entry, known) in within.filter(|(entry, _)| !listed.contains(*entry)) {
            wrong.push(format!("entry {entry} at {} is in the export and in no list", known.sequence));
        }
        let count = found.verdict["entries"].as_u64().unwrap_or_default();
        if count < self.called && !may_lose_entries {
            wrong.push(format!("{} calls were answered, and the history has {count} entries", self.called));
        }
        let revealing = found.entries.iter().filter(|entry| entry["phase"] == "OUTCOME" && entry["detail"]["reveals"] == "true").count();
        if revealing < self.revealed && !may_lose_entries {
            wrong.push(format!("secrets were revealed {} times, and {revealing} are recorded", self.revealed));
        }
        let verdict = text(&found.verdict, "verdict");
        if verdict != "intact" && !may_lose_entries {
            wrong.push(format!("verify says {verdict:?}: {}", found.verdict));
        }
        if gaps > 0 && !may_lose_entries {
            wrong.push(format!("{gaps} gaps are declared, and every entry was kept"));
        }
        wrong
    }
}

fn name(entry: &Value) -> String {
    format!("{} {}", text(entry, "id"), text(entry, "phase"))
}

fn is_damaged(snapshot: &Value) -> bool {
    match &snapshot["damaged"] {
        Value::Bool(damaged) => *damaged,
        Value::String(why) => !why.is_empty(),
        _ => false,
    }
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(id: &str, sequence: u64) -> Value {
        json!({"id": id, "phase": "OUTCOME", "sequence": sequence, "detail": {}})
    }

    fn oracle() -> Oracle {
        let mut oracle = Oracle::default();
        oracle.remember(&[json!({"id": "s1"}), json!({"id": "s2"})], &[entry("e1", 1), entry("e2", 2)]);
        oracle
    }

    fn found() -> Found {
        Found {
            snapshots: vec![json!({"id": "s2"}), json!({"id": "s1"})],
            entries: vec![entry("e2", 2), entry("e1", 1)],
            listed: vec![entry("e2", 2), entry("e1", 1)],
            damaged: BTreeSet::new(),
            verdict: json!({"verdict": "intact", "gaps": 0, "entries": 2}),
        }
    }

    fn wrong(found: &Found, loses: Loses) -> usize {
        oracle().wrong(found, loses).len()
    }

    #[test]
    fn what_is_there_is_not_wrong() {
        assert_eq!(oracle().wrong(&found(), Loses::Nothing), Vec::<String>::new());
    }

    #[test]
    fn what_is_missing_is_wrong_unless_it_may_be_lost_and_is_named() {
        let without = Found { snapshots: vec![json!({"id": "s1"})], ..found() };
        assert_eq!((wrong(&without, Loses::Nothing), wrong(&without, Loses::Contents)), (1, 1), "a damaged snapshot stays listed");
        let damaged = Found { snapshots: vec![json!({"id": "s1"}), json!({"id": "s2", "damaged": true})], ..found() };
        assert_eq!((wrong(&damaged, Loses::Nothing), wrong(&damaged, Loses::Contents)), (1, 0));
        let lost = Found { entries: vec![entry("e1", 1)], ..found() };
        assert_eq!((wrong(&lost, Loses::Nothing), wrong(&lost, Loses::Entries)), (1, 1), "nobody names it");
        let behind_a_gap = Found { verdict: json!({"verdict": "intact", "gaps": 1}), entries: vec![entry("e1", 1)], ..found() };
        assert_eq!((wrong(&behind_a_gap, Loses::Nothing), wrong(&behind_a_gap, Loses::Entries)), (2, 0), "the gap itself is wrong");
        let named = Found { damaged: [2].into(), ..lost };
        assert_eq!((wrong(&named, Loses::Nothing), wrong(&named, Loses::Entries)), (1, 0));
    }

    /// What nobody keeps any more may be missing, and nothing else: it has to be of that time, and somebody has to say so.
    #[test]
    fn what_lapsed_may_be_missing_where_that_is_said() {
        let timed = |id: &str, second: i64, service: &str| {
            let at = Timestamp::from_second(second).unwrap().to_string();
            json!({"id": id, "phase": "OUTCOME", "sequence": 1, "detail": {}, "appendedAt": at, "service": service})
        };
        let lapse = |of_all, is_named| Lapse {
            from: Timestamp::from_second(100).unwrap(),
            to: Timestamp::from_second(200).unwrap(),
            of_all,
            is_named,
        };
        let missing = |second: i64, service: &str, lapse: Lapse| {
            let mut oracle = Oracle::default();
            oracle.remember(&[], &[timed("e9", second, service)]);
            oracle.lapsed(vec![lapse]);
            let found = Found { verdict: json!({"verdict": "intact", "gaps": 0, "entries": 0}), ..Found::default() };
            oracle.wrong(&found, Loses::Nothing).len()
        };
        assert_eq!(missing(150, "tsujiban.backup.v1.BackupService", lapse(true, true)), 0);
        assert_eq!(missing(150, "tsujiban.backup.v1.BackupService", lapse(true, false)), 1, "nobody says so");
        assert_eq!(missing(250, "tsujiban.backup.v1.BackupService", lapse(true, true)), 1, "it was added later");
        assert_eq!(missing(150, "tsujiban.backup.v1.BackupService", lapse(false, true)), 1, "the backup service has it");
        assert_eq!(missing(150, "tsujiban.audit.v1.AuditService", lapse(false, true)), 0);
    }

    #[test]
    fn what_was_erased_stays_so() {
        let mut oracle = oracle();
        oracle.erased(["s2".to_owned()]);
        assert_eq!(oracle.wrong(&found(), Loses::Nothing).len(), 1);
        let without = Found { snapshots: vec![json!({"id": "s1"})], ..found() };
        assert_eq!(oracle.wrong(&without, Loses::Nothing).len(), 0);
        oracle.remember(&[json!({"id": "s2"})], &[]);
        assert_eq!(oracle.wrong(&without, Loses::Nothing).len(), 0, "a list that still shows it acknowledges nothing");
    }

    #[test]
    fn what_is_there_twice_or_tampered_with_is_wrong() {
        let twice = Found { entries: vec![entry("e1", 1), entry("e2", 2), entry("e2", 3)], ..found() };
        assert_eq!(wrong(&twice, Loses::Nothing), 1);
        assert_eq!(wrong(&Found { verdict: json!({"verdict": "tampered", "gaps": 0}), ..found() }, Loses::Nothing), 1);
    }

    #[test]
    fn a_list_shows_what_an_export_has() {
        let hidden = Found { listed: vec![entry("e2", 2)], ..found() };
        assert_eq!(wrong(&hidden, Loses::Nothing), 1);
        let many: Vec<_> = (2..).take(LISTED).map(|number| entry(&format!("e{number}"), number)).collect();
        assert_eq!(wrong(&Found { listed: many, ..found() }, Loses::Nothing), 0, "what is older than the list goes");
        let mut oracle = oracle();
        oracle.called(2);
        assert_eq!(oracle.wrong(&found(), Loses::Nothing).len(), 0);
        oracle.called(1);
        assert_eq!(oracle.wrong(&found(), Loses::Nothing).len(), 1);
    }

    #[test]
    fn every_revealing_call_is_recorded() {
        let mut oracle = oracle();
        oracle.revealed();
        assert_eq!(oracle.wrong(&found(), Loses::Nothing).len(), 1);
        let mut recorded = found();
        recorded.entries.push(json!({"id": "e3", "phase": "OUTCOME", "sequence": 3, "detail": {"reveals": "true"}}));
        assert_eq!(oracle.wrong(&recorded, Loses::Nothing).len(), 0);
    }
}
