//! Days that have expired, and days that were removed without having expired.

use super::*;
use crate::leaf::{Content, Retention};
use crate::roots::Scope;
use crate::{Day, JstTime};
use log::key_of;

fn flaw(report: &Report) -> (&Location, &Flaw) {
    let Verdict::Tampered { findings, .. } = &report.verdict else { panic!("{report}") };
    (&findings[0].place, &findings[0].flaw)
}

/// Three days with four entries each; the first one expires as the fourth year's second day begins.
fn three_days() -> (Log, [Day; 3]) {
    let mut log = Log::new(0);
    let days = [0, 1, 2].map(|n| log.day.plus(n));
    for day in days {
        log.day = day;
        log.grow(4);
    }
    log.now = days[0].expires_at();
    log.day = Day::of(log.now);
    (log, days)
}

#[test]
fn days_that_are_gone_as_they_have_to_be_are_named() {
    let (mut log, days) = three_days();
    log.expire(days[0]);
    let report = log.verify(&log.export());
    assert_eq!((report.entries, report.bodies), (13, 8));
    assert_eq!(report.verdict, Verdict::Expired(vec![days[0]]));
    assert_eq!(report.to_string(), "lawfully expired: 2026-11-26");
    log.now = days[1].expires_at();
    log.expire(days[1]);
    assert_eq!(log.verify(&log.export()).verdict, Verdict::Expired(vec![days[0], days[1]]));
}

#[test]
fn the_retention_of_a_part_stands_outside_of_it() {
    let (mut log, days) = three_days();
    log.expire(days[0]);
    log.grow(3);
    for (range, gone) in [(0..4, true), (1..3, true), (3..5, true), (4..9, false), (2..13, true), (13..16, false)] {
        let verdict = log.verify(&log.export_range(range.clone(), 16)).verdict;
        let wanted = if gone { Verdict::Expired(vec![days[0]]) } else { Verdict::Intact };
        assert_eq!(verdict, wanted, "{range:?}");
    }
    // left out, or one that is not in the log
    let mut lines = log.lines(0..4, 16, &log.verifier_key());
    let retention = lines.remove(5);
    assert!(matches!(flaw(&log.verify(&lines.concat())), (Location::Entries { from: 0, to: 4 }, Flaw::NoBody(4))));
    let (mut forged, _) = three_days();
    forged.expire(days[0]);
    forged.grow(3);
    forged.append_target("other");
    let mut lines = log.lines(0..4, 16, &log.verifier_key());
    lines[5] = forged.lines(0..4, 17, &log.verifier_key()).remove(5);
    assert!(matches!(flaw(&log.verify(&lines.concat())), (Location::Entry { sequence: 12 }, Flaw::OtherRoot | Flaw::Proof(_))));
    assert!(!retention.is_empty());
}

/// C5: through the end of D+365 the day has to be there.
#[test]
fn a_day_that_goes_a_moment_too_early_is_tampered_with() {
    let (mut log, days) = three_days();
    log.expire(days[0]);
    log.now = days[0].expires_at() - jiff::SignedDuration::from_nanos(1);
    assert_eq!(flaw(&log.verify(&log.export())), (&Location::Entry { sequence: 12 }, &Flaw::TooEarly(days[0])));
}

#[test]
fn a_day_that_is_gone_without_a_word_is_tampered_with() {
    let (mut log, days) = three_days();
    log.forget(days[0]);
    log.now = days[2].expires_at();
    assert_eq!(flaw(&log.verify(&log.export())), (&Location::Entries { from: 0, to: 4 }, &Flaw::NoBody(4)));
}

#[test]
fn a_retention_speaks_of_its_own_key_and_counts_right() {
    let (log, days) = three_days();
    let right = Retention { day: days[0], key: key_of(days[0]), first: 0, last: 3, count: 4 };
    let wrong = |retention: Retention| {
        let mut log = log.restored(12);
        log.append_record(Content::Retention(retention));
        log.forget(days[0]);
        let report = log.verify(&log.export());
        flaw(&report).1.clone()
    };
    assert!(matches!(wrong(Retention { first: 1, ..right.clone() }), Flaw::OtherCount { .. }));
    assert!(matches!(wrong(Retention { last: 2, ..right.clone() }), Flaw::OtherCount { .. }));
    assert!(matches!(wrong(Retention { last: 4, ..right.clone() }), Flaw::OtherCount { .. }));
    assert!(matches!(wrong(Retention { last: 12, ..right.clone() }), Flaw::OtherCount { .. }));
    assert!(matches!(wrong(Retention { count: 3, ..right.clone() }), Flaw::OtherCount { .. }));
    assert!(matches!(wrong(Retention { count: 5, ..right.clone() }), Flaw::OtherCount { .. }));
    assert!(matches!(wrong(Retention { first: 3, last: 0, ..right.clone() }), Flaw::OtherCount { .. }));
    assert!(matches!(wrong(Retention { key: key_of(log.day), ..right }), Flaw::OtherCount { .. }));
}

/// What is dangerous: today's entries, declared to be of a day long ago. The lists say when they came.
/// Also without any list: what stands before them is younger than they are said to be.
#[test]
fn entries_of_today_cannot_be_declared_old_behind_those_of_yesterday() {
    let (mut log, days) = three_days();
    let fresh = log.day;
    log.grow(2);
    log.append_record(Content::Retention(Retention { day: days[0], key: key_of(fresh), first: 12, last: 13, count: 2 }));
    log.forget(fresh);
    let after = JstTime::new(days[2].starts());
    assert_eq!(flaw(&log.verify(&log.export())), (&Location::Entry { sequence: 14 }, &Flaw::Younger { day: days[0], after }));
    // clocks may be apart by some minutes around midnight
    let mut log = Log::new(0);
    let day = log.day;
    log.append_at(day.plus(1).starts() + jiff::SignedDuration::from_mins(9));
    log.day = day.plus(1);
    log.grow(1);
    log.append_record(Content::Retention(Retention { day, key: key_of(day.plus(1)), first: 1, last: 1, count: 1 }));
    log.forget(day.plus(1));
    log.now = day.expires_at();
    assert_eq!(log.verify(&log.export()).verdict, Verdict::Expired(vec![day]));
}

#[test]
fn entries_of_today_cannot_be_declared_old_against_the_lists() {
    let days = three_days().1;
    let mut log = Log::new(14);
    log.now = days[0].expires_at();
    log.day = Day::of(log.now);
    let before = log.list(None, days[0].plus(3).starts() - jiff::SignedDuration::from_mins(1), Scope::Full);
    let mut verifier = log.verifier();
    verifier.add_list("1", log.signed(&before).as_bytes()).unwrap();
    // the two entries after the list are of the newest day, whatever the retention says
    log.grow(2);
    let fresh = log.day;
    log.append_record(Content::Retention(Retention { day: days[0], key: key_of(fresh), first: 14, last: 15, count: 2 }));
    log.forget(fresh);
    assert_eq!(log.verify(&log.export()).verdict, Verdict::Expired(vec![days[0]]));
    let report = verifier.verify(log.export().as_slice()).unwrap();
    assert_eq!(flaw(&report), (&Location::Entry { sequence: 16 }, &Flaw::OtherDay { day: days[0], list: 1 }));
}

#[test]
fn entries_that_were_there_before_their_day_are_of_another() {
    let (mut log, days) = three_days();
    let early = log.list(None, days[0].starts() - jiff::SignedDuration::from_hours(1), Scope::Full);
    let mut verifier = log.verifier();
    verifier.add_list("1", log.signed(&early).as_bytes()).unwrap();
    log.expire(days[0]);
    let report = verifier.verify(log.export().as_slice()).unwrap();
    assert_eq!(flaw(&report), (&Location::Entry { sequence: 12 }, &Flaw::OtherDay { day: days[0], list: 1 }));
}

#[test]
fn a_retention_that_a_list_shows_too_early_was_written_too_early() {
    let (mut log, days) = three_days();
    log.expire(days[0]);
    let early = log.list(None, days[0].expires_at() - jiff::SignedDuration::from_hours(1), Scope::Full);
    let mut verifier = log.verifier();
    verifier.add_list("1", log.signed(&early).as_bytes()).unwrap();
    let report = verifier.verify(log.export().as_slice()).unwrap();
    assert_eq!(flaw(&report), (&Location::Entry { sequence: 12 }, &Flaw::TooEarly(days[0])));
}

#[test]
fn lists_of_the_right_times_agree_with_days_that_are_gone() {
    let (mut log, days) = three_days();
    let mut lists = Vec::new();
    let mut small = log.restored(0);
    for (day, size) in days.into_iter().zip([4, 8, 12]) {
        small = log.restored(size).rewritten(|_| ());
        lists.push(small.list(lists.last(), day.plus(1).starts(), Scope::Full));
    }
    assert_eq!(small.size(), 12);
    log.expire(days[0]);
    let time = JstTime::new(log.now + jiff::SignedDuration::from_mins(1));
    lists.push(log.list(lists.last(), time.timestamp(), Scope::Changed));
    let mut verifier = log.verifier();
    for list in &lists {
        verifier.add_list("list", log.signed(list).as_bytes()).unwrap();
    }
    assert_eq!(verifier.verify(log.export().as_slice()).unwrap().verdict, Verdict::Expired(vec![days[0]]));
}

#[test]
fn what_is_no_operation_has_no_body() {
    let (mut log, days) = three_days();
    log.expire(days[0]);
    let forged = log.rewritten(|stored| stored[12].opened = stored[11].opened.clone());
    assert_eq!(flaw(&log.verify(&forged.export())), (&Location::Entry { sequence: 12 }, &Flaw::NoOperation));
}
