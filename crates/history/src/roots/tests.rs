use super::*;

const TEXT: &str = "audit.tsujiban.dev/test/roots\n2\n2026-11-26T10:00:00.000000+09:00\nchanged\n\
    47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\
    00112233445566778899aabbccddeeff 3 CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\
    ffeeddccbbaa99887766554433221100 12 CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

fn key() -> SigningKey {
    SigningKey::from_seed(&[5; 32]).unwrap()
}

fn environment() -> EnvironmentOrigin {
    "audit.tsujiban.dev/test".parse().unwrap()
}

fn verifier() -> VerifierKey {
    key().verifier("audit.tsujiban.dev/test".parse().unwrap())
}

#[test]
fn a_list_is_read_as_it_is_written() {
    let list = RootList::parse(TEXT).unwrap();
    assert_eq!((list.text().as_str(), list.number, list.scope, list.roots.len()), (TEXT, 2, Scope::Changed, 2));
    assert_eq!(list.digest(), sha256(TEXT.as_bytes()));
    let signed = list.sign(&key()).unwrap();
    assert_eq!(RootList::open(signed.as_bytes(), &verifier(), &environment()), Ok(list));
    assert_eq!(RootList::object_name(7), "roots/000000000007");
    assert!(RootList::open(signed.as_bytes(), &verifier(), &"audit.tsujiban.dev/production".parse().unwrap()).is_err());
    assert!(RootList::open(signed.as_bytes(), &verifier(), &"audit.example.co.jp/test".parse().unwrap()).is_err());
    let other = SigningKey::from_seed(&[6; 32]).unwrap().verifier("audit.tsujiban.dev/test".parse().unwrap());
    assert!(matches!(RootList::open(signed.as_bytes(), &other, &environment()), Err(RootListError::Note(_))));
}

#[test]
fn only_what_is_written_is_read() {
    let (first, second) = TEXT.split_once("00112233").unwrap();
    let lines: Vec<&str> = TEXT.lines().collect();
    for bad in [
        "",
        TEXT.trim_end(),
        &TEXT.replace("\n2\n", "\n02\n"),
        &TEXT.replace("\n2\n", "\n0\n"),
        // the first list follows nothing
        &TEXT.replace("\n2\n", "\n1\n").replace("47DEQpj8", "47DEQpj9"),
        &TEXT.replace("10:00:00.000000", "10:00:00"),
        &TEXT.replace("+09:00", "Z"),
        &TEXT.replace("changed", "partial"),
        &TEXT.replace(" 3 ", " 0 "),
        &TEXT.replace(" 3 ", " 03 "),
        &TEXT.replace(" 3 ", "  3 "),
        &TEXT.replace("ffeedd", "FFEEDD"),
        &TEXT.replace("ffeeddccbbaa99887766554433221100", "00112233445566778899aabbccddeeff"),
        &TEXT.replace("ffeeddccbbaa99887766554433221100", "00002233445566778899aabbccddeeff"),
        &format!("{TEXT}\n"),
        &format!("{first}\n00112233{second}"),
        &lines[..4].join("\n"),
    ] {
        assert_eq!(RootList::parse(bad), None, "{bad}");
    }
    assert!(RootList::parse(&TEXT.replace("\n2\n", "\n1\n")).is_some());
    assert!(RootList::parse(first).is_some());
}

#[test]
fn a_list_that_could_not_be_read_is_not_signed() {
    let mut list = RootList::parse(TEXT).unwrap();
    list.number = 0;
    assert_eq!(list.sign(&key()), Err(RootListError::Malformed));
}

#[test]
fn a_chain_goes_from_list_to_list() {
    let first = RootList { number: 1, previous: Hash::EMPTY, ..RootList::parse(TEXT).unwrap() };
    let second = RootList { number: 2, previous: first.digest(), ..first.clone() };
    let third = RootList { number: 3, previous: second.digest(), ..first.clone() };
    let mut chain = Chain::new();
    assert_eq!(chain.next(), None);
    for list in [&first, &second, &third] {
        chain.follow(list).unwrap();
    }
    assert_eq!(chain.next(), Some(4));
    assert_eq!(Chain::after(&first).follow(&third), Err(BrokenChain::Number { last: 1, found: 3 }));
    let forged = RootList { scope: Scope::Full, ..second };
    let mut chain = Chain::after(&first);
    chain.follow(&forged).unwrap();
    // the forged list is found out by the one that follows
    assert_eq!(chain.follow(&third), Err(BrokenChain::Previous { before: 2 }));
}

#[test]
fn a_full_list_may_skip_numbers() {
    let text = TEXT.replace("\n2\n", "\n8\n").replace("changed", "full").replace("SuFU=\n", "SuFU=\nskipped 6-7,5000\n");
    let list = RootList::parse(&text).unwrap();
    assert_eq!((list.text(), list.skipped.to_string().as_str()), (text.clone(), "6-7,5000"));
    for bad in [text.replace("full", "changed"), text.replace("6-7", "6-8"), text.replace("6-7,5000", ""), text.replace("6-7", "7-6")] {
        assert_eq!(RootList::parse(&bad), None, "{bad}");
    }
}

#[test]
fn a_list_that_skips_others_follows_the_newest_one_that_it_does_not_skip() {
    let first = RootList { number: 1, previous: Hash::EMPTY, scope: Scope::Full, ..RootList::parse(TEXT).unwrap() };
    let lost = RootList { number: 2, previous: first.digest(), ..first.clone() };
    let on = RootList { number: 4, previous: first.digest(), skipped: "2-3,5".parse().unwrap(), ..first.clone() };
    let next = RootList { number: 6, previous: on.digest(), skipped: Skipped::default(), ..first.clone() };
    // with the list that was lost, and without it
    for lists in [vec![&first, &on, &next], vec![&first, &lost, &on, &next]] {
        let mut chain = Chain::new();
        for list in lists {
            chain.follow(list).unwrap();
        }
        assert!(chain.skips(5) && chain.next() == Some(7));
    }
    let mut chain = Chain::after(&first);
    let unlawful = RootList { skipped: Skipped::default(), ..on.clone() };
    assert_eq!(chain.follow(&unlawful), Err(BrokenChain::Number { last: 1, found: 4 }));
    let other = RootList { previous: Hash::EMPTY, ..on };
    assert_eq!(Chain::after(&first).follow(&other), Err(BrokenChain::Previous { before: 1 }));
}
