//! Which replica leads.
//!
//! A holder that cannot reach the apiserver must stop leading by itself before another replica can start: it gives up two thirds into the
//! time to live, and a rival waits the whole of it, each by its own monotonic clock. Writes are conditional on the resourceVersion. The
//! [`Fence`] ensures that no write that the holder began takes effect later. A rival reads the lease every second and watches it besides,
//! so that it takes a released lease at once. A holder that finds its lease in an older version stops leading as well: the cluster was
//! restored to an older state, and the caches hold changes that no longer exist.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::coordination::v1::{Lease as Object, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams, WatchEvent, WatchParams};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tsujiban_core::clock::Clock;
use tsujiban_core::error::chain;

use crate::fence::Fence;

/// How long a lease is valid without being renewed.
pub const TTL: Duration = Duration::from_secs(15);
/// How often a rival reads the lease, at least.
const LOOK: Duration = Duration::from_secs(1);
/// How long a rival's watch lasts, in seconds.
const WATCH: u32 = 60;

/// A claim to lead.
pub struct Lease {
    pub api: Api<Object>,
    pub name: String,
    /// The name of this claimant, different in each process.
    pub identity: String,
    pub ttl: Duration,
    pub clock: Arc<dyn Clock>,
    /// Is given the time until which this replica leads.
    pub fence: Fence,
}

/// A rival's watch on the lease.
type Changes = Pin<Box<dyn Stream<Item = Result<WatchEvent<Object>, kube::Error>> + Send>>;

/// Another replica's lease as observed: its resourceVersion, and since when it has not changed by our clock.
type Seen = Option<(Option<String>, Instant)>;

impl Lease {
    /// Claims the lease for ever, and sets `leads` whenever it is gained or lost.
    pub async fn run(&self, leads: watch::Sender<bool>) {
        let mut seen: Seen = None;
        let mut written: Option<u64> = None;
        let mut until: Option<Instant> = None;
        let mut changes: Option<Changes> = None;
        loop {
            let start = Instant::now();
            let limit = start + self.ttl / 4;
            match timeout_at(until.map_or(limit, |until| limit.min(until)), self.step(&mut seen, &mut written)).await {
                Ok(Ok(true)) => until = Some(start + self.ttl * 2 / 3),
                Ok(Ok(false)) => until = None,
                Ok(Err(error)) => tracing::warn!(error = chain(&error), "the lease could not be renewed"),
                Err(_) => tracing::warn!("the lease could not be renewed in time"),
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                until = None;
            }
            self.fence.lead(until);
            leads.send_if_modified(|leads| std::mem::replace(leads, until.is_some()) != until.is_some());
            let next = start + self.ttl / 6;
            if let Some(until) = until {
                changes = None;
                sleep_until(next.min(until)).await;
            } else {
                let version = seen.as_ref().and_then(|(version, _)| version.as_deref());
                let _changed = timeout_at(next.min(start + LOOK), self.change(&mut changes, version)).await;
            }
        }
    }

    /// Waits until the lease changes. Waits for ever if it cannot be watched: the caller reads it regularly all the same.
    async fn change(&self, changes: &mut Option<Changes>, version: Option<&str>) {
        if changes.is_none() {
            let parameters = WatchParams::default().fields(&format!("metadata.name={}", self.name)).timeout(WATCH);
            match self.api.watch(&parameters, version.unwrap_or("0")).await {
                Ok(stream) => *changes = Some(stream.boxed()),
                Err(error) => tracing::debug!(error = chain(&error), "the lease cannot be watched"),
            }
        }
        if let Some(stream) = changes.as_mut() {
            if matches!(stream.next().await, Some(Ok(WatchEvent::Added(_) | WatchEvent::Modified(_) | WatchEvent::Deleted(_)))) {
                return;
            }
            *changes = None;
        }
        std::future::pending::<()>().await;
    }

    /// Releases the lease, so that the next replica need not wait. Best effort.
    pub async fn release(&self) {
        let given_up = timeout(self.ttl / 4, async {
            loop {
                let Some(mut lease) = self.api.get_opt(&self.name).await? else { return Ok(()) };
                if !self.is_mine(&lease) {
                    return Ok(());
                }
                if let Some(spec) = lease.spec.as_mut() {
                    spec.holder_identity = None;
                }
                match self.api.replace(&self.name, &PostParams::default(), &lease).await {
                    Err(kube::Error::Api(status)) if status.is_conflict() => {} // a renewal in progress came first
                    other => return other.map(|_| ()),
                }
            }
        });
        match given_up.await {
            Ok(Ok(())) => tracing::info!("the lease is released"),
            Ok(Err(error)) => tracing::warn!(error = chain(&error), "the lease could not be released; it runs out by itself"),
            Err(_) => tracing::warn!("the lease could not be released in time; it runs out by itself"),
        }
    }

    /// Takes or renews the lease if that is possible. Returns whether it is held.
    async fn step(&self, seen: &mut Seen, written: &mut Option<u64>) -> Result<bool, kube::Error> {
        let found = self.api.get_opt(&self.name).await?;
        if written.is_some() && found.as_ref().is_none_or(|lease| version(lease) < *written) {
            *written = None;
            tracing::warn!("the lease is older than it was: the cluster was brought back to an old copy; beginning anew");
            return Ok(false);
        }
        let claimed = match found {
            None => self.api.create(&PostParams::default(), &self.claimed(None)).await,
            Some(lease) if self.is_mine(&lease) || is_free(&lease) || self.has_run_out(&lease, seen) => {
                self.api.replace(&self.name, &PostParams::default(), &self.claimed(Some(lease))).await
            }
            Some(_) => return Ok(false),
        };
        match claimed {
            Ok(lease) => {
                *written = version(&lease);
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false), // another replica was faster
            Err(error) => Err(error),
        }
    }

    fn is_mine(&self, lease: &Object) -> bool {
        lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_ref()) == Some(&self.identity)
    }

    /// Whether another replica's lease has not been renewed for its whole time to live while we observed it.
    fn has_run_out(&self, lease: &Object, seen: &mut Seen) -> bool {
        let version = &lease.metadata.resource_version;
        match seen {
            Some((known, since)) if known == version => since.elapsed() >= self.ttl,
            _ => {
                *seen = Some((version.clone(), Instant::now()));
                false
            }
        }
    }

    fn claimed(&self, previous: Option<Object>) -> Object {
        let now = MicroTime(self.clock.now());
        let mine = previous.as_ref().is_some_and(|lease| self.is_mine(lease));
        let previous = previous.unwrap_or_default();
        let spec = previous.spec.unwrap_or_default();
        let transitions = spec.lease_transitions.unwrap_or(0);
        Object {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                resource_version: previous.metadata.resource_version,
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                acquire_time: if mine { spec.acquire_time } else { Some(now.clone()) },
                renew_time: Some(now),
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(self.ttl.as_secs()).ok(),
                lease_transitions: Some(if mine { transitions } else { transitions.saturating_add(1) }),
                ..LeaseSpec::default()
            }),
        }
    }
}

/// The resourceVersion as a number, which grows (Kubernetes 1.35 and later promise it). One that is no number is `None`, which compares as
/// older than any number.
fn version(lease: &Object) -> Option<u64> {
    lease.metadata.resource_version.as_ref()?.parse().ok()
}

fn is_free(lease: &Object) -> bool {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).is_none_or(str::is_empty)
}
