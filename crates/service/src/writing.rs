//! Whether a service can store data, and why not: for its readiness, its metric, its report to the operator, and its callers.
//!
//! A service that cannot write reports this and still serves reads. It tries its database by a small write every few seconds, and a write
//! that fails in a call counts at once. No restart is needed: the next write that succeeds makes the service able again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use prometheus::{IntGauge, Registry};
use tokio_util::sync::CancellationToken;
use tsujiban_core::clock::Clock;
use tsujiban_proto::error::{CANNOT_WRITE, Kind, ServiceError};
use tsujiban_proto::lifecycle::v1::Writing;
use tsujiban_proto::time::to_wire;

use crate::health::Health;
use crate::jobs::repeat;

/// How often the database is tried, and how long one try may take: together less than the minute within which the service has to become not
/// ready.
const EVERY: Duration = Duration::from_secs(10);
const DEADLINE: Duration = Duration::from_secs(15);

/// What a service writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// The database accepts no writes.
    Database,
    /// The database accepts writes, but its content is malformed.
    Integrity,
    /// The object storage accepts no objects. Its outage alone leaves the service ready: it can still report the outcome of each call.
    Storage,
}

/// What keeps a service from writing, resource by resource. Pure.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Obstacles {
    database: Option<String>,
    integrity: Option<String>,
    storage: Option<String>,
    since: Timestamp,
}

impl Obstacles {
    const fn none(since: Timestamp) -> Self {
        Self { database: None, integrity: None, storage: None, since }
    }

    /// Notes the obstacle that was found, and returns whether the state changed. `since` changes only when the ability does.
    fn note(&mut self, resource: Resource, found: Option<String>, now: Timestamp) -> bool {
        let was_able = self.is_able();
        let known = match resource {
            Resource::Database => &mut self.database,
            Resource::Integrity => &mut self.integrity,
            Resource::Storage => &mut self.storage,
        };
        if *known == found {
            return false;
        }
        *known = found;
        if self.is_able() != was_able {
            self.since = now;
        }
        true
    }

    const fn is_able(&self) -> bool {
        self.is_ready() && self.storage.is_none()
    }

    const fn is_ready(&self) -> bool {
        self.database.is_none() && self.integrity.is_none()
    }

    /// The reasons, the worst first. Empty when there is none.
    fn reason(&self) -> String {
        [&self.integrity, &self.database, &self.storage].into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join("; ")
    }
}

/// Whether a service can write. Clones share the state.
#[derive(Clone)]
pub struct WriteState {
    obstacles: Arc<Mutex<Obstacles>>,
    clock: Arc<dyn Clock>,
    writable: IntGauge,
}

impl WriteState {
    /// Able until something fails. `prefix` begins the metric's name, such as `tsujiban_backup`. Fails when the registry has the metric
    /// already.
    pub fn new(prefix: &str, registry: &Registry, clock: Arc<dyn Clock>) -> Result<Self, prometheus::Error> {
        let writable = IntGauge::new(
            format!("{prefix}_writable"),
            "1 while the service can store what it is given: its database, and objects where it puts them; the log and the report say why not.",
        )?;
        registry.register(Box::new(writable.clone()))?;
        writable.set(1);
        Ok(Self { obstacles: Arc::new(Mutex::new(Obstacles::none(clock.now()))), clock, writable })
    }

    /// Notes that something could not be written. `reason` says what to do.
    pub fn fails(&self, resource: Resource, reason: String) {
        self.note(resource, Some(reason));
    }

    /// Notes that something was written.
    pub fn works(&self, resource: Resource) {
        self.note(resource, None);
    }

    fn note(&self, resource: Resource, found: Option<String>) {
        let mut obstacles = self.obstacles.lock().unwrap_or_else(PoisonError::into_inner);
        if !obstacles.note(resource, found, self.clock.now()) {
            return;
        }
        self.writable.set(i64::from(obstacles.is_able()));
        if obstacles.is_able() {
            tracing::info!("the service can write again");
        } else {
            tracing::error!(reason = obstacles.reason(), ready = obstacles.is_ready(), "the service cannot write");
        }
    }

    /// Whether the service is ready, as far as writing goes.
    pub fn is_ready(&self) -> bool {
        self.obstacles.lock().unwrap_or_else(PoisonError::into_inner).is_ready()
    }

    /// Whether the storage accepted the newest object.
    pub fn storage_works(&self) -> bool {
        self.obstacles.lock().unwrap_or_else(PoisonError::into_inner).storage.is_none()
    }

    /// Refuses a call that has to write to the database, before it changes anything outside. A storage that fails refuses no call: it is
    /// tried again.
    pub fn check(&self) -> Result<(), ServiceError> {
        let obstacles = self.obstacles.lock().unwrap_or_else(PoisonError::into_inner);
        if obstacles.is_ready() {
            return Ok(());
        }
        let message = format!("nothing can be stored at the moment, so nothing was: {}", obstacles.reason());
        Err(ServiceError::new(Kind::Unavailable, CANNOT_WRITE, message))
    }

    /// The error of a call that reads the database. A known obstacle explains more than the error, and says what to do.
    pub fn explain(&self, error: ServiceError) -> ServiceError {
        let obstacles = self.obstacles.lock().unwrap_or_else(PoisonError::into_inner);
        if obstacles.is_ready() { error } else { ServiceError::new(Kind::Unavailable, CANNOT_WRITE, obstacles.reason()) }
    }

    /// The report for the operator.
    pub fn report(&self) -> Writing {
        let obstacles = self.obstacles.lock().unwrap_or_else(PoisonError::into_inner);
        Writing { able: obstacles.is_able(), reason: obstacles.reason(), since: Some(to_wire(obstacles.since)) }
    }
}

/// Tries to write every few seconds until `stop` is cancelled, and keeps the service's readiness in step. `try_write` answers why it failed.
pub async fn follow<F>(state: &WriteState, health: &Health, stop: &CancellationToken, try_write: impl Fn() -> F)
where
    F: Future<Output = Result<(), String>>,
{
    repeat(stop, || async {
        match tokio::time::timeout(DEADLINE, try_write()).await {
            Ok(Ok(())) => state.works(Resource::Database),
            Ok(Err(reason)) => state.fails(Resource::Database, reason),
            Err(_) => state
                .fails(Resource::Database, format!("the database did not take a write within {} s; it is tried again", DEADLINE.as_secs())),
        }
        health.set_writable(state.is_ready()).await;
        EVERY
    })
    .await;
}

#[cfg(test)]
mod tests {
    use tsujiban_core::clock::ManualClock;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn readiness_and_ability_follow_from_what_was_found() {
        let mut obstacles = Obstacles::none(at(0));
        // what was found, at which second; then ready, able, since when, and why not
        let table = [
            (Resource::Storage, Some("no route"), 1, (true, false, 1, "no route")),
            (Resource::Database, Some("full"), 2, (false, false, 1, "full; no route")),
            (Resource::Storage, None, 3, (false, false, 1, "full")),
            (Resource::Integrity, Some("malformed"), 4, (false, false, 1, "malformed; full")),
            (Resource::Database, None, 5, (false, false, 1, "malformed")),
            (Resource::Integrity, None, 6, (true, true, 6, "")),
        ];
        for (resource, found, second, (ready, able, since, reason)) in table {
            assert!(obstacles.note(resource, found.map(str::to_owned), at(second)));
            assert!(!obstacles.note(resource, found.map(str::to_owned), at(99)), "the same again changes nothing");
            let seen = (obstacles.is_ready(), obstacles.is_able(), obstacles.since, obstacles.reason());
            assert_eq!(seen, (ready, able, at(since), reason.to_owned()), "{second}");
        }
    }

    fn state() -> (WriteState, Arc<ManualClock>, Registry) {
        let (clock, registry) = (Arc::new(ManualClock::new(at(100))), Registry::new());
        (WriteState::new("tsujiban_backup", &registry, clock.clone()).unwrap(), clock, registry)
    }

    fn is_writable(registry: &Registry) -> bool {
        registry.gather()[0].get_metric()[0].get_gauge().get_value() > 0.5
    }

    #[test]
    fn callers_the_operator_and_the_metric_are_told() {
        let (state, clock, registry) = state();
        state.check().unwrap();
        assert!(state.report().able && is_writable(&registry));
        clock.advance(jiff::SignedDuration::from_secs(5));
        state.fails(Resource::Storage, "the storage cannot be reached".into());
        state.check().unwrap();
        assert!(!state.storage_works() && state.is_ready() && !is_writable(&registry));
        state.fails(Resource::Database, "the disk is full".into());
        let refused = state.check().unwrap_err();
        assert_eq!((refused.kind, refused.reason.as_str()), (Kind::Unavailable, CANNOT_WRITE));
        assert!(refused.message.contains("the disk is full"), "{}", refused.message);
        let report = state.report();
        assert_eq!((report.able, report.since), (false, Some(to_wire(at(105)))));
        assert_eq!(report.reason, "the disk is full; the storage cannot be reached");
        state.works(Resource::Database);
        state.works(Resource::Storage);
        assert!(state.report().able && is_writable(&registry));
    }

    /// Within a minute not ready, and ready again by itself; also when the database does not answer at all.
    #[tokio::test(start_paused = true)]
    async fn readiness_follows_within_a_minute() {
        for hangs in [false, true] {
            let (state, _, _) = state();
            let (health, stop) = (Health::new(), CancellationToken::new());
            health.set_accepting(true).await;
            let works = Arc::new(std::sync::atomic::AtomicBool::new(true));
            let job = tokio::spawn({
                let (state, health, stop, works) = (state.clone(), health.clone(), stop.clone(), works.clone());
                async move {
                    let try_write = || async {
                        if works.load(std::sync::atomic::Ordering::SeqCst) {
                            return Ok(());
                        }
                        if hangs { std::future::pending().await } else { Err("the disk is full".into()) }
                    };
                    follow(&state, &health, &stop, try_write).await;
                }
            });
            for able in [true, false, true] {
                works.store(able, std::sync::atomic::Ordering::SeqCst);
                tokio::time::sleep(Duration::from_mins(1)).await;
                assert_eq!((health.is_ready(), state.is_ready()), (able, able), "hangs: {hangs}");
            }
            stop.cancel();
            job.await.unwrap();
        }
    }
}
