//! The arguments of every service that holds customer data: which installation it belongs to, where its keys are, where its spool lies.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use jiff::SignedDuration;
use tsujiban_core::clock::SystemClock;
use tsujiban_core::error::chain;
use tsujiban_core::id::EnvironmentName;
use tsujiban_sealing::files::{self, KeyFileError};
use tsujiban_sealing::{KeyError, Keyring, SealedEpochKey, SystemRandom};

use crate::history::spool::DEFAULT_BYTES;
use crate::history::{self, Ledger};

/// The environment in which clients may not request the contracts.
const PRODUCTION: &str = "production";

/// The installation that a service belongs to.
#[derive(Debug, Clone, Args)]
pub struct InstallationArgs {
    /// The environment's name, such as production. Data of another one is never touched.
    #[arg(long, env = "TSUJIBAN_ENVIRONMENT")]
    pub environment: EnvironmentName,
    /// The namespace in which Tsujiban is installed.
    #[arg(long, env = "TSUJIBAN_SYSTEM_NAMESPACE")]
    pub system_namespace: String,
}

impl InstallationArgs {
    /// Whether clients may request the contracts.
    pub fn shows_contracts(&self) -> bool {
        self.environment.as_str() != PRODUCTION
    }
}

/// Where keys are mounted.
#[derive(Debug, Clone, Args)]
pub struct KeyArgs {
    /// Where the Secret with the master key is mounted: files key and id.
    #[arg(long, env = "TSUJIBAN_MASTER_KEY_DIR", default_value = "/etc/tsujiban/master-key")]
    pub master_key_dir: PathBuf,
    /// Where the Secret with the epoch keys is mounted: a file for each.
    #[arg(long, env = "TSUJIBAN_EPOCH_KEYS_DIR", default_value = "/etc/tsujiban/epoch-keys")]
    pub epoch_keys_dir: PathBuf,
}

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    #[error(transparent)]
    File(#[from] KeyFileError),
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl KeyArgs {
    /// Reads the keys as they are mounted at the start.
    pub fn keyring(&self) -> Result<Arc<Keyring>, KeyringError> {
        let master = files::master_key(&self.master_key_dir)?;
        Ok(Arc::new(Keyring::new(master, &files::epoch_keys(&self.epoch_keys_dir)?)?))
    }

    /// The epoch keys as they are mounted now; or why they cannot be read, in one line.
    pub async fn epoch_keys(&self) -> Result<Vec<SealedEpochKey>, String> {
        let dir = self.epoch_keys_dir.clone();
        let read = tokio::task::spawn_blocking(move || files::epoch_keys(&dir)).await;
        read.map_err(|error| error.to_string())?.map_err(|error| chain(&error))
    }
}

const SHORTEST_SCRUB: SignedDuration = SignedDuration::from_mins(1);
/// The scrub finds damage within this time, before anybody needs the data.
const LONGEST_SCRUB: SignedDuration = SignedDuration::from_hours(7 * 24);

/// How often what is stored is read again.
#[derive(Debug, Clone, Args)]
pub struct ScrubArgs {
    /// Within how many days everything that is stored is read again and checked: 7 at most, also parts of one.
    #[arg(long, env = "TSUJIBAN_SCRUB_DAYS", default_value = "7", value_parser = scrub_days)]
    pub scrub_days: SignedDuration,
}

fn scrub_days(text: &str) -> Result<SignedDuration, String> {
    let days: f64 = text.parse().map_err(|_| format!("{text:?} is no number of days"))?;
    let period = SignedDuration::try_from_secs_f64(days * 86_400.0).map_err(|error| error.to_string())?;
    if period < SHORTEST_SCRUB {
        return Err("a scrub takes a minute at least; give more days, such as 7".to_owned());
    }
    if period > LONGEST_SCRUB {
        return Err("what is stored is read again within 7 days; give 7 or less".to_owned());
    }
    Ok(period)
}

/// Where operations wait for the history.
#[derive(Debug, Clone, Args)]
pub struct SpoolArgs {
    /// Where operations wait for the history: a folder on a volume that outlives the process, of this process alone.
    #[arg(long, env = "TSUJIBAN_SPOOL_DIR", default_value = "/var/lib/tsujiban/spool")]
    pub spool_dir: PathBuf,
    /// How many bytes may wait there. When they are used up, calls are refused. The volume needs the room, and a quarter more for what the
    /// history has taken and no root list covers yet.
    #[arg(long, env = "TSUJIBAN_SPOOL_BYTES", default_value_t = DEFAULT_BYTES)]
    pub spool_bytes: u64,
}

impl SpoolArgs {
    /// The parts of a history that writes to `ledger`.
    pub fn parts(&self, service: &'static str, keyring: Arc<Keyring>, ledger: Arc<dyn Ledger>) -> history::Parts {
        history::Parts {
            service,
            dir: self.spool_dir.clone(),
            bytes: self.spool_bytes,
            keyring,
            ledger,
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn production_shows_no_contracts() {
        let shows = |environment: &str| {
            let environment = environment.parse().unwrap();
            InstallationArgs { environment, system_namespace: "tsujiban-system".into() }.shows_contracts()
        };
        assert!(!shows("production") && shows("trial"));
    }

    #[test]
    fn everything_is_read_again_within_seven_days_at_most() {
        assert_eq!(scrub_days("7"), Ok(SignedDuration::from_hours(168)));
        assert_eq!(scrub_days("0.5"), Ok(SignedDuration::from_hours(12)));
        for refused in ["", "a week", "0", "-1", "0.0001", "7.1", "8", "365", "NaN", "inf", "1e300"] {
            assert!(scrub_days(refused).is_err(), "{refused}");
        }
    }

    #[tokio::test]
    async fn keys_that_are_not_mounted_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let args = KeyArgs { master_key_dir: dir.path().join("master"), epoch_keys_dir: dir.path().join("epochs") };
        assert!(args.keyring().unwrap_err().to_string().contains("master/key cannot be read; mount the Secret there"));
        assert!(args.epoch_keys().await.unwrap_err().contains("epochs cannot be read"));
    }
}
