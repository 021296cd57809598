//! What happens by itself: keys follow the mounted epoch keys, what is past its time goes, the canary is tried, and so
//! is whether something can be stored and whether the database holds together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tsujiban_core::error::chain;
use tsujiban_service::health::Health;
use tsujiban_service::jobs::{interrupted, repeat, report, rest_after};
use tsujiban_service::settings::KeyArgs;
use tsujiban_service::writing;

use crate::service::Backup;

const KEYS: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// Runs all jobs until `stop` is cancelled.
pub async fn run(backup: Arc<Backup>, keys: KeyArgs, health: Health, stop: CancellationToken) {
    let keys = repeat(&stop, || async {
        report("keys", follow_keys(&backup, &keys).await);
        KEYS
    });
    let expiry = repeat(&stop, || async {
        report("expiry", backup.expire().await.map_err(|error| chain(&error)));
        HOUR
    });
    let sweep = repeat(&stop, || async {
        report("sweep", backup.sweep().await.map_err(|error| chain(&error)));
        DAY
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
    futures::join!(keys, expiry, sweep, canary, writing, interrupted(&stop, checks));
}

async fn follow_keys(backup: &Backup, keys: &KeyArgs) -> Result<(), String> {
    backup.rotate_keys(&keys.epoch_keys().await?).await.map_err(|error| chain(&error))?;
    match &backup.history {
        Some(history) => history.follow_epochs().map_err(|error| chain(&error)),
        None => Ok(()),
    }
}
