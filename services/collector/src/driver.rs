//! The commands for each family of devices. [`tsujiban_core::driver`] knows the format of their configs.

mod frr;

use std::fmt;

use tsujiban_core::driver::{Defect, Driver};
use tsujiban_core::outcome::Reason;
use zeroize::Zeroizing;

use crate::outcome::Step;
use crate::shell::{Shell, ShellError};

/// A whole config. It holds secrets, so it is wiped when dropped, and never shown.
pub struct Config(Zeroizing<Vec<u8>>);

impl Config {
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Config({} bytes)", self.0.len())
    }
}

/// The model and firmware that a device reports. Empty where it reports none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    pub model: String,
    pub firmware: String,
}

/// Why there is no whole config.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Shell(#[from] ShellError),
    #[error("the device refuses \"{command}\"; give the login the right to see the whole config")]
    CommandRefused { command: &'static str },
    #[error("the config is not whole; it was not stored")]
    NotWhole(#[source] Defect),
}

impl Step for FetchError {
    fn reason(&self) -> Reason {
        match self {
            Self::Shell(error) => error.reason(),
            Self::CommandRefused { .. } | Self::NotWhole(Defect::NotText) => Reason::Protocol,
            Self::NotWhole(Defect::NoBeginning { .. } | Defect::NoEnd { .. }) => Reason::Truncated,
        }
    }
}

/// Fetches a device's whole config.
pub async fn fetch(driver: Driver, shell: &mut Shell) -> Result<(Config, About), FetchError> {
    match driver {
        Driver::Frr => frr::fetch(shell).await,
    }
}

/// Cleans what a device sent and makes sure that it is a whole config.
fn whole(driver: Driver, command: &'static str, sent: Vec<u8>) -> Result<Config, FetchError> {
    let sent = Zeroizing::new(sent);
    let text = Zeroizing::new(driver.clean(&sent));
    if text.starts_with(b"% ") {
        return Err(FetchError::CommandRefused { command });
    }
    driver.check_whole(&text).map_err(FetchError::NotWhole)?;
    Ok(Config(text))
}
