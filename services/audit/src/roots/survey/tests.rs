use jiff::Timestamp;
use tsujiban_history::JstTime;
use tsujiban_history::merkle::Hash;

use super::*;

fn list(number: u64, scope: Scope, before: Option<&RootList>) -> RootList {
    RootList {
        environment: "audit.tsujiban.dev/test".parse().unwrap(),
        number,
        time: JstTime::new(Timestamp::UNIX_EPOCH),
        scope,
        previous: before.map_or(Hash::EMPTY, RootList::digest),
        skipped: Skipped::default(),
        roots: BTreeMap::new(),
    }
}

/// Lists 1 (full), 2 and 3.
fn three() -> [RootList; 3] {
    let first = list(1, Scope::Full, None);
    let second = list(2, Scope::Changed, Some(&first));
    let third = list(3, Scope::Changed, Some(&second));
    [first, second, third]
}

fn known(list: &RootList) -> Known {
    Known { number: list.number, hash: list.digest(), at: list.time.timestamp() }
}

fn good(lists: &[RootList]) -> Vec<Opened> {
    lists.iter().map(|list| (list.number, Ok(list.clone()))).collect()
}

#[test]
fn whole_lists_have_no_fault() {
    let lists = three();
    for known in [None, Some(known(&lists[0])), Some(known(&lists[2]))] {
        let survey = judge(good(&lists), known.as_ref());
        assert_eq!((survey.fault, survey.lost.len(), survey.lists.len()), (None, 0, 3));
    }
    let empty = judge(Vec::new(), None);
    assert!(empty.fault.is_none() && empty.lists.is_empty());
}

#[test]
fn what_is_missing_damaged_or_foreign_is_told_apart() {
    use ListLoss::{Damaged, Foreign, Missing};
    let lists = three();
    let newest = known(&lists[2]);
    let bad = |number, was| (number, Err(was));
    let [first, second, third] = [0, 1, 2].map(|n| good(&lists)[n].clone());
    for (opened, known, lost) in [
        (vec![first.clone(), second.clone()], Some(&newest), vec![(3, Missing)]),
        (vec![], Some(&newest), vec![(3, Missing)]),
        (vec![first.clone(), third.clone()], Some(&newest), vec![(2, Missing)]),
        (vec![first.clone(), bad(2, Damaged), third.clone()], None, vec![(2, Damaged)]),
        (vec![first.clone(), second.clone(), bad(3, Damaged)], Some(&newest), vec![(3, Damaged)]),
        (vec![first.clone(), second.clone(), third.clone(), bad(4, Damaged)], Some(&newest), vec![(4, Foreign)]),
        (vec![first.clone(), second.clone(), third.clone(), bad(5000, Damaged)], Some(&newest), vec![(5000, Foreign)]),
        (vec![first, second, third, bad(5000, Damaged)], None, vec![(5000, Foreign)]),
    ] {
        let survey = judge(opened, known);
        assert_eq!(survey.lost.iter().map(|(number, was)| (*number, *was)).collect::<Vec<_>>(), lost);
        assert!(survey.fault.is_some());
    }
    let other = Known { hash: Hash::EMPTY, ..newest };
    assert!(judge(good(&lists), Some(&other)).fault.unwrap().contains("another one"));
}

#[test]
fn what_a_signed_list_skips_is_no_fault() {
    let [first, second, _] = three();
    let on = RootList { number: 4, skipped: "3,5000".parse().unwrap(), ..list(4, Scope::Full, Some(&second)) };
    let bad = |number| (number, Err(ListLoss::Damaged));
    let opened = vec![(1, Ok(first)), (2, Ok(second)), bad(3), (4, Ok(on.clone())), bad(5000)];
    let survey = judge(opened, Some(&known(&on)));
    assert_eq!(survey.fault, None, "{survey:?}");
    let survey = judge(vec![(4, Ok(on)), bad(5000), bad(5001)], None);
    assert_eq!(survey.lost_lists(), [LostLists { first: 5001, last: 5001, was: ListLoss::Foreign }]);
    assert_eq!(survey.skipped().to_string(), "3,5000-5001");
}
