//! Checkpoints and root lists from the auditor's own files.

use super::*;
use crate::roots::{BrokenChain, RootList, Scope};

fn findings(report: &Report) -> &[Finding] {
    let Verdict::Tampered { findings, .. } = &report.verdict else { panic!("{report}") };
    findings
}

/// A log that grew by `steps`, and the list that was written after each, an hour apart.
fn listed(steps: &[u64]) -> (Log, Vec<RootList>) {
    let mut log = Log::new(0);
    let mut lists: Vec<RootList> = Vec::new();
    for (hour, by) in (0..).zip(steps) {
        log.grow(*by);
        let time = log.day.starts() + jiff::SignedDuration::from_hours(hour);
        let scope = if hour % 3 == 0 { Scope::Full } else { Scope::Changed };
        lists.push(log.list(lists.last(), time, scope));
    }
    (log, lists)
}

fn held_to(log: &Log, lists: &[String]) -> Verifier {
    let mut verifier = log.verifier();
    for (number, list) in (1..).zip(lists) {
        verifier.add_list(&format!("list {number}"), list.as_bytes()).unwrap();
    }
    verifier
}

fn signed(log: &Log, lists: &[RootList]) -> Vec<String> {
    lists.iter().map(|list| log.signed(list)).collect()
}

#[test]
fn a_log_goes_through_all_its_checkpoints_and_lists() {
    let (log, lists) = listed(&[2, 3, 0, 4, 1]);
    let mut verifier = held_to(&log, &signed(&log, &lists));
    for size in 0..=10 {
        verifier.add_checkpoint(&size.to_string(), log.checkpoint(size).as_bytes()).unwrap();
    }
    let report = verifier.verify(log.export().as_slice()).unwrap();
    assert_eq!((&report.verdict, report.heads, report.lists, report.unconnected), (&Verdict::Intact, 16, 5, 0));
    // from whichever list on
    assert_eq!(held_to(&log, &signed(&log, &lists)[2..]).verify(log.export().as_slice()).unwrap().verdict, Verdict::Intact);
}

#[test]
fn one_flipped_bit_in_a_checkpoint_or_a_list_is_found_there() {
    let (log, lists) = listed(&[2, 3]);
    let lists = signed(&log, &lists);
    let export = log.export();
    for (kind, text) in [("checkpoint", log.checkpoint(3)), ("list", lists[0].clone())] {
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut flipped = text.clone().into_bytes();
                flipped[at] ^= 1 << bit;
                let mut verifier = log.verifier();
                let place = if kind == "list" {
                    verifier.add_list("brought", &flipped).unwrap();
                    Location::List { name: "brought".to_owned() }
                } else {
                    verifier.add_checkpoint("brought", &flipped).unwrap();
                    Location::Checkpoint { name: "brought".to_owned() }
                };
                let report = verifier.verify(export.as_slice()).unwrap();
                assert_eq!(findings(&report)[0].place, place, "bit {bit} of byte {at}");
            }
        }
    }
}

#[test]
fn lists_cannot_be_left_out_repeated_or_exchanged() {
    let (log, lists) = listed(&[2, 1, 1, 1]);
    let lists = signed(&log, &lists);
    let broken = |lists: &[String]| {
        let report = held_to(&log, lists).verify(log.export().as_slice()).unwrap();
        let chain = findings(&report).iter().find_map(|finding| match (&finding.place, &finding.flaw) {
            (Location::List { name }, Flaw::Chain(broken)) => Some((name.clone(), broken.clone())),
            _ => None,
        });
        chain.unwrap()
    };
    let [a, b, c, d] = [0, 1, 2, 3].map(|at| lists[at].clone());
    let second = "list 2".to_owned();
    assert_eq!(broken(&[a.clone(), c.clone(), d.clone()]), (second.clone(), BrokenChain::Number { last: 1, found: 3 }));
    assert_eq!(broken(&[a.clone(), a.clone()]), (second.clone(), BrokenChain::Number { last: 1, found: 1 }));
    assert_eq!(broken(&[b, a, c]), (second, BrokenChain::Number { last: 2, found: 1 }));
}

/// A list that was written anew with the right key breaks the chain at the list after it.
#[test]
fn a_rewritten_list_is_found_at_the_next() {
    let (log, mut lists) = listed(&[2, 1, 1, 1]);
    lists[1].roots.retain(|log, _| *log != Log::of_other_group(0).origin.log);
    let report = held_to(&log, &signed(&log, &lists)).verify(log.export().as_slice()).unwrap();
    let flaw = Flaw::Chain(BrokenChain::Previous { before: 2 });
    assert_eq!(findings(&report), [Finding { place: Location::List { name: "list 3".to_owned() }, flaw }]);
    let (_, mut lists) = listed(&[2, 1]);
    lists[1].time = (lists[0].time.timestamp() - jiff::SignedDuration::from_secs(1)).into();
    let report = held_to(&log, &signed(&log, &lists)).verify(log.export().as_slice()).unwrap();
    assert_eq!(findings(&report)[0].flaw, Flaw::Chain(BrokenChain::Time { before: 1 }));
}

#[test]
fn a_log_does_not_vanish_from_a_full_list_nor_shrink() {
    let (log, mut lists) = listed(&[2, 1, 1, 1]);
    lists[3].roots.remove(&log.origin.log);
    let report = held_to(&log, &signed(&log, &lists)).verify(log.export().as_slice()).unwrap();
    assert_eq!(findings(&report), [Finding { place: Location::List { name: "list 4".to_owned() }, flaw: Flaw::Unlisted }]);
    let (log, mut lists) = listed(&[2, 1, 1, 1]);
    lists[3].roots.insert(log.origin.log, log.head(3));
    let report = held_to(&log, &signed(&log, &lists)).verify(log.export().as_slice()).unwrap();
    let flaw = Flaw::Shrunk { list: 3, before: 4, size: 3 };
    assert_eq!(findings(&report), [Finding { place: Location::List { name: "list 4".to_owned() }, flaw }]);
}

#[test]
fn a_history_rewritten_with_the_right_key_is_found_against_the_lists() {
    let (log, lists) = listed(&[2, 3, 4]);
    let forged = log.rewritten(|stored| stored[3].leaf[30] ^= 1);
    let report = held_to(&log, &signed(&log, &lists)).verify(forged.export().as_slice()).unwrap();
    let places: Vec<&Location> =
        findings(&report).iter().filter(|f| matches!(f.flaw, Flaw::Rewritten { from: 2, .. })).map(|f| &f.place).collect();
    assert_eq!(places, [&Location::List { name: "list 2".to_owned() }, &Location::List { name: "list 3".to_owned() }]);
}

#[test]
fn entries_that_were_cut_off_are_missed() {
    let (log, lists) = listed(&[2, 3, 4]);
    let older = log.export_range(0..7, 7);
    let report = held_to(&log, &signed(&log, &lists)).verify(older.as_slice()).unwrap();
    let flaw = Flaw::Shorter { known: 9, exported: 7 };
    assert_eq!(findings(&report), [Finding { place: Location::List { name: "list 3".to_owned() }, flaw }]);
    let mut verifier = log.verifier();
    verifier.add_checkpoint("kept", log.checkpoint(8).as_bytes()).unwrap();
    let report = verifier.verify(older.as_slice()).unwrap();
    assert!(matches!(findings(&report), [Finding { place: Location::Checkpoint { .. }, flaw: Flaw::Shorter { known: 8, exported: 7 } }]));
    // that the older export is where the log came through is proven by its growth
    let mut verifier = log.verifier();
    verifier.add_checkpoint("kept", log.checkpoint(8).as_bytes()).unwrap();
    verifier.add_growth(8, log.growth(7, 8).proof);
    assert_eq!(verifier.verify(older.as_slice()).unwrap().verdict, Verdict::Intact);
}

#[test]
fn a_part_of_a_log_is_held_to_a_checkpoint_outside_of_it_by_a_proof_or_not_at_all() {
    let log = Log::new(12);
    let forged = log.rewritten(|stored| stored[1].leaf[30] ^= 1);
    for size in [2, 4, 9, 11] {
        let verifier = || {
            let mut verifier = log.verifier();
            verifier.add_checkpoint("kept", log.checkpoint(size).as_bytes()).unwrap();
            verifier
        };
        let part = log.export_range(5..8, 12);
        let error = verifier().verify(part.as_slice()).unwrap_err();
        assert!(matches!(error, VerifyError::Unconnected { size: found, .. } if found == size));
        let mut proven = verifier();
        proven.add_growth(size, log.growth(size, 12).proof);
        assert_eq!(proven.verify(part.as_slice()).unwrap().verdict, Verdict::Intact);
        // the proof may stand in the export, too
        let mut lines = log.lines(5..8, 12, &log.verifier_key());
        lines.insert(4, log.growth(size, 12).line());
        assert_eq!(verifier().verify(lines.concat().as_slice()).unwrap().verdict, Verdict::Intact);
        // which helps nobody who rewrote what came before
        let mut lines = forged.lines(5..8, 12, &log.verifier_key());
        lines.insert(4, forged.growth(size, 12).line());
        lines.insert(4, log.growth(size, 12).line());
        assert!(verifier().verify(lines.concat().as_slice()).is_err());
    }
    for size in 5..=8 {
        let mut verifier = log.verifier();
        verifier.add_checkpoint("kept", log.checkpoint(size).as_bytes()).unwrap();
        assert_eq!(verifier.verify(log.export_range(5..8, 12).as_slice()).unwrap().verdict, Verdict::Intact);
    }
}

#[test]
fn a_part_of_a_log_is_held_to_the_newest_list_at_least() {
    let (log, lists) = listed(&[2, 3, 4, 1]);
    let lists = signed(&log, &lists);
    let report = held_to(&log, &lists).verify(log.export_range(6..9, 10).as_slice()).unwrap();
    assert_eq!((report.verdict, report.heads, report.unconnected), (Verdict::Intact, 4, 2));
    let error = held_to(&log, &lists[..2]).verify(log.export_range(6..9, 10).as_slice()).unwrap_err();
    assert!(matches!(error, VerifyError::Unconnected { size: 5, .. }));
}
