//! What must hold for any data and any damage.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::as_conversions)] // the helpers of tests are tests too

use proptest::collection::vec;
use proptest::prelude::*;
use tsujiban_core::id::KeyId;
use tsujiban_sealing::{Context, DataKey, EpochKey, MasterKey, OVERHEAD, SealedEpochKey, SealingError, SystemRandom};

fn context<'a>(class: &'a str, record: &'a [u8]) -> Context<'a> {
    Context { class, record }
}

fn key_id(n: u8) -> KeyId {
    KeyId::from_bytes([n; 16])
}

fn epoch(master: &MasterKey) -> EpochKey {
    SealedEpochKey::generate(master, &SystemRandom::new(), "2026-11-23T00:00:00Z".parse().unwrap()).unwrap().open(master).unwrap()
}

proptest! {
    /// C22: what is sealed comes back whole under its own key and context, and under no other.
    #[test]
    fn sealed_data_opens_only_as_what_it_was(data in vec(any::<u8>(), 0..200), class in "[a-z]{0,5}", record in vec(any::<u8>(), 0..9), other in "[a-z]{6}") {
        let (random, key) = (SystemRandom::new(), DataKey::generate(&SystemRandom::new()).unwrap());
        let sealed = key.seal(context(&class, &record), &data, &random).unwrap();
        prop_assert_eq!(sealed.len() as u64, data.len() as u64 + OVERHEAD);
        prop_assert_eq!(&*key.open(context(&class, &record), &sealed).unwrap(), &data);
        prop_assert!(key.open(context(&other, &record), &sealed).is_err());
        prop_assert!(key.open(context(&class, other.as_bytes()), &sealed).is_err());
        prop_assert!(DataKey::generate(&random).unwrap().open(context(&class, &record), &sealed).is_err());
    }

    /// C22: any flipped bit and any cut is noticed.
    #[test]
    fn damage_is_noticed(data in vec(any::<u8>(), 0..40), at in any::<prop::sample::Index>(), bit in 0..8u8, cut in any::<prop::sample::Index>()) {
        let (random, key) = (SystemRandom::new(), DataKey::generate(&SystemRandom::new()).unwrap());
        let sealed = key.seal(context("c", b"r"), &data, &random).unwrap();
        let mut flipped = sealed.clone();
        flipped[at.index(sealed.len())] ^= 1 << bit;
        prop_assert_eq!(key.open(context("c", b"r"), &flipped).unwrap_err(), SealingError::NotOpened);
        prop_assert!(key.open(context("c", b"r"), &sealed[..cut.index(sealed.len())]).is_err());
    }

    #[test]
    fn no_byte_moves_between_class_and_record(class in "[a-z]{1,5}", record in vec(any::<u8>(), 0..9), data in vec(any::<u8>(), 0..9)) {
        let (random, key) = (SystemRandom::new(), DataKey::generate(&SystemRandom::new()).unwrap());
        let sealed = key.seal(context(&class, &record), &data, &random).unwrap();
        let (head, last) = class.split_at(class.len() - 1);
        let moved = [last.as_bytes(), &record].concat();
        prop_assert!(key.open(context(head, &moved), &sealed).is_err());
    }

    #[test]
    fn a_data_key_comes_back_from_its_wrapping(data in vec(any::<u8>(), 0..50), subject in "[a-z]{1,9}") {
        let (random, epoch) = (SystemRandom::new(), epoch(&MasterKey::generate(&SystemRandom::new()).unwrap()));
        let key = DataKey::generate(&random).unwrap();
        let wrapped = epoch.wrap(&key_id(1), &subject, &key, &random).unwrap();
        prop_assert_eq!(epoch.unwrap(&key_id(1), &subject, &wrapped).unwrap().mac("l", &data), key.mac("l", &data));
        prop_assert!(epoch.unwrap(&key_id(2), &subject, &wrapped).is_err());
        prop_assert!(epoch.unwrap(&key_id(1), "Other", &wrapped).is_err());
    }

    #[test]
    fn a_mac_depends_on_key_label_and_data_and_not_on_how_it_comes(data in vec(any::<u8>(), 1..50), at in any::<prop::sample::Index>()) {
        let key = DataKey::generate(&SystemRandom::new()).unwrap();
        let (a, b) = data.split_at(at.index(data.len()));
        prop_assert_eq!(key.mac_parts("l", [a, b]), key.mac("l", &data));
        prop_assert_ne!(key.mac("m", &data), key.mac("l", &data));
        prop_assert_ne!(key.mac("l", b""), key.mac("l", &data));
        prop_assert_ne!(DataKey::generate(&SystemRandom::new()).unwrap().mac("l", &data), key.mac("l", &data));
    }
}

#[test]
fn another_master_key_is_refused_by_its_id() {
    let (mine, other) = (MasterKey::from_bytes(&[1; 32]).unwrap(), MasterKey::from_bytes(&[2; 32]).unwrap());
    assert_ne!(mine.id(), other.id());
    let sealed = SealedEpochKey::generate(&mine, &SystemRandom::new(), "2026-11-23T00:00:00Z".parse().unwrap()).unwrap();
    let refused = sealed.open(&other).unwrap_err();
    assert_eq!(refused, SealingError::OtherMaster { epoch: sealed.id.clone(), wrapped_by: mine.id(), given: other.id() });
    // a forged id does not help
    assert_eq!(SealedEpochKey { master: other.id(), ..sealed.clone() }.open(&other).unwrap_err(), SealingError::NotOpened);
    // and an epoch key cannot be passed off as a newer one
    let later = "2027-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(SealedEpochKey { created: later, ..sealed }.open(&mine).unwrap_err(), SealingError::NotOpened);
}

#[test]
fn another_epoch_key_is_refused_by_its_id() {
    let master = MasterKey::generate(&SystemRandom::new()).unwrap();
    let (old, new) = (epoch(&master), epoch(&master));
    let wrapped = old.wrap(&key_id(1), "s", &DataKey::generate(&SystemRandom::new()).unwrap(), &SystemRandom::new()).unwrap();
    assert!(matches!(new.unwrap(&key_id(1), "s", &wrapped), Err(SealingError::OtherEpoch { .. })));
}

#[test]
fn an_epoch_key_survives_its_secret() {
    let master = MasterKey::generate(&SystemRandom::new()).unwrap();
    let sealed = SealedEpochKey::generate(&master, &SystemRandom::new(), "2026-11-23T01:02:03.000000004Z".parse().unwrap()).unwrap();
    let read: SealedEpochKey = serde_json::from_str(&serde_json::to_string(&sealed).unwrap()).unwrap();
    let text = sealed.open(&master).unwrap().seal(context("c", b"r"), b"text", &SystemRandom::new()).unwrap();
    assert_eq!(&**read.open(&MasterKey::from_bytes(master.expose()).unwrap()).unwrap().open(context("c", b"r"), &text).unwrap(), b"text");
}

/// The id is stored in buckets and databases: it must never change.
#[test]
fn the_id_of_a_master_key_stays() {
    assert_eq!(MasterKey::from_bytes(&[0; 32]).unwrap().id().as_str(), "1cc21f6930c1ca5d38a7d10187d8e6cf");
    assert_eq!(MasterKey::from_bytes(&[0; 31]).unwrap_err(), SealingError::KeyLength(31));
}

#[test]
fn nothing_of_a_key_is_printed() {
    let master = MasterKey::from_bytes(&[0xab; 32]).unwrap();
    let shown = format!("{master:?} {:?} {:?}", epoch(&master), DataKey::generate(&SystemRandom::new()).unwrap());
    assert!(!shown.contains("171, 171") && !shown.contains("abab"), "{shown}");
}
