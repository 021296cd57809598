//! `tsujiban audit`.

mod entry;
pub mod export;
pub mod gap;
pub mod list;
pub mod reading;
pub mod span;
#[cfg(test)]
mod tests;
pub mod verify;

use std::fmt;

use tsujiban_core::id::GroupId;

/// Whose history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HistoryOwner {
    /// Operations that belong to no group.
    Platform,
    Group(GroupId),
}

impl HistoryOwner {
    /// Its name in the contract.
    fn on_the_wire(&self) -> String {
        match self {
            Self::Platform => String::new(),
            Self::Group(group) => group.to_string(),
        }
    }
}

/// `the history of group acme`
impl fmt::Display for HistoryOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Platform => f.write_str("the platform's own history"),
            Self::Group(group) => write!(f, "the history of group {group}"),
        }
    }
}
