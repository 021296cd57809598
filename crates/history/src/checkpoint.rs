//! Signed heads of logs, as C2SP tlog-checkpoint defines them: origin, size, root.

use crate::note::{self, InvalidKey, NoteError};
use crate::{Hash, SigningKey, TreeHead, VerifierKey, decimal};

/// The head of one log at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name. Our logs use the text of an [`Origin`](crate::Origin).
    pub origin: String,
    pub head: TreeHead,
    /// Optional further lines (C2SP). Our checkpoints have none.
    pub extensions: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    #[error("the signed note does not hold")]
    Note(#[from] NoteError),
    #[error("the key does not speak for this log")]
    Key(#[from] InvalidKey),
    #[error("this is not a checkpoint: origin, size and root in lines of their own")]
    Malformed,
    #[error("this is a checkpoint of {found:?}, not of {wanted:?}")]
    OtherLog { found: String, wanted: String },
}

impl Checkpoint {
    pub fn new(origin: &impl ToString, head: TreeHead) -> Self {
        Self { origin: origin.to_string(), head, extensions: Vec::new() }
    }

    pub fn text(&self) -> String {
        let mut text = format!("{}\n{}\n{}\n", self.origin, self.head.size, self.head.root);
        for line in &self.extensions {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    /// The signed note. Its key name is the origin.
    pub fn sign(&self, key: &SigningKey) -> Result<String, CheckpointError> {
        let text = self.text();
        if Self::parse(&text).as_ref() != Some(self) {
            return Err(CheckpointError::Malformed);
        }
        Ok(note::sign(&text, key, &self.origin.parse()?)?)
    }

    /// The checkpoint of `origin` in a note that `key` has signed. The signature line has to contain the key's name; see
    /// [`VerifierKey::for_origin`] for the key of an environment.
    pub fn open(signed: &[u8], key: &VerifierKey, origin: &str) -> Result<Self, CheckpointError> {
        let checkpoint = Self::parse(note::open(signed, key)?).ok_or(CheckpointError::Malformed)?;
        if checkpoint.origin != origin {
            return Err(CheckpointError::OtherLog { found: checkpoint.origin, wanted: origin.to_owned() });
        }
        Ok(checkpoint)
    }

    /// Parses the text of a note. Does not verify the signature.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let origin = lines.next().filter(|line| !line.is_empty())?.to_owned();
        let size = decimal::parse(lines.next()?)?;
        let root: Hash = lines.next()?.parse().ok()?;
        let extensions: Vec<String> = lines.map(str::to_owned).collect();
        if extensions.iter().any(String::is_empty) || (size == 0 && root != Hash::EMPTY) {
            return None;
        }
        Some(Self { origin, head: TreeHead { size, root }, extensions })
    }
}

#[cfg(test)]
mod tests;
