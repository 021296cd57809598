//! The names under which logs and root lists are signed. They begin with a domain of the installation, and name an environment (C12) and an
//! opaque id, never a customer.

use std::fmt;
use std::str::FromStr;

use tsujiban_core::id::{EnvironmentName, InvalidId};

use crate::LogId;

const LONGEST_DOMAIN: usize = 253;
const LONGEST_LABEL: usize = 63;

/// The DNS name that begins the names of an installation's logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginDomain(String);

impl OriginDomain {
    /// The domain of an installation for which none is configured.
    pub const DEFAULT: &'static str = "audit.tsujiban.dev";

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for OriginDomain {
    fn default() -> Self {
        Self(Self::DEFAULT.to_owned())
    }
}

impl FromStr for OriginDomain {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text.len() <= LONGEST_DOMAIN && text.split('.').all(is_label) {
            return Ok(Self(text.to_owned()));
        }
        Err(InvalidId {
            kind: "origin domain",
            value: text.chars().take(80).collect(),
            rule: "a DNS name of at most 253 characters a-z, 0-9, '-' and '.', such as audit.example.co.jp, without scheme, port and path",
        })
    }
}

/// RFC 1123: 1 to 63 lower-case letters, digits and inner hyphens.
fn is_label(text: &str) -> bool {
    (1..=LONGEST_LABEL).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

impl fmt::Display for OriginDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of an environment's key, `<domain>/<environment>`. The names of its logs and root lists begin with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentOrigin {
    pub domain: OriginDomain,
    pub environment: EnvironmentName,
}

impl EnvironmentOrigin {
    /// The first line of root lists: `<domain>/<environment>/roots`.
    pub fn roots(&self) -> String {
        format!("{self}/roots")
    }

    /// The environment of a root list, from the list's first line.
    pub fn of_roots(line: &str) -> Option<Self> {
        line.strip_suffix("/roots")?.parse().ok()
    }
}

impl fmt::Display for EnvironmentOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.environment)
    }
}

impl FromStr for EnvironmentOrigin {
    type Err = InvalidOrigin;
    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let parts = text.split_once('/');
        let origin = parts.and_then(|(domain, name)| Some(Self { domain: domain.parse().ok()?, environment: name.parse().ok()? }));
        origin.ok_or_else(|| InvalidOrigin::new("<domain>/<environment>", text))
    }
}

/// The origin of a log: `<domain>/<environment>/<log id>`, the first line of its checkpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub environment: EnvironmentOrigin,
    pub log: LogId,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not an origin: {form}")]
pub struct InvalidOrigin {
    form: &'static str,
    found: String,
}

impl InvalidOrigin {
    fn new(form: &'static str, found: &str) -> Self {
        Self { form, found: found.chars().take(120).collect() }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.environment, self.log)
    }
}

impl FromStr for Origin {
    type Err = InvalidOrigin;
    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let parts = text.rsplit_once('/');
        let origin = parts.and_then(|(environment, log)| Some(Self { environment: environment.parse().ok()?, log: log.parse().ok()? }));
        origin.ok_or_else(|| InvalidOrigin::new("<domain>/<environment>/<log id>", text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read_as_they_are_written() {
        for domain in [OriginDomain::DEFAULT, "audit.example.co.jp", "audit"] {
            let text = format!("{domain}/production/00112233445566778899aabbccddeeff");
            let origin: Origin = text.parse().unwrap();
            assert_eq!((origin.to_string(), origin.environment.domain.as_str()), (text.clone(), domain));
            let roots = format!("{domain}/production/roots");
            for bad in ["", &roots, &format!(".{text}"), &format!("{text}/"), &format!("a/{text}"), &text.replace("production", "Prod")] {
                assert!(bad.parse::<Origin>().is_err(), "{bad}");
            }
            assert_eq!(origin.environment.roots(), roots);
            assert_eq!(EnvironmentOrigin::of_roots(&roots), Some(origin.environment));
            assert_eq!(EnvironmentOrigin::of_roots(&format!("{domain}//roots")), None);
            assert_eq!(EnvironmentOrigin::of_roots(&text), None);
        }
    }

    #[test]
    fn a_domain_is_a_dns_name_in_lower_case() {
        let label = "a".repeat(LONGEST_LABEL);
        let longest = [label.as_str(), &label, &label, &label[2..]].join(".");
        assert_eq!(longest.len(), LONGEST_DOMAIN);
        for good in ["audit.example.co.jp", "a", "1.2", "xn--wgv71a.example", &longest] {
            assert_eq!(good.parse::<OriginDomain>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            ".",
            "audit..example",
            ".example",
            "example.",
            "Audit.example",
            "-a.example",
            "a-.example",
            "a_b.example",
            "https://audit.example",
            "audit.example:8443",
            "audit.example/production",
            "audit example",
            "audit+example",
            "audit\n",
            "監査.example",
            &format!("{label}a.example"),
            &format!("{longest}a"),
        ] {
            let refused = bad.parse::<OriginDomain>().unwrap_err().to_string();
            assert!(refused.starts_with("origin domain") && refused.contains("a DNS name"), "{refused}");
        }
        assert_eq!(OriginDomain::default(), OriginDomain::DEFAULT.parse().unwrap());
    }
}
