//! Entries that are damaged in storage, and forged statements of such damage.

use proptest::prelude::*;

use super::log::key_of;
use super::*;
use crate::Day;
use crate::export::{Damage, InvalidDamage, Loss, LostEntry, UnsignedDamage};
use crate::leaf::{Content, Retention};
use crate::merkle::leaf_hash;

/// What the service states of a subtree of a log.
fn statement(log: &Log, (begin, end): (u64, u64), lost: &[(u64, Loss)]) -> UnsignedDamage {
    let is_lost = |sequence| lost.contains(&(sequence, Loss::Entry));
    let hash = |sequence: u64| leaf_hash(&log.stored[usize::try_from(sequence).unwrap()].leaf);
    UnsignedDamage {
        damaged: begin,
        end,
        size: log.size(),
        hash: log.read(begin, end)[0],
        leaves: (begin..end).map(|sequence| (!is_lost(sequence)).then(|| hash(sequence))).collect(),
        lost: lost.iter().map(|(sequence, loss)| LostEntry { sequence: *sequence, loss: *loss }).collect(),
    }
}

fn signed(log: &Log, subtree: (u64, u64), lost: &[(u64, Loss)]) -> Damage {
    statement(log, subtree, lost).sign(&log.key(), &log.origin)
}

/// The lines of an export of the whole log, as the service writes them with a statement.
fn lines_with(log: &Log, damage: &Damage) -> Vec<Vec<u8>> {
    let said = &damage.unsigned;
    let bodies_gone = log.rewritten(|stored| {
        for lost in said.lost.iter().filter(|lost| lost.loss == Loss::Body) {
            stored[usize::try_from(lost.sequence).unwrap()].opened = None;
        }
    });
    let mut lines = bodies_gone.lines(0..log.size(), log.size(), &log.verifier_key());
    for lost in said.lost.iter().rev().filter(|lost| lost.loss == Loss::Entry) {
        lines.remove(usize::try_from(lost.sequence).unwrap() + 1);
    }
    lines.insert(usize::try_from(said.damaged).unwrap() + 1, damage.line());
    lines
}

fn exported(log: &Log, damage: &Damage) -> Vec<u8> {
    lines_with(log, damage).concat()
}

fn findings(report: &Report) -> &[Finding] {
    let Verdict::Tampered { findings, .. } = &report.verdict else { panic!("{report}") };
    findings
}

#[test]
fn a_damaged_body_is_named_and_the_rest_is_verified() {
    let log = Log::new(20);
    for sequence in 0..20 {
        let damage = signed(&log, (sequence, sequence + 1), &[(sequence, Loss::Body)]);
        let mut verifier = log.verifier();
        (0..=20).for_each(|size| verifier.add_checkpoint("kept", log.checkpoint(size).as_bytes()).unwrap());
        let report = verifier.verify(exported(&log, &damage).as_slice()).unwrap();
        assert_eq!((&report.verdict, report.entries, report.bodies), (&Verdict::Damaged(Vec::new()), 20, 19), "{report}");
        assert_eq!((report.damaged, report.damaged_count), (vec![DamagedEntry { sequence, loss: Loss::Body }], 1));
    }
}

#[test]
fn a_lost_entry_is_named_and_the_rest_is_verified() {
    let log = Log::new(20);
    for (begin, end) in [(0, 1), (4, 6), (8, 12), (0, 16), (16, 20)] {
        for sequence in begin..end {
            let damage = signed(&log, (begin, end), &[(sequence, Loss::Entry)]);
            let mut verifier = log.verifier();
            (0..=20).for_each(|size| verifier.add_checkpoint("kept", log.checkpoint(size).as_bytes()).unwrap());
            let report = verifier.verify(exported(&log, &damage).as_slice()).unwrap();
            assert_eq!((&report.verdict, report.entries), (&Verdict::Damaged(Vec::new()), 19), "{report}");
            assert_eq!(report.damaged, [DamagedEntry { sequence, loss: Loss::Entry }]);
            assert_eq!(report.unconnected, end - begin - 1, "sizes within the subtree are not known");
            assert_eq!(report.to_string(), format!("DAMAGED\n  entry {sequence}: nothing of it is left where it was stored"));
        }
    }
}

#[test]
fn a_whole_subtree_may_be_lost() {
    let log = Log::new(20);
    let all: Vec<_> = (8..16).map(|sequence| (sequence, Loss::Entry)).collect();
    let report = log.verify(&exported(&log, &signed(&log, (8, 16), &all)));
    assert_eq!((report.verdict, report.damaged_count, report.entries), (Verdict::Damaged(Vec::new()), 8, 12));
}

#[test]
fn damage_beside_a_day_that_expired() {
    let mut log = Log::new(4);
    let first = log.day;
    log.day = first.plus(1);
    log.grow(4);
    log.now = first.expires_at();
    log.day = Day::of(log.now);
    log.expire(first);
    for lost in [0, 2, 3, 6] {
        let report = log.verify(&exported(&log, &signed(&log, (0, 8), &[(lost, Loss::Entry)])));
        assert_eq!(report.verdict, Verdict::Damaged(vec![first]), "{report}");
    }
    // what is lost makes no room for more than itself
    let forged = |count, last| {
        let mut log = log.restored(8);
        log.append_record(Content::Retention(Retention { day: first, key: key_of(first), first: 0, last, count }));
        let report = log.verify(&exported(&log, &signed(&log, (0, 8), &[(2, Loss::Entry)])));
        findings(&report)[0].flaw.clone()
    };
    assert!(matches!(forged(5, 4), Flaw::OtherCount { .. }));
    assert!(matches!(forged(2, 3), Flaw::OtherCount { .. }));
    assert!(matches!(forged(3, 2), Flaw::OtherCount { .. }));
}

#[test]
fn nobody_but_the_log_states_damage() {
    let log = Log::new(8);
    let of = |log: &Log| signed(log, (0, 8), &[(3, Loss::Entry)]);
    let stranger = Log::signed_by([9; 32], 8);
    let forged = statement(&log, (0, 8), &[(3, Loss::Entry)]).sign(&stranger.key(), &log.origin);
    assert_eq!(findings(&log.verify(&exported(&log, &forged)))[0].flaw, Flaw::Damage(InvalidDamage::Signature));
    let elsewhere = statement(&log, (0, 8), &[(3, Loss::Entry)]).sign(&log.key(), &Log::of_other_group(1).origin);
    assert_eq!(findings(&log.verify(&exported(&log, &elsewhere)))[0].flaw, Flaw::Damage(InvalidDamage::Signature));
    // left out: then the entry is missing
    let mut lines = lines_with(&log, &of(&log));
    lines.remove(1);
    assert_eq!(findings(&log.verify(&lines.concat()))[0], Finding { place: Location::Entries { from: 3, to: 4 }, flaw: Flaw::Missing });
    // of another size, or once more
    let mut grown = log.restored(8);
    grown.grow(1);
    let mut lines = grown.lines(0..9, 9, &log.verifier_key());
    lines.remove(4);
    lines.insert(1, of(&log).line());
    assert!(matches!(findings(&log.verify(&lines.concat()))[0].flaw, Flaw::OtherSize { found: 8, wanted: 9 }));
    let mut lines = lines_with(&log, &of(&log));
    lines.insert(1, lines[1].clone());
    assert_eq!(findings(&log.verify(&lines.concat()))[0].flaw, Flaw::Repeated);
}

/// The tree says nothing of the entries beside a lost one, so the statement has to.
#[test]
fn entries_beside_a_lost_one_cannot_be_exchanged_or_left_out() {
    let log = Log::new(8);
    let damage = signed(&log, (0, 8), &[(3, Loss::Entry)]);
    for at in [0_usize, 2, 4, 7] {
        let forged = log.rewritten(|stored| {
            let mut other = Log::new(0);
            (0..at).for_each(|_| other.append_target(""));
            other.append_target("nothing happened");
            stored[at] = other.stored[at].clone();
        });
        let mut lines = lines_with(&log, &damage);
        let line = if at < 3 { at + 2 } else { at + 1 };
        lines[line] = forged.lines(0..8, 8, &log.verifier_key())[at + 1].clone();
        let report = log.verify(&lines.concat());
        let sequence = u64::try_from(at).unwrap();
        assert_eq!(findings(&report)[0], Finding { place: Location::Entry { sequence }, flaw: Flaw::OtherLeaf });
        lines.remove(line);
        assert_eq!(findings(&log.verify(&lines.concat()))[0].flaw, Flaw::Missing);
    }
    // a body that the statement does not call damaged
    let gone = log.rewritten(|stored| stored[5].opened = None);
    let mut lines = lines_with(&log, &damage);
    lines[6] = gone.lines(0..8, 8, &log.verifier_key())[6].clone();
    assert!(matches!(findings(&log.verify(&lines.concat()))[0].flaw, Flaw::NoBody(1)));
}

#[test]
fn a_statement_that_contradicts_itself_is_none_whoever_signed_it() {
    let log = Log::new(8);
    let right = statement(&log, (0, 8), &[(3, Loss::Entry)]);
    let lost = |sequence, loss| LostEntry { sequence, loss };
    let cases = [
        UnsignedDamage { end: 7, ..right.clone() },
        UnsignedDamage { damaged: 1, end: 3, ..right.clone() },
        UnsignedDamage { leaves: right.leaves[1..].to_vec(), ..right.clone() },
        UnsignedDamage { lost: Vec::new(), ..right.clone() },
        UnsignedDamage { lost: vec![lost(3, Loss::Body)], ..right.clone() },
        UnsignedDamage { lost: vec![lost(3, Loss::Entry), lost(3, Loss::Entry)], ..right.clone() },
        UnsignedDamage { lost: vec![lost(3, Loss::Entry), lost(8, Loss::Entry)], ..right.clone() },
        UnsignedDamage { lost: vec![lost(2, Loss::Entry), lost(3, Loss::Entry)], ..right.clone() },
        // a subtree without a lost leaf has the hash of its leaves
        UnsignedDamage { hash: log.head(4).root, ..statement(&log, (0, 8), &[(3, Loss::Body)]) },
    ];
    for case in cases {
        let damage = case.clone().sign(&log.key(), &log.origin);
        assert_eq!(damage.verify(&log.verifier_key(), &log.origin), Err(InvalidDamage::Contradiction), "{case:?}");
    }
    assert_eq!(right.sign(&log.key(), &log.origin).verify(&log.verifier_key(), &log.origin), Ok(()));
}

/// A subtree with another hash leads to another root, also when the key has signed it.
#[test]
fn the_hash_of_a_damaged_subtree_is_held_to_the_root() {
    let log = Log::new(12);
    let other = UnsignedDamage { hash: log.head(4).root, ..statement(&log, (0, 8), &[(3, Loss::Entry)]) };
    let report = log.verify(&exported(&log, &other.sign(&log.key(), &log.origin)));
    assert_eq!(findings(&report)[0].flaw, Flaw::OtherRoot);
}

#[test]
fn one_flipped_bit_anywhere_in_an_export_with_damage_is_found() {
    let log = Log::new(4);
    for damage in [signed(&log, (0, 4), &[(1, Loss::Entry)]), signed(&log, (2, 3), &[(2, Loss::Body)])] {
        let export = exported(&log, &damage);
        assert_eq!(log.verify(&export).verdict, Verdict::Damaged(Vec::new()));
        for at in 0..export.len() {
            let mut flipped = export.clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(!findings(&log.verify(&flipped)).is_empty(), "byte {at}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Lines of a sound export and of one with damage, mixed: intact is only what is whole, and damaged only what says so itself.
    #[test]
    fn no_mixture_with_damage_is_intact(taken in proptest::collection::vec(0_usize..24, 1..24)) {
        let log = Log::new(8);
        let sound = log.lines(0..8, 8, &log.verifier_key());
        let damaged = lines_with(&log, &signed(&log, (4, 8), &[(5, Loss::Entry), (6, Loss::Body)]));
        let pool = [sound.clone(), damaged.clone()].concat();
        let mut mixed = sound.clone();
        for (at, from) in taken.iter().enumerate() {
            if from % 3 != 0 {
                let length = mixed.len();
                mixed[(at * 7 + from) % length].clone_from(&pool[from % pool.len()]);
            } else if mixed.len() < 30 {
                mixed.insert(from % (mixed.len() + 1), pool[(at * 5 + from) % pool.len()].clone());
            }
        }
        let report = log.verify(&mixed.concat());
        prop_assert_eq!(report.verdict == Verdict::Intact, mixed == sound, "{}", report);
        let says_so = mixed.iter().any(|line| line.starts_with(b"{\"damaged\":"));
        prop_assert!(!matches!(report.verdict, Verdict::Damaged(_)) || says_so, "{}", report);
    }
}
