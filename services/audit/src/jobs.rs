//! Periodic jobs: put root lists, rewrap keys with the mounted epoch keys, destroy expired days, scrub, and check the clock, whether the
//! database can be written, and whether it is intact.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tsujiban_core::error::chain;
use tsujiban_service::health::Health;
use tsujiban_service::history::History;
use tsujiban_service::jobs::{interrupted, repeat, report, rest_after};
use tsujiban_service::settings::KeyArgs;
use tsujiban_service::writing;

use crate::engine::Standing;
use crate::scrub::{Scrub, Step, pace};
use crate::service::Audit;
use crate::synchronised::Synchronisation;

const KEYS: Duration = Duration::from_secs(30);
const ROOTS: Duration = Duration::from_mins(1);
const CLOCK: Duration = Duration::from_secs(30);
const RETENTION: Duration = Duration::from_mins(10);
/// The pause after a failure of the scrub.
const SCRUB: Duration = Duration::from_mins(1);

/// Runs all jobs until `stop` is cancelled.
pub async fn run(audit: Arc<Audit>, own: History, keys: KeyArgs, scrub: Scrub, health: Health, stop: CancellationToken) {
    let keys = repeat(&stop, || async {
        report("keys", follow_keys(&audit, &own, &keys).await);
        KEYS
    });
    let roots = repeat(&stop, || async {
        report("roots", audit.follow_roots().await.map_err(|error| chain(&error)));
        health.set_able(audit.engine.standing() == Standing::Sound).await;
        ROOTS
    });
    let retention = repeat(&stop, || async {
        // a history that is not the newest one must not change
        if audit.engine.standing() == Standing::Sound {
            report("retention", audit.expire().await.map_err(|error| chain(&error)));
        }
        report("signing key", audit.keep_signing_key().await.map_err(|error| chain(&error)));
        RETENTION
    });
    let clock = repeat(&stop, || async {
        match Synchronisation::read() {
            Ok(clock) => clock.show(&audit.metrics),
            Err(error) => report::<()>("clock", Err(error.to_string())),
        }
        CLOCK
    });
    let writing = writing::follow(&audit.writing, &health, &stop, || audit.try_write());
    let checks = repeat(&stop, || async {
        let begun = Instant::now();
        report("database check", audit.check_database().await.map_err(|error| chain(&error)));
        rest_after(begun.elapsed())
    });
    let scrub = Mutex::new(scrub);
    let scrub = repeat(&stop, || async {
        let begun = Instant::now();
        match scrub.lock().await.step(&audit).await {
            Ok(Step::Read { left, until }) => pace::rest(left, until.duration_since(audit.now()), begun.elapsed()),
            Ok(Step::Idle) => pace::IDLE,
            Err(error) => {
                report::<()>("scrub", Err(chain(&error)));
                SCRUB
            }
        }
    });
    futures::join!(keys, roots, retention, clock, scrub, writing, interrupted(&stop, checks));
}

async fn follow_keys(audit: &Audit, own: &History, keys: &KeyArgs) -> Result<(), String> {
    audit.rotate_keys(&keys.epoch_keys().await?).await.map_err(|error| chain(&error))?;
    own.follow_epochs().map_err(|error| chain(&error))
}
