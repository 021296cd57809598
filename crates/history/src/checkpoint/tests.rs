use super::*;
use crate::merkle::sha256;

/// The example of C2SP tlog-checkpoint.
const SOFA: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

fn key() -> SigningKey {
    SigningKey::from_seed(&[5; 32]).unwrap()
}

fn verifier(name: &str) -> VerifierKey {
    key().verifier(name.parse().unwrap())
}

#[test]
fn the_published_example_is_read_and_written() {
    let checkpoint = Checkpoint::parse(SOFA).unwrap();
    assert_eq!((checkpoint.origin.as_str(), checkpoint.head.size), ("example.com/behind-the-sofa", 20_852_163));
    assert_eq!(checkpoint.text(), SOFA);
    let signed = checkpoint.sign(&key()).unwrap();
    assert!(signed.starts_with(&format!("{SOFA}\n— example.com/behind-the-sofa ")));
    assert_eq!(
        Checkpoint::open(signed.as_bytes(), &verifier("example.com/behind-the-sofa"), "example.com/behind-the-sofa"),
        Ok(checkpoint)
    );
}

#[test]
fn what_is_not_exactly_a_checkpoint_is_refused() {
    for bad in [
        "",
        "\n",
        "a\n1\n",
        &SOFA.replace("example.com/behind-the-sofa", ""),
        &SOFA.replace("20852163", "020852163"),
        &SOFA.replace("20852163", "+20852163"),
        &SOFA.replace("20852163", "-1"),
        &SOFA.replace("20852163", "0"),
        &SOFA.replace("20852163", "18446744073709551616"),
        &SOFA.replace("q2I=", "q2J="),
        &SOFA.replace("q2I=", "q2I"),
        &SOFA.replace("q2I=\n", "q2I=\n\n"),
        SOFA.trim_end(),
    ] {
        assert_eq!(Checkpoint::parse(bad), None, "{bad:?}");
    }
    let extended = Checkpoint::parse(&format!("{SOFA}extension\n")).unwrap();
    assert_eq!(extended.extensions, ["extension"]);
    let empty = Checkpoint::new(&"a", TreeHead { size: 0, root: Hash::EMPTY });
    assert_eq!(Checkpoint::parse(&empty.text()), Some(empty));
    let broken = Checkpoint { extensions: vec!["two\nlines".to_owned()], ..Checkpoint::parse(SOFA).unwrap() };
    assert_eq!(broken.sign(&key()), Err(CheckpointError::Malformed));
}

#[test]
fn a_checkpoint_is_of_its_log_and_by_its_key() {
    let checkpoint = Checkpoint::new(&"test/one", TreeHead { size: 1, root: sha256(b"root") });
    let signed = checkpoint.sign(&key()).unwrap();
    let open = |key: &VerifierKey, origin| Checkpoint::open(signed.as_bytes(), key, origin);
    assert!(open(&verifier("test/one"), "test/one").is_ok());
    assert!(matches!(open(&verifier("test/one"), "test/two"), Err(CheckpointError::OtherLog { .. })));
    assert!(matches!(open(&verifier("test/two"), "test/one"), Err(CheckpointError::Note(NoteError::NotSigned(_)))));
    let other = SigningKey::from_seed(&[6; 32]).unwrap().verifier("test/one".parse().unwrap());
    assert!(matches!(open(&other, "test/one"), Err(CheckpointError::Note(_))));
}
