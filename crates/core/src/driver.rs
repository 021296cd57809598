//! What is known about each family of devices: when its config is whole, which lines change by themselves, what is secret.
//!
//! How to talk to a device is the collector's task; this module only reads the text of configs.

mod frr;

use serde::{Deserialize, Serialize};

/// A family of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Driver {
    /// FRRouting behind `vtysh`.
    Frr,
}

/// The driver of something that is stored. A newer version may have stored it, with a driver that this one does not know: it is kept, listed and
/// verified like all else, and only what a driver is needed for is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum StoredDriver {
    Known(Driver),
    Unknown(String),
}

/// A text that is the name of no driver of any version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no name of a driver")]
pub struct InvalidDriver(String);

/// The longest name of a driver, in characters.
const MAX_NAME: usize = 63;

impl StoredDriver {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(driver) => driver.as_str(),
            Self::Unknown(name) => name,
        }
    }

    /// `None`: only a newer version knows it.
    pub const fn known(&self) -> Option<Driver> {
        match self {
            Self::Known(driver) => Some(*driver),
            Self::Unknown(_) => None,
        }
    }
}

impl From<Driver> for StoredDriver {
    fn from(driver: Driver) -> Self {
        Self::Known(driver)
    }
}

impl From<StoredDriver> for String {
    fn from(driver: StoredDriver) -> Self {
        driver.as_str().to_owned()
    }
}

impl TryFrom<String> for StoredDriver {
    type Error = InvalidDriver;

    fn try_from(name: String) -> Result<Self, InvalidDriver> {
        if let Some(driver) = Driver::from_name(&name) {
            return Ok(Self::Known(driver));
        }
        // names are those of Rust's variants, in every version
        let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_uppercase());
        let is_name = begins && name.len() <= MAX_NAME && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if is_name { Ok(Self::Unknown(name)) } else { Err(InvalidDriver(name)) }
    }
}

/// Why a fetched text is not a whole config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    #[error("the text holds control characters, so it is not a config")]
    NotText,
    #[error("the config has no beginning: line {expected:?} is missing")]
    NoBeginning { expected: &'static str },
    #[error("the config has no end: its last line is not {expected:?}")]
    NoEnd { expected: &'static str },
}

/// What to show instead of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redaction {
    /// The line holds no secret.
    Plain,
    /// The line with its secrets replaced.
    Hidden(String),
}

/// What replaces a secret.
pub const REDACTED: &str = "<redacted>";

impl Driver {
    pub const ALL: [Self; 1] = [Self::Frr];

    /// The name under which the driver is stored and declared.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Frr => "Frr",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|driver| driver.as_str() == name)
    }

    /// Checks that a text, cleaned by [`clean`](Self::clean), is a whole config.
    pub fn check_whole(self, text: &[u8]) -> Result<(), Defect> {
        if text.iter().any(|b| (*b < 0x20 && !b"\t\n".contains(b)) || *b == 0x7f) {
            return Err(Defect::NotText);
        }
        match self {
            Self::Frr => frr::check_whole(text),
        }
    }

    /// Whether the output so far ends where the config ends, so that no more of it can follow.
    pub fn is_at_end(self, sent: &[u8]) -> bool {
        match self {
            Self::Frr => frr::is_at_end(sent),
        }
    }

    /// The output as it is stored: without carriage returns and without the lines that the device prints around its config.
    pub fn clean(self, sent: &[u8]) -> Vec<u8> {
        match self {
            Self::Frr => frr::clean(sent),
        }
    }

    /// Whether a line changes by itself, so that a difference in it is no change of the config.
    pub fn is_volatile(self, line: &[u8]) -> bool {
        match self {
            Self::Frr => frr::is_volatile(line),
        }
    }

    /// Hides the secrets of a line. A line that is not known but has a secret-like word is hidden from that word on.
    pub fn redact(self, line: &str) -> Redaction {
        match self {
            Self::Frr => frr::redact(line),
        }
    }
}
