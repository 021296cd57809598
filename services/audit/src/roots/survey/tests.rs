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

fn known(list: &RootList) -> ListRow {
    ListRow { number: list.number, hash: list.digest(), at: list.time.timestamp() }
}

fn lost(was: ListLoss, is_certain: bool) -> Lost {
    Lost { was, is_certain, why: String::new() }
}

/// What a database knows that put these lists.
fn noted(lists: &[RootList]) -> BTreeMap<u64, ListRow> {
    lists.iter().map(|list| (list.number, known(list))).collect()
}

fn good(lists: &[RootList]) -> Vec<Opened> {
    lists.iter().map(|list| (list.number, Ok(list.clone()))).collect()
}

#[test]
fn whole_lists_have_no_fault() {
    let lists = three();
    for known in [&lists[..0], &lists[..1], &lists] {
        let survey = judge(good(&lists), &noted(known));
        assert_eq!((survey.fault(), survey.lost.len(), survey.lists.len()), (None, 0, 3));
    }
    let empty = judge(Vec::new(), &BTreeMap::new());
    assert!(empty.fault().is_none() && empty.lists.is_empty());
}

#[test]
fn what_is_missing_damaged_or_foreign_is_told_apart() {
    use ListLoss::{Damaged, Foreign, Missing};
    let lists = three();
    let bad = |number, was| (number, Err(lost(was, true)));
    let [first, second, third] = [0, 1, 2].map(|n| good(&lists)[n].clone());
    for (opened, known, lost) in [
        (vec![first.clone(), second.clone()], &lists[..], vec![(3, Missing)]),
        (vec![], &lists[..], vec![(3, Missing)]),
        (vec![first.clone(), third.clone()], &lists[..], vec![(2, Missing)]),
        (vec![first.clone(), bad(2, Damaged), third.clone()], &[][..], vec![(2, Damaged)]),
        (vec![first.clone(), second.clone(), bad(3, Damaged)], &lists[..2], vec![(3, Foreign)]),
        (vec![first.clone(), second.clone(), third.clone(), bad(4, Damaged)], &lists[..], vec![(4, Foreign)]),
        (vec![first.clone(), second.clone(), third.clone(), bad(5000, Damaged)], &lists[..], vec![(5000, Foreign)]),
        (vec![first, second, third, bad(5000, Damaged)], &[][..], vec![(5000, Foreign)]),
    ] {
        let survey = judge(opened, &noted(known));
        assert_eq!(survey.lost.iter().map(|(number, was)| (*number, *was)).collect::<Vec<_>>(), lost);
        assert!(survey.fault().is_some());
    }
    let other = BTreeMap::from([(3, ListRow { hash: Hash::EMPTY, ..known(&lists[2]) })]);
    assert!(judge(good(&lists), &other).fault().unwrap().contains("another one"));
}

#[test]
fn what_a_signed_list_skips_is_no_fault() {
    let [first, second, _] = three();
    let on = RootList { number: 4, skipped: "3,5000".parse().unwrap(), ..list(4, Scope::Full, Some(&second)) };
    let bad = |number| (number, Err(lost(ListLoss::Damaged, true)));
    let opened = vec![(1, Ok(first)), (2, Ok(second)), bad(3), (4, Ok(on.clone())), bad(5000)];
    let survey = judge(opened, &noted(std::slice::from_ref(&on)));
    assert_eq!(survey.fault(), None, "{survey:?}");
    let survey = judge(vec![(4, Ok(on)), bad(5000), bad(5001)], &BTreeMap::new());
    assert_eq!(survey.lost_lists(), [LostLists { first: 5001, last: 5001, was: ListLoss::Foreign }]);
    assert_eq!(survey.skipped().to_string(), "3,5000-5001");
}

#[test]
fn a_damaged_list_that_this_database_knows_is_no_fault() {
    let lists = three();
    let [first, second, third] = [0, 1, 2].map(|n| good(&lists)[n].clone());
    let bad = |number| (number, Err(lost(ListLoss::Damaged, true)));
    for (opened, damaged) in [
        (vec![first.clone(), second.clone(), bad(3)], vec![3]),
        (vec![first.clone(), bad(2), third.clone()], vec![2]),
        (vec![first, bad(2), bad(3)], vec![2, 3]),
    ] {
        let survey = judge(opened, &noted(&lists));
        assert_eq!((survey.fault(), survey.lost.len()), (None, 0), "{survey:?}");
        assert!(damaged.iter().all(|number| survey.skipped().contains(*number)));
        assert_eq!(Vec::from_iter(survey.damaged), damaged);
    }
    // what the storage did not give may be intact
    let denied = (2, Err(lost(ListLoss::Damaged, false)));
    let survey = judge(vec![good(&lists)[0].clone(), denied, third.clone()], &noted(&lists));
    assert_eq!((survey.fault().as_deref(), survey.damaged.len()), (Some("root list 2 is damaged in the bucket"), 0));
    // where no list can be read, nothing says whose bucket this is
    let survey = judge(vec![bad(3)], &noted(&lists));
    assert_eq!(survey.fault().as_deref(), Some("no root list in the bucket that can be read names all logs"));
    let mut other = noted(&lists);
    other.insert(2, ListRow { hash: Hash::EMPTY, ..known(&lists[1]) });
    let survey = judge(vec![good(&lists)[0].clone(), bad(2), third], &other);
    assert!(survey.fault().unwrap().contains("names another one"), "the list after it says what the damaged one was");
}

#[test]
fn a_damaged_list_that_nobody_knows_is_not_needed_where_its_part_was_read() {
    let [first, second, third] = three();
    let fourth = list(4, Scope::Changed, Some(&third));
    let bad = |number| (number, Err(lost(ListLoss::Damaged, true)));
    let opened = |fourth: &RootList| vec![(1, Ok(first.clone())), bad(2), (3, Ok(third.clone())), (4, Ok(fourth.clone()))];
    let mut survey = judge(opened(&fourth), &BTreeMap::new());
    assert!(survey.lacks_lists());
    survey.bridge(&[1, 3].into());
    assert!(survey.fault().is_some(), "its part was not read");
    survey.bridge(&[1, 2, 3].into());
    assert_eq!((survey.fault(), survey.lacks_lists(), survey.skipped().to_string().as_str()), (None, false, "2"));
    // what follows later has to fit all the same
    let mut survey = judge(opened(&list(4, Scope::Changed, Some(&second))), &BTreeMap::new());
    survey.bridge(&[2].into());
    assert!(survey.fault().unwrap().contains("names another one"));
}
