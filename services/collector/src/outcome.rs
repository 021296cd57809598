//! How the attempt on one device ended.

use std::error::Error;
use std::time::Duration;

use tsujiban_core::error::chain;
use tsujiban_core::id::DeviceName;
use tsujiban_core::outcome::Reason;

/// The longest message that a Device's status takes, in characters.
const MESSAGE_CHARS: usize = 512;

/// The error of one step, with the reason that people see for it.
pub trait Step: Error {
    fn reason(&self) -> Reason;
}

/// Why nothing was stored, in words for people. Never holds a secret or a part of a config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub reason: Reason,
    pub message: String,
}

impl Failure {
    /// A message of one line that fits; what a server wrote may hold anything.
    pub fn new(reason: Reason, message: &str) -> Self {
        let message = message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MESSAGE_CHARS).collect();
        Self { reason, message }
    }
}

impl<E: Step> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error.reason(), &chain(&error))
    }
}

/// The result of a device's turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Changed {
        bytes: u64,
    },
    Unchanged {
        bytes: u64,
    },
    Failed(Failure),
    /// The Device was erased since it was listed: there is nothing to store, and nothing to record.
    Erased,
    /// The collector was told to stop. This says nothing about the device, so nothing is recorded.
    Interrupted,
}

/// A device's turn, finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    pub device: DeviceName,
    pub outcome: Outcome,
    pub took: Duration,
    /// Whether the backup service has recorded the attempt. It always has when it stored the config.
    pub recorded: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_that_fits() {
        let failure = Failure::new(Reason::Protocol, &format!("a\r\nb\u{1b}[2J{}", "語".repeat(600)));
        assert!(failure.message.starts_with("a  b [2J語"));
        assert_eq!(failure.message.chars().count(), 512);
    }
}
