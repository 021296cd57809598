//! Forgeries by somebody who can change the export, and who may have the signing key too.

use proptest::prelude::*;

use super::*;

fn findings(report: &Report) -> &[Finding] {
    let Verdict::Tampered { findings, .. } = &report.verdict else { panic!("{report}") };
    findings
}

/// Whether the place is the given line of an export of entries from `first` on, with `entries` of them.
fn is_line(place: &Location, line: u64, first: u64, entries: u64) -> bool {
    match place {
        Location::Line { line: found, .. } => *found == line,
        Location::Entry { sequence } => (2..2 + entries).contains(&line) && *sequence == first + line - 2,
        Location::Head => line == 2 + entries,
        _ => false,
    }
}

#[test]
fn one_flipped_bit_anywhere_in_an_export_is_found_where_it_is() {
    let mut log = Log::new(2);
    log.append_target("\"}");
    let mut log = log.rewritten(|_| ());
    let day = log.day;
    log.day = day.plus(1);
    log.now = day.expires_at();
    log.expire(day);
    log.grow(2);
    // entries 2 to 4: one that has expired, a retention, one that has not; entry 5 lies beyond
    let mut export = log.export_range(2..5, 6);
    let growth = log.growth(1, 6).line();
    let end = export.len() - 1 - export.iter().rev().skip(1).position(|b| *b == b'\n').unwrap();
    export.splice(end..end, growth);
    assert_eq!(log.verify(&export).verdict, Verdict::Expired(vec![day]));
    let mut line = 1;
    for at in 0..export.len() {
        for bit in 0..8 {
            let mut flipped = export.clone();
            flipped[at] ^= 1 << bit;
            let report = log.verify(&flipped);
            let place = &findings(&report)[0].place;
            assert!(is_line(place, line, 2, 3), "bit {bit} of byte {at}, line {line}: {report}");
        }
        line += u64::from(export[at] == b'\n');
    }
}

#[test]
fn an_export_that_is_cut_anywhere_is_found() {
    let log = Log::new(4);
    let export = log.export();
    for at in 0..export.len() {
        assert!(!findings(&log.verify(&export[..at])).is_empty());
    }
    let report = log.verify(&log.lines(0..4, 4, &log.verifier_key())[..3].concat());
    assert_eq!(findings(&report)[0], Finding { place: Location::Entries { from: 2, to: 4 }, flaw: Flaw::Missing });
    assert_eq!(findings(&report)[1].flaw, Flaw::Cut);
    let more = [export.as_slice(), b"\n"].concat();
    assert_eq!(findings(&log.verify(&more))[0].flaw, Flaw::Trailing);
}

#[test]
fn dropped_doubled_and_swapped_entries_are_named() {
    let log = Log::new(9);
    let lines = log.lines(0..9, 9, &log.verifier_key());
    for entry in 0..9_u64 {
        let at = usize::try_from(entry).unwrap() + 1;
        let mut dropped = lines.clone();
        dropped.remove(at);
        let report = log.verify(&dropped.concat());
        assert_eq!(findings(&report), [Finding { place: Location::Entries { from: entry, to: entry + 1 }, flaw: Flaw::Missing }]);
        let mut doubled = lines.clone();
        doubled.insert(at, lines[at].clone());
        let report = log.verify(&doubled.concat());
        assert!(matches!(findings(&report), [Finding { place: Location::Line { line, .. }, flaw: Flaw::Repeated }] if *line == entry + 3));
        for other in at + 1..=9 {
            let mut swapped = lines.clone();
            swapped.swap(at, other);
            let report = log.verify(&swapped.concat());
            let to = u64::try_from(other).unwrap() - 1;
            assert_eq!(findings(&report)[0], Finding { place: Location::Entries { from: entry, to }, flaw: Flaw::Missing });
        }
    }
}

/// Renumbered, so that every line stands where it says: now the tree says that they are others.
#[test]
fn entries_that_change_places_and_numbers_are_not_those_of_the_signed_root() {
    let log = Log::new(6);
    for (a, b) in [(0, 1), (2, 5), (0, 5)] {
        let forged = log.rewritten(|stored| {
            stored.swap(a, b);
            for (sequence, stored) in (0_u64..).zip(stored) {
                stored.leaf[2..10].copy_from_slice(&sequence.to_be_bytes());
            }
        });
        let mut lines = forged.lines(0..6, 6, &log.verifier_key());
        *lines.last_mut().unwrap() = log.lines(0..6, 6, &log.verifier_key()).pop().unwrap();
        let report = log.verify(&lines.concat());
        assert_eq!(findings(&report), [Finding { place: Location::Entries { from: 0, to: 6 }, flaw: Flaw::OtherRoot }]);
    }
}

#[test]
fn a_body_is_that_of_its_own_leaf() {
    let log = Log::new(4);
    let forged = log.rewritten(|stored| {
        let body = stored[1].opened.clone();
        stored[2].opened = body;
    });
    let report = log.verify(&forged.export());
    assert_eq!(findings(&report), [Finding { place: Location::Entry { sequence: 2 }, flaw: Flaw::Body }]);
}

#[test]
fn a_body_cannot_be_left_out() {
    let log = Log::new(4);
    let forged = log.rewritten(|stored| stored[2].opened = None);
    let report = log.verify(&forged.export());
    assert_eq!(findings(&report), [Finding { place: Location::Entries { from: 2, to: 3 }, flaw: Flaw::NoBody(1) }]);
}

/// The worst: the log's own key signs another history. Only what the auditor kept shows it.
#[test]
fn a_history_rewritten_with_the_right_key_is_found_against_every_earlier_checkpoint() {
    let log = Log::new(12);
    for changed in 0..12 {
        let forged = log.rewritten(|stored| {
            let mut other = Log::new(0);
            other.day = log.day;
            (0..changed).for_each(|_| other.append_target(""));
            other.append_target("nothing happened");
            stored[changed] = other.stored[changed].clone();
        });
        assert_eq!(forged.verify(&forged.export()).verdict, Verdict::Intact);
        for size in 0..=12 {
            let mut verifier = log.verifier();
            verifier.add_checkpoint("kept", log.checkpoint(size).as_bytes()).unwrap();
            let report = verifier.verify(forged.export().as_slice()).unwrap();
            if size <= changed.try_into().unwrap() {
                assert_eq!(report.verdict, Verdict::Intact);
                continue;
            }
            let root = log.head(size).root;
            let place = Location::Checkpoint { name: "kept".to_owned() };
            assert_eq!(findings(&report), [Finding { place, flaw: Flaw::Rewritten { size, root, from: 0 } }]);
        }
    }
}

#[test]
fn earlier_checkpoints_narrow_down_where_a_history_was_rewritten() {
    let log = Log::new(12);
    let forged = log.rewritten(|stored| stored[6].leaf[30] ^= 1);
    let mut verifier = log.verifier();
    for size in [2, 5, 8, 11] {
        verifier.add_checkpoint(&size.to_string(), log.checkpoint(size).as_bytes()).unwrap();
    }
    let report = verifier.verify(forged.export().as_slice()).unwrap();
    let rewritten: Vec<(String, u64)> = findings(&report)
        .iter()
        .filter_map(|finding| match (&finding.place, &finding.flaw) {
            (Location::Checkpoint { name }, Flaw::Rewritten { from, .. }) => Some((name.clone(), *from)),
            _ => None,
        })
        .collect();
    assert_eq!(rewritten, [("8".to_owned(), 5), ("11".to_owned(), 5)]);
}

#[derive(Debug, Clone)]
enum Attack {
    Swap(usize, usize),
    Drop(usize),
    Double(usize, usize),
    Take(usize),
    Flip(usize, usize),
    Cut(usize),
}

fn attack() -> impl Strategy<Value = Attack> {
    let at = 0_usize..40;
    prop_oneof![
        (at.clone(), at.clone()).prop_map(|(a, b)| Attack::Swap(a, b)),
        at.clone().prop_map(Attack::Drop),
        (at.clone(), at.clone()).prop_map(|(a, b)| Attack::Double(a, b)),
        at.clone().prop_map(Attack::Take),
        (at.clone(), any::<usize>()).prop_map(|(a, b)| Attack::Flip(a, b)),
        at.prop_map(Attack::Cut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever is done to the lines, and taken from another export of the same log: never intact, unless nothing came of it.
    #[test]
    fn no_mixture_of_lines_is_intact(attacks in proptest::collection::vec(attack(), 1..6), first in 0_u64..12, end in 0_u64..12) {
        let log = Log::new(12);
        let (first, end) = (first.min(end), first.max(end));
        let lines = log.lines(first..end, 12, &log.verifier_key());
        let forged = log.rewritten(|stored| stored.reverse());
        let others = [log.lines(0..9, 9, &log.verifier_key()), forged.lines(0..12, 12, &log.verifier_key())].concat();
        let mut attacked = lines.clone();
        for attack in attacks {
            let length = attacked.len().max(1);
            match attack {
                _ if attacked.is_empty() => (),
                Attack::Swap(a, b) => attacked.swap(a % length, b % length),
                Attack::Drop(at) => drop(attacked.remove(at % length)),
                Attack::Double(from, to) => attacked.insert(to % length, attacked[from % length].clone()),
                Attack::Take(at) => attacked[at % length].clone_from(&others[at % others.len()]),
                Attack::Flip(line, bit) => {
                    let bytes = attacked[line % length].len();
                    attacked[line % length][bit / 8 % bytes] ^= 1 << (bit % 8);
                }
                Attack::Cut(at) => attacked.truncate(at % length),
            }
        }
        let report = log.verify(&attacked.concat());
        let same = attacked.concat() == lines.concat();
        prop_assert_eq!(report.verdict == Verdict::Intact, same, "{}", report);
    }

    #[test]
    fn nothing_that_is_read_makes_the_verifier_panic(noise in proptest::collection::vec(any::<u8>(), 0..2000), at in any::<usize>()) {
        let log = Log::new(3);
        let mut export = log.export();
        let at = at % export.len();
        export.splice(at..at, noise.clone());
        prop_assert_eq!(log.verify(&export).verdict == Verdict::Intact, noise.is_empty());
        let mut verifier = log.verifier();
        verifier.add_checkpoint("noise", &noise).unwrap();
        verifier.add_list("noise", &noise).unwrap();
        let is_found = matches!(verifier.verify(noise.as_slice()).unwrap().verdict, Verdict::Tampered { .. });
        prop_assert!(is_found);
    }
}
