//! Signed notes as C2SP signed-note defines them: text, an empty line, and lines `— <key name> <base64 of key id and signature>`.
//! Ed25519 only. The text of a note can be read only after a signature on it was verified with a known key.

mod key;
mod text;

pub use key::{InvalidKey, KeyName, SigningKey, VerifierKey};
pub use text::{MAX_NOTE, MAX_SIGNATURES, NoteError, open, sign};

#[cfg(test)]
mod tests;
