//! What happens by itself: keys follow the mounted epoch keys, what is past its time goes, the canary is tried.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tsujiban_sealing::files;

use crate::error::chain;
use crate::service::Backup;

const KEYS: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// Runs all jobs until `stop` is cancelled.
pub async fn run(backup: Arc<Backup>, epoch_keys: PathBuf, stop: CancellationToken) {
    let keys = repeat(&stop, || async {
        report("keys", follow_keys(&backup, epoch_keys.clone()).await);
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
    futures::join!(keys, expiry, sweep, canary);
}

/// Runs a job at once, and again after as long as it says.
async fn repeat<F: Future<Output = Duration>>(stop: &CancellationToken, job: impl Fn() -> F) {
    loop {
        let wait = job().await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn follow_keys(backup: &Backup, dir: PathBuf) -> Result<(), String> {
    let mounted = tokio::task::spawn_blocking(move || files::epoch_keys(&dir)).await;
    let mounted = mounted.map_err(|error| error.to_string())?.map_err(|error| chain(&error))?;
    backup.rotate_keys(&mounted).await.map(drop).map_err(|error| chain(&error))
}

fn report<T>(job: &str, result: Result<T, String>) {
    if let Err(error) = result {
        tracing::error!(job, error, "a job failed; it is tried again");
    }
}
