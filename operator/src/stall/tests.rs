use super::*;

const KIND: &str = "Device";

/// A minute in the life of a leader, second by second: what happens in each, and when it was first said that something stands still.
fn first_said(watchdog: &Watchdog, start: Instant, seconds: u64, mut each: impl FnMut(u64, Instant)) -> Option<u64> {
    (0..seconds).find(|second| {
        let now = start + Duration::from_secs(*second);
        each(*second, now);
        !watchdog.reasons(now).is_empty()
    })
}

fn behind(object: &str, generation: i64) -> Behind {
    Behind { object: object.to_owned(), generation }
}

fn leading() -> (Watchdog, Instant) {
    let (watchdog, start) = (Watchdog::default(), Instant::now());
    watchdog.lead(&[KIND], start);
    (watchdog, start)
}

/// The look at every fifth second, and a watch that is answered.
fn look(watchdog: &Watchdog, second: u64, now: Instant, list: &[Behind]) {
    if second.is_multiple_of(LOOK.as_secs()) {
        watchdog.check(KIND, Some(list.to_vec()), |_| true, now);
    }
    if second.is_multiple_of(30) {
        watchdog.observe(KIND, now);
    }
}

#[test]
fn a_quiet_leader_and_one_that_waits_are_well() {
    let (watchdog, start) = leading();
    assert_eq!(first_said(&watchdog, start, 3600, |second, now| look(&watchdog, second, now, &[])), None);
    let waiting = Watchdog::default();
    assert_eq!(first_said(&waiting, start, 3600, |_, now| waiting.begun(KIND, "a/b", now)), None);
    assert_eq!(waiting.ages(start).len(), 0);
}

#[test]
fn a_change_that_nobody_works_off_is_said_within_a_minute() {
    let (watchdog, start) = leading();
    // it fails and fails, each time changed anew
    let said = first_said(&watchdog, start, 200, |second, now| {
        let list = [behind("a/b", i64::try_from(second).unwrap())];
        look(&watchdog, second, now, if second < 61 { &[] } else { &list });
        watchdog.begun(KIND, "a/b", now);
        watchdog.ended(KIND, "a/b", if second < 61 { End::Well } else { End::Failed }, now);
    });
    assert!(said.is_some_and(|said| (106..=121).contains(&said)), "{said:?}");
    let now = start + Duration::from_secs(said.unwrap());
    assert!(watchdog.ages(now).iter().any(|(kind, lag, _)| *kind == KIND && *lag >= STALLED));
    watchdog.check(KIND, Some(Vec::new()), |_| true, now);
    assert_eq!(watchdog.reasons(now), Vec::<String>::new(), "it has recovered");
}

#[test]
fn ten_thousand_changes_that_are_worked_off_are_no_alarm() {
    let (watchdog, start) = leading();
    let mut waiting: Vec<Behind> = (0..10_000).map(|n| behind(&format!("tn-acme/r{n}"), 1)).collect();
    let said = first_said(&watchdog, start, 400, |second, now| {
        look(&watchdog, second, now, &waiting);
        for done in waiting.drain(..waiting.len().min(25)) {
            watchdog.begun(KIND, &done.object, now);
            watchdog.ended(KIND, &done.object, End::Well, now);
        }
    });
    assert_eq!(said, None);
    assert!(waiting.is_empty());
}

#[test]
fn a_reconcile_that_does_not_end_is_said_also_when_it_is_given_up_and_tried_again() {
    let (watchdog, start) = leading();
    let said = first_said(&watchdog, start, 400, |second, now| {
        look(&watchdog, second, now, &[]);
        watchdog.begun(KIND, "a/other", now);
        watchdog.ended(KIND, "a/other", End::Well, now);
        match second % 30 {
            10 => watchdog.begun(KIND, "a/b", now),
            20 => watchdog.ended(KIND, "a/b", End::GivenUp, now),
            _ => {}
        }
    });
    assert_eq!(said, Some(55));
    let later = start + Duration::from_secs(56);
    assert!(watchdog.reasons(later)[0].contains("the reconcile of a/b has not ended for 46 s"), "{:?}", watchdog.reasons(later));
    watchdog.ended(KIND, "a/b", End::Failed, later);
    assert_eq!(watchdog.reasons(later), Vec::<String>::new());

    watchdog.begun(KIND, "a/gone", start);
    watchdog.check(KIND, Some(Vec::new()), |object| object != "a/gone", later);
    assert_eq!(watchdog.reasons(later), Vec::<String>::new(), "who is gone is not waited for");
}

#[test]
fn a_watch_that_is_not_answered_a_list_that_does_not_end_and_a_process_that_does_not_run() {
    let (watchdog, start) = leading();
    let said = first_said(&watchdog, start, 400, |second, now| look(&watchdog, if second == 0 { 0 } else { second | 1 }, now, &[]));
    assert_eq!(said, Some(45), "nobody looked");
    let (watchdog, start) = leading();
    let said = first_said(&watchdog, start, 400, |_, now| watchdog.check(KIND, Some(Vec::new()), |_| true, now));
    assert_eq!(said, Some(45), "no watch");
    let (watchdog, start) = leading();
    let said = first_said(&watchdog, start, 400, |_, now| {
        watchdog.observe(KIND, now);
        watchdog.check(KIND, None, |_| true, now);
    });
    assert_eq!(said, Some(45), "no list");
}

#[test]
fn a_restart_comes_later_and_not_for_one_object_among_many() {
    let run = |others_do_well: bool| {
        let (watchdog, start) = leading();
        watchdog.begun(KIND, "a/b", start);
        (0..1200).find(|second| {
            let now = start + Duration::from_secs(*second);
            look(&watchdog, *second, now, &[]);
            if others_do_well {
                watchdog.ended(KIND, "a/other", End::Well, now);
            }
            watchdog.liveness_failed(now)
        })
    };
    assert_eq!(run(true), None);
    assert_eq!(run(false), Some(645));
}
