//! What happens by itself: root lists, keys that follow the mounted epoch keys, days that go, a look at the clock.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tsujiban_sealing::files;
use tsujiban_service::health::Health;
use tsujiban_service::history::History;

use crate::engine::Standing;
use crate::error::chain;
use crate::service::Audit;
use crate::synchronised::Synchronisation;

const KEYS: Duration = Duration::from_secs(30);
const ROOTS: Duration = Duration::from_mins(1);
const CLOCK: Duration = Duration::from_secs(30);
const RETENTION: Duration = Duration::from_mins(10);

/// Runs all jobs until `stop` is cancelled.
pub async fn run(audit: Arc<Audit>, own: History, epoch_keys: PathBuf, health: Health, stop: CancellationToken) {
    let keys = repeat(&stop, KEYS, || async {
        report("keys", follow_keys(&audit, &own, epoch_keys.clone()).await);
    });
    let roots = repeat(&stop, ROOTS, || async {
        report("roots", audit.follow_roots().await.map_err(|error| chain(&error)));
        health.set_able(audit.engine.standing() == Standing::Sound).await;
    });
    let retention = repeat(&stop, RETENTION, || async {
        // a history that is not the newest one does not change
        if audit.engine.standing() == Standing::Sound {
            report("retention", audit.expire().await.map(drop).map_err(|error| chain(&error)));
        }
    });
    let clock = repeat(&stop, CLOCK, || async {
        match Synchronisation::read() {
            Ok(clock) => clock.show(&audit.metrics),
            Err(error) => report("clock", Err(error.to_string())),
        }
    });
    futures::join!(keys, roots, retention, clock);
}

/// Runs a job at once, and again and again.
async fn repeat<F: Future<Output = ()>>(stop: &CancellationToken, every: Duration, job: impl Fn() -> F) {
    loop {
        job().await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
    }
}

async fn follow_keys(audit: &Audit, own: &History, dir: PathBuf) -> Result<(), String> {
    let mounted = tokio::task::spawn_blocking(move || files::epoch_keys(&dir)).await;
    let mounted = mounted.map_err(|error| error.to_string())?.map_err(|error| chain(&error))?;
    audit.rotate_keys(&mounted).await.map_err(|error| chain(&error))?;
    own.follow_epochs().map_err(|error| chain(&error))
}

fn report(job: &str, result: Result<(), String>) {
    if let Err(error) = result {
        tracing::error!(job, error, "a job failed; it is tried again");
    }
}
