//! Asks for confirmation of what cannot be undone.

use std::io::{self, IsTerminal, Write};

use crate::exit::ExitCode;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum ConfirmError {
    #[error("nobody is there to confirm; pass --yes to go on without a question")]
    Unattended,
    #[error("nothing was done, since the answer was not {0}")]
    NotConfirmed(String),
    #[error("the question cannot be asked")]
    Ask(#[from] io::Error),
}

impl ExitCode for ConfirmError {}

/// Prints what is going to happen, and waits until `word` is typed, unless `yes` was given before.
pub fn confirm(announcement: &str, what: &str, word: &str, yes: bool) -> Result<(), ConfirmError> {
    let mut err = io::stderr();
    writeln!(err, "{announcement}")?;
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(ConfirmError::Unattended);
    }
    write!(err, "Type {word} to {what}: ").and_then(|()| err.flush())?;
    let mut typed = String::new();
    io::stdin().read_line(&mut typed)?;
    if typed.trim() == word { Ok(()) } else { Err(ConfirmError::NotConfirmed(word.to_owned())) }
}
