//! Background jobs: data keys are rewrapped for the mounted epoch keys, the key table is compared with its copy and the catalogue with the
//! bucket, expired objects are deleted, everything is read again, the canary runs, and it is checked that the service can write and that
//! its database is intact.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tsujiban_core::error::chain;
use tsujiban_service::health::Health;
use tsujiban_service::jobs::{interrupted, repeat, report, rest_after};
use tsujiban_service::settings::KeyArgs;
use tsujiban_service::writing;

use crate::scrub::Scrub;
use crate::service::Backup;

const KEYS: Duration = Duration::from_secs(30);
const KEY_TABLE: Duration = Duration::from_mins(5);
/// The same while the keys are lost: what becomes known is listed soon.
const LOST_KEY_TABLE: Duration = Duration::from_secs(15);
/// After how long a failed step of the scrub is tried again, as when the storage is unreachable.
const SCRUB_AGAIN: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// Runs all jobs until `stop` is cancelled. In each period `scrub` everything that is stored is read again at least once.
pub async fn run(backup: Arc<Backup>, keys: KeyArgs, scrub: SignedDuration, health: Health, stop: CancellationToken) {
    let keys = repeat(&stop, || async {
        report("keys", follow_keys(&backup, &keys).await);
        KEYS
    });
    let key_table = repeat(&stop, || async {
        report("key table", check_keys(&backup).await);
        if backup.key_table_is_lost() { LOST_KEY_TABLE } else { KEY_TABLE }
    });
    let expiry = repeat(&stop, || async {
        report("expiry", backup.expire().await.map_err(|error| chain(&error)));
        HOUR
    });
    let sweep = repeat(&stop, || async {
        report("sweep", backup.sweep().await.map_err(|error| chain(&error)));
        DAY
    });
    let next = Mutex::new(Scrub::default());
    let scrub = repeat(&stop, || async {
        let wait = backup.scrub_step(&mut *next.lock().await, scrub).await;
        let pause = wait.as_ref().copied().unwrap_or(SCRUB_AGAIN);
        report("scrub", wait.map_err(|error| chain(&error)));
        pause
    });
    let canary = repeat(&stop, || async {
        let passed = backup.run_canary().await.map(|canary| canary.passed);
        let wait = if matches!(passed, Ok(true)) { DAY } else { HOUR };
        report("canary", passed.map_err(|error| chain(&error)));
        wait
    });
    let writing = writing::follow(&backup.writing, &health, &stop, || backup.try_write());
    let checks = repeat(&stop, || async {
        let begun = Instant::now();
        report("database check", backup.check_database().await.map_err(|error| chain(&error)));
        rest_after(begun.elapsed())
    });
    futures::join!(keys, key_table, expiry, sweep, scrub, canary, writing, interrupted(&stop, checks));
}

async fn follow_keys(backup: &Backup, keys: &KeyArgs) -> Result<(), String> {
    backup.rotate_keys(&keys.epoch_keys().await?).await.map_err(|error| chain(&error))?;
    match &backup.history {
        Some(history) => history.follow_epochs().map_err(|error| chain(&error)),
        None => Ok(()),
    }
}

/// The copy first: it may restore wrappings that are damaged here.
async fn check_keys(backup: &Backup) -> Result<(), String> {
    backup.compare_key_table().await.map_err(|error| chain(&error))?;
    backup.check_wrappings().await.map_err(|error| chain(&error))?;
    backup.follow_key_loss().await.map_err(|error| chain(&error))?;
    backup.heal_rows().await.map_err(|error| chain(&error))?;
    backup.record_erasures().await.map_err(|error| chain(&error))?;
    backup.report_damage().await.map_err(|error| chain(&error))
}
