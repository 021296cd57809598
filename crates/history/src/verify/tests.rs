//! Tests of the verifier, honest exports and forged ones.

mod attacks;
mod brought;
mod damage;
mod expired;
mod gap;
mod log;
mod stored;

use super::*;
use crate::DayKeyId;
use log::{Log, at};

#[test]
fn a_whole_log_is_intact() {
    for size in [0, 1, 2, 7, 8, 255, 256, 257, 600] {
        let log = Log::new(size);
        let report = log.verify(&log.export());
        assert_eq!(report.verdict, Verdict::Intact, "{size}");
        assert_eq!((report.entries, report.bodies, report.head), (size, size, Some(log.head(size))));
        assert_eq!(report.to_string(), "intact");
    }
}

#[test]
fn every_range_of_a_log_is_intact() {
    let log = Log::new(19);
    for first in 0..=19 {
        for end in first..=19 {
            let report = log.verify(&log.export_range(first..end, 19));
            assert_eq!(report.verdict, Verdict::Intact, "{first} to {end}");
            assert_eq!(report.entries, end - first);
        }
    }
}

#[test]
fn an_export_of_an_earlier_size_is_intact_as_of_then() {
    let log = Log::new(40);
    for size in 0..=40 {
        assert_eq!(log.verify(&log.export_range(0..size, size)).verdict, Verdict::Intact);
    }
}

#[test]
fn the_key_is_that_which_the_auditor_brings() {
    let log = Log::new(5);
    let stranger = Log::signed_by([77; 32], 5);
    let report = log.verifier().verify(stranger.export().as_slice()).unwrap();
    let Verdict::Tampered { findings, .. } = report.verdict else { panic!("{report}") };
    assert_eq!(findings[0], Finding { place: Location::Line { line: 1, entry: None }, flaw: Flaw::OtherKey });
    assert!(matches!(findings[1].flaw, Flaw::Checkpoint(_)), "{findings:?}");
    // also when the export claims the right key
    let claimed = stranger.export_as(&log.verifier_key());
    let report = log.verifier().verify(claimed.as_slice()).unwrap();
    let Verdict::Tampered { findings, .. } = report.verdict else { panic!("{report}") };
    assert!(matches!(findings[..], [Finding { place: Location::Head, flaw: Flaw::Checkpoint(_) }]), "{findings:?}");
}

#[test]
fn the_key_of_the_log_alone_does_for_an_export() {
    let log = Log::new(5);
    let verifier = Verifier::new(log.verifier_key(), log.origin.clone(), at("2026-12-01")).unwrap();
    assert_eq!(verifier.verify(log.export().as_slice()).unwrap().verdict, Verdict::Intact);
    let mut verifier = Verifier::new(log.verifier_key(), log.origin.clone(), at("2026-12-01")).unwrap();
    assert!(matches!(verifier.add_list("list", b""), Err(VerifyError::Key(_))));
}

#[test]
fn the_history_of_another_group_is_not_this_one() {
    let (log, other) = (Log::new(5), Log::of_other_group(5));
    let report = log.verify(&other.export());
    let Verdict::Tampered { findings, .. } = report.verdict else { panic!("{report}") };
    assert!(matches!(findings[..], [Finding { place: Location::Line { line: 1, .. }, flaw: Flaw::OtherLog(_) }]));
    let mut verifier = log.verifier();
    let error = verifier.add_checkpoint("other", other.checkpoint(3).as_bytes()).unwrap_err();
    assert!(matches!(error, VerifyError::OtherLog { .. }));
}

#[test]
fn what_is_no_export_is_not_intact() {
    let log = Log::new(1);
    for text in ["", "\n", "{}\n", "intact", &"x".repeat(200_000)] {
        let report = log.verify(text.as_bytes());
        assert!(matches!(report.verdict, Verdict::Tampered { .. }), "{text:.20}");
    }
    let mut endless = log.export();
    endless.extend(std::iter::repeat_n(b"{\"sequence\":", 100_000).flatten());
    assert!(matches!(log.verify(&endless).verdict, Verdict::Tampered { .. }));
}

#[test]
fn bodies_with_everything_a_terminal_obeys_are_exported_and_shown_safely() {
    let mut log = Log::new(0);
    log.append_target("a\r\nb\x1b[2J\u{202e}\u{0}\"}\n{\"sequence\":0}");
    log.append_target(&"\u{1}".repeat(10_000));
    let export = log.export();
    assert_eq!(export.split(|b| *b == b'\n').count(), 5);
    assert_eq!(log.verify(&export).verdict, Verdict::Intact);
    let finding = Finding { place: Location::List { name: "\x1b[2J".to_owned() }, flaw: Flaw::OtherLog("\x1b[2J\n".to_owned()) };
    assert!(!finding.to_string().contains(|c: char| c.is_control()), "{finding}");
}

#[test]
fn more_keys_than_any_log_has_days_are_not_kept_in_memory() {
    let mut bodies = super::bodies::Bodies::default();
    let key = |n: u64| DayKeyId::from_bytes(u128::from(n).to_be_bytes());
    let missing = super::bodies::Body::Missing;
    assert!((0..65_536).all(|n| bodies.count(n, key(n), missing)));
    assert!(!(70_000..140_000).any(|n| bodies.count(n, key(n), missing)));
}
