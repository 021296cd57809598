//! Gaps: after a real loss an older state of the log continues, with a signed statement.

use super::*;
use crate::TreeHead;
use crate::roots::{RootList, Scope};

fn findings(report: &Report) -> &[Finding] {
    let Verdict::Tampered { findings, .. } = &report.verdict else { panic!("{report}") };
    findings
}

struct Loss {
    /// As it was before.
    lost: Log,
    /// Restored at 6 entries, with a gap as entry 6, and 3 more.
    log: Log,
    lists: Vec<RootList>,
}

fn loss() -> Loss {
    let mut lost = Log::new(4);
    let hour = |n| lost_day().starts() + jiff::SignedDuration::from_hours(n);
    let mut lists = vec![lost.list(None, hour(1), Scope::Full)];
    for n in 2..4 {
        lost.grow(4);
        lists.push(lost.list(lists.last(), hour(n), Scope::Changed));
    }
    let mut log = lost.restored(6);
    log.declare_gap(4, lost.head(12));
    log.grow(1);
    lists.push(log.list(lists.last(), hour(10), Scope::Full));
    log.grow(2);
    Loss { lost, log, lists }
}

fn lost_day() -> crate::Day {
    "2026-11-26".parse().unwrap()
}

fn held_to(log: &Log, lists: &[RootList], checkpoints: &[String]) -> Result<Report, VerifyError> {
    let mut verifier = log.verifier();
    for list in lists {
        verifier.add_list(&list.number.to_string(), log.signed(list).as_bytes()).unwrap();
    }
    for checkpoint in checkpoints {
        verifier.add_checkpoint("kept", checkpoint.as_bytes()).unwrap();
    }
    verifier.verify(log.export().as_slice())
}

#[test]
fn a_declared_gap_is_named_and_excuses_what_was_lost() {
    let Loss { lost, log, lists } = loss();
    let checkpoints: Vec<String> = (1..=12).map(|size| lost.checkpoint(size)).collect();
    let report = held_to(&log, &lists, &checkpoints).unwrap();
    assert_eq!(report.verdict, Verdict::Intact);
    let [gap] = report.gaps.as_slice() else { panic!("{report}") };
    // lists 2 and 3, and the checkpoints of 7 to 12
    assert_eq!((gap.sequence, gap.agreed, gap.newest, gap.excuses), (6, 4, lost.head(12), 8));
    assert_eq!(
        report.to_string(),
        "intact\ngap declared by staff-taro at entry 6, since 2026-12-01T12:00:00.000000+09:00: what were entries 4 to 11 is lost"
    );
    // also without anything brought
    assert_eq!(log.verify(&log.export()).gaps.len(), 1);
    assert_eq!(log.verify(&log.export_range(8..10, 10)).gaps.len(), 1);
}

#[test]
fn without_a_gap_an_older_state_is_tampered_with() {
    let Loss { lost, lists, .. } = loss();
    let mut silent = lost.restored(6);
    silent.grow(1);
    silent.append_target("as if nothing had been");
    silent.grow(5);
    let report = held_to(&silent, &lists[..3], &[]).unwrap();
    let places: Vec<String> = findings(&report).iter().map(|finding| finding.place.to_string()).collect();
    assert_eq!(places, ["list 2", "list 3"]);
    assert!(matches!(findings(&report)[0].flaw, Flaw::Rewritten { size: 8, from: 4, .. }));
    assert!(matches!(findings(&held_to(&lost.restored(6), &lists[..3], &[]).unwrap())[0].flaw, Flaw::Shorter { known: 8, exported: 6 }));
}

#[test]
fn a_gap_excuses_no_other_root_than_the_newest_one() {
    let Loss { lost, lists, .. } = loss();
    let mut log = lost.restored(6);
    log.declare_gap(4, TreeHead { size: 12, root: lost.head(11).root });
    log.grow(9);
    let report = held_to(&log, &lists[..3], &[]).unwrap();
    assert!(
        matches!(findings(&report), [Finding { place: Location::List { name }, flaw: Flaw::Rewritten { size: 12, .. } }] if name == "3")
    );
}

#[test]
fn a_gap_excuses_nothing_from_before_it() {
    let Loss { lost, .. } = loss();
    let forged = lost.rewritten(|stored| stored[2].leaf[30] ^= 1);
    let mut log = forged.restored(6);
    log.declare_gap(4, lost.head(12));
    let report = held_to(&log, &[], &[lost.checkpoint(4)]).unwrap();
    assert!(matches!(
        findings(&report),
        [_, Finding { flaw: Flaw::Rewritten { size: 4, .. }, .. }] | [Finding { flaw: Flaw::Rewritten { size: 4, .. }, .. }, ..]
    ));
}

#[test]
fn what_was_written_after_a_gap_cannot_be_rewritten_under_its_cover() {
    let Loss { lists, log, .. } = loss();
    // list 4 shows 8 entries with the gap; now entry 7 becomes another one, within the sizes that were lost
    let forged = log.rewritten(|stored| {
        let mut other = log.restored(7);
        other.append_target("other");
        stored[7] = other.stored[7].clone();
    });
    let report = held_to(&forged, &lists, &[]).unwrap();
    assert!(
        matches!(findings(&report), [Finding { place: Location::List { name }, flaw: Flaw::Rewritten { size: 8, .. } }] if name == "4")
    );
}

#[test]
fn the_lost_log_does_not_come_back_after_the_gap() {
    let Loss { lost, log, mut lists } = loss();
    let back = lost.list(lists.last(), lists[3].time.timestamp(), Scope::Full);
    lists.push(back);
    let report = held_to(&log, &lists, &[]).unwrap();
    let flaw = Flaw::BackBehindGap { gap: 6, list: 4 };
    assert_eq!(findings(&report), [Finding { place: Location::List { name: "5".to_owned() }, flaw }]);
}

#[test]
fn a_gap_that_the_key_did_not_sign_for_its_place_is_none() {
    let Loss { lost, log, .. } = loss();
    let moved = log.rewritten(|stored| {
        let mut gap = stored[6].clone();
        gap.leaf[2..10].copy_from_slice(&7_u64.to_be_bytes());
        stored.insert(7, gap);
        stored.truncate(8);
    });
    let report = moved.verify(&moved.export());
    assert_eq!(findings(&report), [Finding { place: Location::Entry { sequence: 7 }, flaw: Flaw::Gap }]);
    let mut stranger = Log::signed_by([9; 32], 0);
    stranger.declare_gap(0, lost.head(12));
    let forged = log.rewritten(|stored| *stored = stranger.stored.clone());
    assert_eq!(findings(&forged.verify(&forged.export()))[0].flaw, Flaw::Gap);
}

/// Somebody else's objects lie where lists belong; staff declared it, and the next list says which numbers are skipped.
#[test]
fn objects_that_are_no_lists_are_skipped_by_a_signed_list_and_not_without() {
    let mut log = Log::new(4);
    let hour = |n| lost_day().starts() + jiff::SignedDuration::from_hours(n);
    let first = log.list(None, hour(1), Scope::Full);
    log.grow(2);
    let mut on = log.list(Some(&first), hour(2), Scope::Full);
    (on.number, on.skipped) = (3, "2,5000".parse().unwrap());
    let brought = |on: &RootList| {
        let mut verifier = log.verifier();
        verifier.add_list("roots/000000000001", log.signed(&first).as_bytes()).unwrap();
        verifier.add_list("roots/000000000002", b"forged").unwrap();
        verifier.add_list("roots/000000000003", log.signed(on).as_bytes()).unwrap();
        verifier.add_list("roots/000000005000", b"forged").unwrap();
        verifier.verify(log.export().as_slice()).unwrap()
    };
    assert_eq!(brought(&on).verdict, Verdict::Intact);
    on.skipped = "2".parse().unwrap();
    assert_eq!(findings(&brought(&on)).len(), 1);
    on.skipped = crate::roots::Skipped::default();
    assert!(findings(&brought(&on)).len() > 2);
}

/// Lists in the middle are gone; the ones behind them were put before anybody declared it.
#[test]
fn lists_that_are_gone_in_the_middle_are_excused_by_a_later_list() {
    let mut log = Log::new(4);
    let hour = |n| lost_day().starts() + jiff::SignedDuration::from_hours(n);
    let mut lists = vec![log.list(None, hour(1), Scope::Full)];
    for n in 2..6 {
        log.grow(2);
        lists.push(log.list(lists.last(), hour(n), if n == 5 { Scope::Full } else { Scope::Changed }));
    }
    lists[4].skipped = "2-3".parse().unwrap();
    let brought = |lists: &[&RootList]| {
        let lists: Vec<RootList> = lists.iter().map(|list| (*list).clone()).collect();
        held_to(&log, &lists, &[]).unwrap()
    };
    assert_eq!(brought(&[&lists[0], &lists[3], &lists[4]]).verdict, Verdict::Intact);
    lists[4].skipped = "2".parse().unwrap();
    assert!(!findings(&held_to(&log, &[lists[0].clone(), lists[3].clone(), lists[4].clone()], &[]).unwrap()).is_empty());
}
