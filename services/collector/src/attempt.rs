//! One device's turn: from its host name to a stored config, or to the reason why there is none.

use std::time::Duration;

use tokio::select;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use tsujiban_core::address::DeviceNetworks;
use tsujiban_core::outcome::Reason;
use tsujiban_proto::error::Kind;

use crate::backup::{Backup, BackupError};
use crate::cluster::Cluster;
use crate::driver::{self, About, Config};
use crate::hostkey::{Expected, NotAKey, openssh};
use crate::network::{self, Network};
use crate::outcome::{Failure, Finished, Outcome, Step, chain};
use crate::plan::Limits;
use crate::shell::{Acquaintance, Places, Shell};
use crate::ssh::{Connect, Session, Shown};
use crate::target::Target;

/// What every turn needs.
pub struct Context<N> {
    pub network: N,
    pub networks: DeviceNetworks,
    pub cluster: Cluster,
    pub backup: Backup,
    pub limits: Limits,
    pub places: Places,
}

/// A config and what the device says it is; `None` when the Device was erased in the meantime.
type Fetched = Option<(Config, About)>;

/// Why the device's host key is not settled.
#[derive(Debug, thiserror::Error)]
enum HostKeyError {
    #[error("spec.connection.hostKey is not a host key; copy it from status.observedHostKey after comparing it with the device's")]
    Given(#[source] NotAKey),
    #[error("the pinned host key cannot be read; have staff replace it")]
    Pinned(#[source] NotAKey),
    #[error("another host key was pinned for the device in the meantime; another device may answer at its address")]
    PinnedMeanwhile,
    #[error(transparent)]
    Backup(#[from] BackupError),
}

impl Step for HostKeyError {
    fn reason(&self) -> Reason {
        match self {
            Self::Backup(error) => error.reason(),
            _ => Reason::HostKeyMismatch,
        }
    }
}

impl HostKeyError {
    fn is_erased(&self) -> bool {
        matches!(self, Self::Backup(error) if error.is_erased())
    }
}

impl<N: Network> Context<N> {
    /// Backs up one device. Fetching ends at `run_ends` or when `stop` is cancelled; storing and recording then still go on.
    pub async fn attempt(&self, target: &Target, run_ends: Instant, stop: &CancellationToken) -> Finished {
        let start = Instant::now();
        let (outcome, recorded) = self.back_up(target, start, run_ends, stop).await;
        Finished { device: target.name.clone(), outcome, took: start.elapsed(), recorded }
    }

    async fn back_up(&self, target: &Target, start: Instant, run_ends: Instant, stop: &CancellationToken) -> (Outcome, bool) {
        let shown = Shown::default();
        let fetched = select! {
            biased;
            () = stop.cancelled() => return (Outcome::Interrupted, false),
            fetched = self.fetch_in_time(target, &shown, start, run_ends) => fetched,
        };
        let host_key = shown.get().map(openssh).unwrap_or_default();
        let failure = match fetched {
            Ok(None) => return (Outcome::Erased, true),
            Ok(Some((config, about))) => {
                let bytes = u64::try_from(config.bytes().len()).unwrap_or(u64::MAX);
                match self.backup.put(target, &host_key, about, config).await {
                    Ok(stored) if stored.changed => return (Outcome::Changed { bytes }, true),
                    Ok(_) => return (Outcome::Unchanged { bytes }, true),
                    Err(error) if error.is_erased() => return (Outcome::Erased, true),
                    Err(error) => {
                        Failure::new(Reason::Store, &format!("the config was fetched, but is not known to be stored: {}", chain(&error)))
                    }
                }
            }
            Err(failure) => failure,
        };
        let recorded = self.backup.record(target, &host_key, &failure).await;
        if let Err(error) = &recorded {
            if error.is_erased() {
                return (Outcome::Erased, true);
            }
            warn!(device = %target.name, error = chain(error), "attempt not recorded");
        }
        (Outcome::Failed(failure), recorded.is_ok())
    }

    async fn fetch_in_time(&self, target: &Target, shown: &Shown, start: Instant, run_ends: Instant) -> Result<Fetched, Failure> {
        if start >= run_ends {
            return Err(Failure::new(
                Reason::Timeout,
                "the window ended before the device's turn; widen the tenant's backup.windowMinutes or raise backup.maxConcurrent",
            ));
        }
        let ends = run_ends.min(start + self.limits.device);
        match timeout_at(ends, self.fetch(target, shown)).await {
            Ok(fetched) => fetched,
            Err(_) if ends == run_ends => Err(Failure::new(
                Reason::Timeout,
                "the window ended while the device was talked to; widen the tenant's backup.windowMinutes",
            )),
            Err(_) => Err(Failure::new(
                Reason::Timeout,
                &format!(
                    "no whole config from {}:{} within {}; check the device's load and the network",
                    target.host,
                    target.port,
                    seconds(self.limits.device)
                ),
            )),
        }
    }

    async fn fetch(&self, target: &Target, shown: &Shown) -> Result<Fetched, Failure> {
        let Limits { idle, device, .. } = self.limits;
        let allowed = network::admit(&self.network, &self.networks, &target.host, target.port, idle).await?;
        let credentials = self.cluster.credentials(&target.secret).await?;
        let expected = self.expected(target).await?;
        let stream = network::dial(&self.network, allowed, idle).await?;
        let connect = Connect {
            address: allowed.address(),
            algorithms: target.algorithms,
            expected: &expected,
            credentials: &credentials,
            idle,
            most: device,
        };
        let session = Session::open(stream, &connect, shown).await?;
        if session.first_contact
            && let Err(error) = self.pin(target, shown).await
        {
            session.close().await;
            return if error.is_erased() { Ok(None) } else { Err(error.into()) };
        }
        let fetched = async {
            let device = if session.first_contact { Acquaintance::New } else { target.device };
            let mut shell = Shell::open(session.handle(), device, idle, &self.places).await?;
            Ok(Some(driver::fetch(target.driver, &mut shell).await?))
        };
        let fetched = fetched.await;
        session.close().await;
        fetched
    }

    async fn expected(&self, target: &Target) -> Result<Expected, HostKeyError> {
        if let Some(given) = &target.host_key {
            return Expected::new(Some(given), "").map_err(HostKeyError::Given);
        }
        Expected::new(None, &self.backup.pinned(target).await?).map_err(HostKeyError::Pinned)
    }

    /// Pins the key of a device that is met for the first time, before anything it says counts.
    async fn pin(&self, target: &Target, shown: &Shown) -> Result<(), HostKeyError> {
        let host_key = shown.get().map(openssh).unwrap_or_default();
        match self.backup.pin(target, &host_key).await {
            Err(error) if error.kind() == Some(Kind::Aborted) => Err(HostKeyError::PinnedMeanwhile),
            pinned => Ok(pinned?),
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f32())
}
