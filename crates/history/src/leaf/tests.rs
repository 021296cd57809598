use super::*;
use crate::merkle::sha256;
use crate::{Origin, SigningKey, TreeHead, VerifierKey};

fn entry() -> Leaf {
    let opening = DayMac::new(&[3; 32]).opening(7);
    Leaf::entry(7, DayKeyId::from_bytes([0xab; 16]), opening.commit(b"body"))
}

fn key() -> (SigningKey, VerifierKey, Origin) {
    let origin: Origin = "audit.tsujiban.dev/test/00112233445566778899aabbccddeeff".parse().unwrap();
    let key = SigningKey::from_seed(&[9; 32]).unwrap();
    let verifier = key.verifier(origin.to_string().parse().unwrap());
    (key, verifier, origin)
}

fn gap() -> UnsignedGap {
    UnsignedGap {
        agreed: 6,
        newest: TreeHead { size: 12, root: sha256(b"newest") },
        since: "2026-11-26T10:00:00.000000+09:00".parse().unwrap(),
        by: "staff-taro".to_owned(),
        reason: sha256(b"the disk broke"),
        damaged: Vec::new(),
        lists: Vec::new(),
    }
}

fn retention() -> Retention {
    Retention { day: "2026-11-26".parse().unwrap(), key: DayKeyId::from_bytes([1; 16]), first: 3, last: 9, count: 6 }
}

#[test]
fn an_entry_has_58_bytes_at_fixed_places() {
    let leaf = entry().encode();
    assert_eq!(leaf.len(), ENTRY_LENGTH);
    assert_eq!(leaf[..11], [1, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0xab]);
    // HMAC-SHA256 as Python's hmac computes it
    assert_eq!(hex::encode(&leaf[26..]), "66b124c851d22f774b59bdba7628458c74af092dae6521a6da9616ba4887377c");
    assert_eq!(Leaf::parse(&leaf).unwrap(), entry());
}

#[test]
fn a_commitment_is_to_one_body_under_one_opening() {
    let (mac, other) = (DayMac::new(&[3; 32]), DayMac::new(&[4; 32]));
    let commitment = mac.opening(7).commit(b"body");
    assert!(commitment.is_to(b"body", &mac.opening(7)));
    assert!(!commitment.is_to(b"bodx", &mac.opening(7)));
    assert!(!commitment.is_to(b"body", &mac.opening(8)));
    assert!(!commitment.is_to(b"body", &other.opening(7)));
    assert_eq!(Opening::from_base64(&mac.opening(7).to_base64()), Ok(mac.opening(7)));
    assert_eq!(format!("{:?} {:?}", mac.opening(7), mac), "Opening { .. } DayMac { .. }");
}

#[test]
fn gaps_and_retentions_are_read_as_they_are_written() {
    let (key, _, origin) = key();
    for content in [Content::Gap(gap().sign(&key, &origin, 7).unwrap()), Content::Retention(retention())] {
        let leaf = Leaf { sequence: 7, content };
        assert_eq!(Leaf::parse(&leaf.encode()).unwrap(), leaf);
    }
    let text = String::from_utf8(Leaf { sequence: 7, content: Content::Retention(retention()) }.encode()[10..].to_vec()).unwrap();
    assert_eq!(text, r#"{"day":"2026-11-26","key":"01010101010101010101010101010101","first":3,"last":9,"count":6}"#);
}

#[test]
fn a_leaf_has_one_encoding() {
    let (key, _, origin) = key();
    let leaves = [
        entry().encode(),
        Leaf { sequence: 1, content: Content::Gap(gap().sign(&key, &origin, 1).unwrap()) }.encode(),
        Leaf { sequence: 2, content: Content::Retention(retention()) }.encode(),
    ];
    for leaf in leaves {
        for at in 0..leaf.len() {
            assert!(Leaf::parse(&leaf[..at]).is_err());
            for bit in 0..8 {
                let mut flipped = leaf.clone();
                flipped[at] ^= 1 << bit;
                // what is read is written as it was read: never the same leaf from other bytes
                if let Ok(read) = Leaf::parse(&flipped) {
                    assert_eq!(read.encode(), flipped);
                }
            }
        }
        assert!(Leaf::parse(&[leaf.as_slice(), b" "].concat()).is_err());
    }
}

#[test]
fn a_gap_holds_for_its_place_in_its_log_alone() {
    let (key, verifier, origin) = key();
    let gap = gap().sign(&key, &origin, 7).unwrap();
    gap.verify(&verifier, &origin, 7).unwrap();
    let elsewhere: Origin = origin.to_string().replace("ff", "fe").parse().unwrap();
    assert!(gap.verify(&verifier, &origin, 8).is_err());
    assert!(gap.verify(&verifier, &elsewhere, 7).is_err());
    let other = SigningKey::from_seed(&[8; 32]).unwrap().verifier("test".parse().unwrap());
    assert!(gap.verify(&other, &origin, 7).is_err());
    let long = UnsignedGap { by: "x".repeat(MAX_RECORD), ..gap.unsigned.clone() };
    assert_eq!(long.sign(&key, &origin, 7), Err(InvalidLeaf::Record));
    let mut changed = gap;
    changed.unsigned.newest.size += 1;
    assert!(changed.verify(&verifier, &origin, 7).is_err());
}

#[test]
fn a_gap_names_damaged_entries_and_lost_lists() {
    let (key, verifier, origin) = key();
    let plain = gap().sign(&key, &origin, 6).unwrap();
    let bytes = Leaf { sequence: 6, content: Content::Gap(plain) }.encode();
    assert!(!String::from_utf8_lossy(&bytes).contains("damaged"), "gaps without them are written as before");
    let lists = vec![LostLists { first: 3, last: 5, was: ListLoss::Missing }, LostLists { first: 9, last: 9, was: ListLoss::Foreign }];
    let full = UnsignedGap { damaged: vec![Span { from: 1, to: 4 }], lists, ..gap() }.sign(&key, &origin, 6).unwrap();
    full.verify(&verifier, &origin, 6).unwrap();
    let leaf = Leaf { sequence: 6, content: Content::Gap(full) };
    assert_eq!(Leaf::parse(&leaf.encode()).unwrap(), leaf);
}
