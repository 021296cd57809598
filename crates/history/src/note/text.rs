use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{KeyName, SigningKey, VerifierKey};

/// The longest note that is read: a full root list of a hundred thousand logs has 10 MB.
pub const MAX_NOTE: usize = 64 << 20;
/// The most signatures a note may have. C2SP demands at least 16.
pub const MAX_SIGNATURES: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    #[error("this is not a signed note")]
    Malformed,
    #[error("the note is too long or has too many signatures")]
    TooLong,
    #[error("the note is not signed by {0}")]
    NotSigned(String),
    #[error("the signature of {0} is not that of this text")]
    BadSignature(String),
}

/// The signed note of `text`, which ends with a newline and holds no other control character.
pub fn sign(text: &str, key: &SigningKey, name: &KeyName) -> Result<String, NoteError> {
    if !text.ends_with('\n') || has_control(text) {
        return Err(NoteError::Malformed);
    }
    let id = key.verifier(name.clone()).id();
    let signature = STANDARD.encode([id.as_slice(), &key.sign(text.as_bytes())].concat());
    Ok(format!("{text}\n— {name} {signature}\n"))
}

/// The text of a note that `key` has signed. Skips signatures of other keys; an invalid signature of this key is an error.
pub fn open<'a>(note: &'a [u8], key: &VerifierKey) -> Result<&'a str, NoteError> {
    if note.len() > MAX_NOTE {
        return Err(NoteError::TooLong);
    }
    let note = std::str::from_utf8(note).map_err(|_| NoteError::Malformed)?;
    if has_control(note) {
        return Err(NoteError::Malformed);
    }
    // the last empty line separates text and signatures; the text includes its final newline
    let end = note.rfind("\n\n").ok_or(NoteError::Malformed)? + 1;
    let (text, signatures) = note.split_at_checked(end).ok_or(NoteError::Malformed)?;
    let signatures = signatures.strip_prefix('\n').and_then(|lines| lines.strip_suffix('\n')).ok_or(NoteError::Malformed)?;
    let mut signed = false;
    for (number, line) in signatures.split('\n').enumerate() {
        if number >= MAX_SIGNATURES {
            return Err(NoteError::TooLong);
        }
        let (name, id, signature) = parse_line(line).ok_or(NoteError::Malformed)?;
        if name == *key.name() && id == key.id() {
            if !key.verify(text.as_bytes(), &signature) {
                return Err(NoteError::BadSignature(name.to_string()));
            }
            signed = true;
        }
    }
    if signed { Ok(text) } else { Err(NoteError::NotSigned(key.name().to_string())) }
}

fn parse_line(line: &str) -> Option<(KeyName, [u8; 4], Vec<u8>)> {
    let (name, encoded) = line.strip_prefix("— ")?.split_once(' ')?;
    let decoded = STANDARD.decode(encoded).ok()?;
    let (id, signature) = decoded.split_first_chunk::<4>()?;
    if signature.is_empty() { None } else { Some((name.parse().ok()?, *id, signature.to_vec())) }
}

fn has_control(text: &str) -> bool {
    text.bytes().any(|b| b < 0x20 && b != b'\n')
}
