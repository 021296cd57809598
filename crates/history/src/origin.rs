//! The names under which logs and root lists are signed. They name an environment (C12) and an opaque id, never a customer.

use std::fmt;
use std::str::FromStr;

use tsujiban_core::id::EnvironmentName;

use crate::LogId;

const AUDIT: &str = "audit.tsujiban.dev";

/// The origin of a log: `audit.tsujiban.dev/<environment>/<log id>`, the first line of its checkpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub environment: EnvironmentName,
    pub log: LogId,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the origin of a log: audit.tsujiban.dev/<environment>/<log id>")]
pub struct InvalidOrigin(String);

/// The name of the key of an environment, whose logs and root lists are named below it.
pub fn environment_name(environment: &EnvironmentName) -> String {
    format!("{AUDIT}/{environment}")
}

/// The first line of root lists: `audit.tsujiban.dev/<environment>/roots`.
pub fn of_roots(environment: &EnvironmentName) -> String {
    format!("{AUDIT}/{environment}/roots")
}

/// The environment of a root list, from its first line.
pub fn environment_of_roots(line: &str) -> Option<EnvironmentName> {
    line.strip_prefix(AUDIT)?.strip_prefix('/')?.strip_suffix("/roots")?.parse().ok()
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{AUDIT}/{}/{}", self.environment, self.log)
    }
}

impl FromStr for Origin {
    type Err = InvalidOrigin;
    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let parts = text.strip_prefix(AUDIT).and_then(|rest| rest.strip_prefix('/')).and_then(|rest| rest.split_once('/'));
        let origin = parts.and_then(|(environment, log)| Some(Self { environment: environment.parse().ok()?, log: log.parse().ok()? }));
        origin.ok_or_else(|| InvalidOrigin(text.chars().take(120).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read_as_they_are_written() {
        let text = "audit.tsujiban.dev/production/00112233445566778899aabbccddeeff";
        assert_eq!(text.parse::<Origin>().unwrap().to_string(), text);
        for bad in ["", "audit.tsujiban.dev/production/roots", &text[1..], &format!("{text}/"), &text.replace("production", "Prod")] {
            assert!(bad.parse::<Origin>().is_err(), "{bad}");
        }
        let environment: EnvironmentName = "production".parse().unwrap();
        assert_eq!(environment_of_roots(&of_roots(&environment)), Some(environment));
        assert_eq!(environment_of_roots("audit.tsujiban.dev//roots"), None);
    }
}
