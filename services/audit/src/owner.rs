//! The owner of a log.

use std::fmt;

use tsujiban_core::id::{GroupId, InvalidId};
use tsujiban_history::LogId;

/// A group, or the platform itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    Platform,
    Group(GroupId),
}

impl Owner {
    /// The text in the database and in requests: the group's id, or the empty text for the platform.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Platform => "",
            Self::Group(group) => group.as_str(),
        }
    }

    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        if text.is_empty() { Ok(Self::Platform) } else { text.parse().map(Self::Group) }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Platform => f.write_str("the platform"),
            Self::Group(group) => write!(f, "group {group}"),
        }
    }
}

/// The prefix of the owner of a log whose group is not known. No group id begins with it.
pub const UNCLAIMED: char = '?';

/// The owner of a log whose group is not known.
pub fn unclaimed(log: &LogId) -> String {
    format!("{UNCLAIMED}{log}")
}
