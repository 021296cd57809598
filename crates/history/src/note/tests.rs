use super::*;

/// The example of C2SP signed-note's first implementation, golang.org/x/mod/sumdb/note.
const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const PETERS_SEED: &str = "810a1402d5146c8d84f2443330f54080ebf98ee17d9c74f6252fc5d5c7283173";
const TEXT: &str = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
const BY_PETER: &str = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
const BY_ENOCH: &str = "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n";

fn peter() -> VerifierKey {
    PETER.parse().unwrap()
}

fn enoch() -> SigningKey {
    SigningKey::from_seed(&[0; 32]).unwrap()
}

fn enochs_name() -> KeyName {
    "EnochRoot".parse().unwrap()
}

#[test]
fn the_published_notes_are_opened_and_made() {
    assert_eq!(open(format!("{TEXT}\n{BY_PETER}").as_bytes(), &peter()).unwrap(), TEXT);
    let both = format!("{TEXT}\n{BY_PETER}{BY_ENOCH}");
    assert_eq!(open(both.as_bytes(), &peter()).unwrap(), TEXT);
    assert_eq!(open(both.as_bytes(), &enoch().verifier(enochs_name())).unwrap(), TEXT);
    assert_eq!(sign(TEXT, &enoch(), &enochs_name()).unwrap(), format!("{TEXT}\n{BY_ENOCH}"));
    let seed: [u8; 32] = hex::decode(PETERS_SEED).unwrap().try_into().unwrap();
    let peters = SigningKey::from_seed(&seed).unwrap();
    assert_eq!(peters.verifier("PeterNeumann".parse().unwrap()), peter());
    assert_eq!(sign(TEXT, &peters, &"PeterNeumann".parse().unwrap()).unwrap(), format!("{TEXT}\n{BY_PETER}"));
}

#[test]
fn a_verifier_key_has_one_text() {
    assert_eq!(peter().to_string(), PETER);
    for at in 0..PETER.len() {
        for bit in 0..8 {
            let mut text = PETER.as_bytes().to_vec();
            text[at] ^= 1 << bit;
            if let Ok(text) = String::from_utf8(text) {
                assert!(text.parse::<VerifierKey>().is_err(), "{text}");
            }
        }
        assert!(PETER[..at].parse::<VerifierKey>().is_err());
    }
    // another type of signature, a longer key; both with the right id
    for other in [
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ] {
        assert!(other.parse::<VerifierKey>().is_err());
    }
}

#[test]
fn one_flipped_bit_anywhere_closes_a_note() {
    let note = format!("{TEXT}\n{BY_PETER}").into_bytes();
    for at in 0..note.len() {
        for bit in 0..8 {
            let mut flipped = note.clone();
            flipped[at] ^= 1 << bit;
            assert!(open(&flipped, &peter()).is_err(), "bit {bit} of byte {at}");
        }
        assert!(open(&note[..at], &peter()).is_err(), "cut at {at}");
    }
}

#[test]
fn a_note_is_text_an_empty_line_and_signatures() {
    let refused = |note: &str| open(note.as_bytes(), &peter()).unwrap_err();
    assert_eq!(refused(""), NoteError::Malformed);
    assert_eq!(refused(&format!("{TEXT}{BY_PETER}")), NoteError::Malformed);
    assert_eq!(refused(&format!("{TEXT}\n\n{BY_PETER}")), NoteError::BadSignature("PeterNeumann".to_owned()));
    assert_eq!(refused(&format!("{TEXT}\n{BY_PETER}\n")), NoteError::Malformed);
    assert_eq!(refused(&format!("{TEXT}\n{}", BY_PETER.trim_end())), NoteError::Malformed);
    assert_eq!(refused(&format!("{TEXT}\n{}", BY_PETER.replace('—', "-"))), NoteError::Malformed);
    assert_eq!(refused(&format!("{TEXT}\n{}", BY_PETER.replace("— ", "—  "))), NoteError::Malformed);
    assert_eq!(refused(&format!("{TEXT}\n{}", BY_PETER.replace('\n', "\r\n"))), NoteError::Malformed);
    assert_eq!(refused(&format!("{TEXT}\t\n\n{BY_PETER}")), NoteError::Malformed);
    assert_eq!(refused(&format!("{TEXT}\n{BY_PETER}— a b AAAA\n")), NoteError::Malformed);
    assert_eq!(refused(&format!("{TEXT}\n{BY_PETER}— a AAAAAA==\n")), NoteError::Malformed);
    // known by name only, or by id only: passed over
    let renamed = BY_PETER.replace("PeterNeumann", "PeterNewmann");
    assert_eq!(refused(&format!("{TEXT}\n{renamed}{BY_ENOCH}")), NoteError::NotSigned("PeterNeumann".to_owned()));
    assert_eq!(open(format!("{TEXT}\n{renamed}{BY_PETER}").as_bytes(), &peter()).unwrap(), TEXT);
    // an empty line within the text is text
    let text = "one\n\ntwo\n";
    let note = sign(text, &enoch(), &enochs_name()).unwrap();
    assert_eq!(open(note.as_bytes(), &enoch().verifier(enochs_name())).unwrap(), text);
}

#[test]
fn a_wrong_signature_of_the_known_key_closes_a_note_beside_a_right_one() {
    let wrong = BY_PETER.replace("x08go/ZJ", "x08go/ZK");
    let note = format!("{TEXT}\n{BY_PETER}{wrong}");
    assert_eq!(open(note.as_bytes(), &peter()), Err(NoteError::BadSignature("PeterNeumann".to_owned())));
}

#[test]
fn many_signatures_are_read_and_too_many_refused() {
    let note = |count| format!("{TEXT}\n{}{BY_PETER}", BY_ENOCH.repeat(count));
    assert!(open(note(16).as_bytes(), &peter()).is_ok());
    assert_eq!(open(note(MAX_SIGNATURES).as_bytes(), &peter()), Err(NoteError::TooLong));
}

#[test]
fn what_is_no_text_is_not_signed() {
    for text in ["", "no newline", "tab\t\n", "escape \x1b[2J\n"] {
        assert_eq!(sign(text, &enoch(), &enochs_name()), Err(NoteError::Malformed));
    }
    for name in ["", "a b", "a+b", "a\u{3000}b", "a\u{a0}b", "a\nb"] {
        assert!(name.parse::<KeyName>().is_err(), "{name:?}");
    }
}

#[test]
fn the_key_of_an_environment_speaks_for_what_lies_below_its_name() {
    let key = enoch().verifier("audit.tsujiban.dev/test".parse().unwrap());
    for origin in ["audit.tsujiban.dev/test", "audit.tsujiban.dev/test/roots"] {
        assert_eq!(key.for_origin(origin).unwrap().name().as_str(), origin);
    }
    for origin in ["audit.tsujiban.dev/testing/roots", "audit.tsujiban.dev", "", "x/audit.tsujiban.dev/test"] {
        assert!(matches!(key.for_origin(origin), Err(InvalidKey::Elsewhere(_))), "{origin}");
    }
}
