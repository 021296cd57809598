//! One device's turn: from its host name to a stored config, or to the reason why there is none.

use std::time::Duration;

use tokio::select;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use tsujiban_core::address::DeviceNetworks;
use tsujiban_core::error::chain;
use tsujiban_core::outcome::Reason;
use tsujiban_proto::error::Kind;

use crate::backup::{Backup, BackupError};
use crate::cluster::Cluster;
use crate::credentials::Credentials;
use crate::driver::{self, About, Config};
use crate::hostkey::{Expected, NotAKey, openssh};
use crate::network::{self, Allowed, Network};
use crate::outcome::{Failure, Finished, Outcome, Step};
use crate::plan::Limits;
use crate::shell::{LargeOutputPermits, PromptPolicy, Shell};
use crate::ssh::{Connect, Shown, Unauthenticated};
use crate::target::Target;

/// What every turn needs.
pub struct Context<N> {
    pub network: N,
    pub networks: DeviceNetworks,
    pub cluster: Cluster,
    pub backup: Backup,
    pub limits: Limits,
    pub places: LargeOutputPermits,
}

/// A config and what the device says it is; `None` when the Device was erased in the meantime.
type Fetched = Option<(Config, About)>;

/// Why the host key that is expected of the device could not be read or pinned.
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

/// A device that is connected and has presented a host key that is trusted, or its first one. The login comes later.
struct Reached {
    allowed: Allowed,
    credentials: Credentials,
    expected: Expected,
    stranger: Unauthenticated,
}

/// The limits of one device's turn, and the time that it has used.
struct Turn<'a> {
    slots: &'a Semaphore,
    run_ends: Instant,
    /// What is left of the time that a device may take.
    left: Duration,
    /// How long it waited for a slot, which does not count.
    waited: Duration,
    shown: Shown,
}

/// The permit to log in to a device, held until its config is stored.
type Slot<'a> = SemaphorePermit<'a>;

impl<N: Network> Context<N> {
    /// Backs up one device. Connects and checks its host key before its turn comes, so that neither a distant nor a dead device delays the
    /// others; logs in and stores the config with one of the `slots`. Fetching ends at `run_ends` or when `stop` is cancelled; storing and
    /// recording are then still finished.
    pub async fn attempt(&self, target: &Target, slots: &Semaphore, run_ends: Instant, stop: &CancellationToken) -> Finished {
        let start = Instant::now();
        let mut turn = Turn { slots, run_ends, left: self.limits.device, waited: Duration::ZERO, shown: Shown::default() };
        let (outcome, recorded) = self.back_up(target, &mut turn, stop).await;
        Finished { device: target.name.clone(), outcome, took: start.elapsed().saturating_sub(turn.waited), recorded }
    }

    async fn back_up(&self, target: &Target, turn: &mut Turn<'_>, stop: &CancellationToken) -> (Outcome, bool) {
        let fetched = select! {
            biased;
            () = stop.cancelled() => return (Outcome::Interrupted, false),
            fetched = self.fetch_in_turn(target, turn) => fetched,
        };
        let host_key = turn.shown.get().map(openssh).unwrap_or_default();
        let failure = match fetched {
            Ok((None, _)) => return (Outcome::Erased, true),
            Ok((Some((config, about)), _slot)) => {
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

    async fn fetch_in_turn<'a>(&self, target: &Target, turn: &mut Turn<'a>) -> Result<(Fetched, Slot<'a>), Failure> {
        let too_late = || {
            Failure::new(
                Reason::Timeout,
                "the window ended before the device's turn; widen the tenant's backup.windowMinutes or raise backup.maxConcurrent",
            )
        };
        if Instant::now() >= turn.run_ends {
            return Err(too_late());
        }
        let shown = Shown::clone(&turn.shown);
        let mut reached = self.in_time(target, turn, self.reach(target, &shown)).await?;
        let asked = Instant::now();
        let slot = timeout_at(turn.run_ends, turn.slots.acquire()).await.map_err(|_| too_late())?.map_err(|_| too_late())?;
        let waited = asked.elapsed();
        turn.waited = waited;
        if waited > self.limits.idle / 2 {
            // the device may have closed the idle connection
            let again = self.handshake(target, reached.allowed, &reached.credentials, &reached.expected, &shown);
            reached.stranger = self.in_time(target, turn, again).await?;
        }
        let fetched = self.in_time(target, turn, self.talk(target, reached, &shown)).await?;
        Ok((fetched, slot))
    }

    /// Bounds a part of a device's turn by what is left of its time, and of the window.
    async fn in_time<T>(&self, target: &Target, turn: &mut Turn<'_>, part: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let start = Instant::now();
        let ends = turn.run_ends.min(start + turn.left);
        let done = timeout_at(ends, part).await;
        turn.left = turn.left.saturating_sub(start.elapsed());
        match done {
            Ok(done) => done,
            Err(_) if ends == turn.run_ends => Err(Failure::new(
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

    async fn reach(&self, target: &Target, shown: &Shown) -> Result<Reached, Failure> {
        let allowed = network::admit(&self.network, &self.networks, &target.host, target.port, self.limits.idle).await?;
        let credentials = self.cluster.credentials(&target.secret).await?;
        let expected = self.expected(target).await?;
        let stranger = self.handshake(target, allowed, &credentials, &expected, shown).await?;
        Ok(Reached { allowed, credentials, expected, stranger })
    }

    /// Connects, and has the device show its host key.
    async fn handshake(
        &self,
        target: &Target,
        allowed: Allowed,
        credentials: &Credentials,
        expected: &Expected,
        shown: &Shown,
    ) -> Result<Unauthenticated, Failure> {
        let stream = network::dial(&self.network, allowed, self.limits.idle).await?;
        let Limits { idle, device, .. } = self.limits;
        let connect = Connect { address: allowed.address(), algorithms: target.algorithms, expected, credentials, idle, most: device };
        Ok(Unauthenticated::handshake(stream, &connect, shown).await?)
    }

    async fn talk(&self, target: &Target, reached: Reached, shown: &Shown) -> Result<Fetched, Failure> {
        let idle = self.limits.idle;
        let session = reached.stranger.log_in(&reached.credentials, target.algorithms, idle).await?;
        if session.first_contact
            && let Err(error) = self.pin(target, shown).await
        {
            session.close().await;
            return if error.is_erased() { Ok(None) } else { Err(error.into()) };
        }
        let fetched = async {
            let device = if session.first_contact { PromptPolicy::New } else { target.device };
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

    /// Pins the host key of a first contact, before any output of the device is used.
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
