//! Whose history a log is.

use std::fmt;

use tsujiban_core::id::{GroupId, InvalidId};

/// A group, or the platform itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    Platform,
    Group(GroupId),
}

impl Owner {
    /// As it stands in the database and in requests: the group's id, and nothing for the platform.
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
