//! A whole run: all devices of the group, each in its turn, a bounded number at a time.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::select;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tsujiban_core::id::DeviceName;
use tsujiban_proto::error::Kind;

use crate::attempt::Context;
use crate::backup::{BackupError, NoBackup};
use crate::network::Network;
use crate::outcome::{Finished, Outcome};
use crate::plan::turns;
use crate::random::Random;
use crate::target::Target;

/// How long configs that are being stored may still take after `stop`.
pub const GRACE: Duration = Duration::from_secs(15);

/// Checks that the backup service accepts calls of this group, before any device is connected to.
pub async fn check<N: Network>(context: &Context<N>, endpoint: &str, targets: &[Target]) -> Result<(), NoBackup> {
    let Some(first) = targets.first() else { return Ok(()) };
    match context.backup.pinned(first).await {
        Ok(_) => Ok(()),
        // an error about this one device does not concern the others
        Err(BackupError::Service(error)) if matches!(error.kind, Kind::Invalid | Kind::NotFound | Kind::DataLoss) => Ok(()),
        Err(source) => Err(NoBackup::Refuses { endpoint: endpoint.to_owned(), source }),
    }
}

/// Backs up all targets. The window is counted from `begin`. After `stop` nothing new is started, what is being stored is
/// finished, and the rest is reported as interrupted and recorded nowhere.
pub async fn run<N: Network>(
    context: &Context<N>,
    targets: Vec<Target>,
    random: &Random,
    begin: Instant,
    stop: &CancellationToken,
) -> Vec<Finished> {
    let mut missing: BTreeSet<DeviceName> = targets.iter().map(|target| target.name.clone()).collect();
    let run_ends = begin + context.limits.run();
    let spread_from = Instant::now();
    let slots = &Semaphore::new(context.limits.max_concurrent);
    let mut running = pin!(
        stream::iter(turns(targets, &context.limits, random))
            .then(|turn| async move {
                select! {
                    () = sleep_until((spread_from + turn.after).min(run_ends)) => {}
                    () = stop.cancelled() => {}
                }
                turn.of
            })
            .map(|target| async move { context.attempt(&target, slots, run_ends, stop).await })
            .buffer_unordered(context.limits.max_concurrent.saturating_mul(2)) // twice: half only connect and wait for a slot
    );
    let mut given_up = pin!(async {
        stop.cancelled().await;
        sleep(GRACE).await;
    });
    let mut finished = Vec::new();
    loop {
        let next = select! {
            biased;
            next = running.next() => next,
            () = &mut given_up => None,
        };
        let Some(next) = next else { break };
        missing.remove(&next.device);
        log(&next);
        finished.push(next);
    }
    let lost = |device| Finished { device, outcome: Outcome::Interrupted, took: begin.elapsed(), recorded: false };
    finished.extend(missing.into_iter().map(lost));
    finished.sort_by(|a, b| a.device.cmp(&b.device));
    finished
}

fn log(finished: &Finished) {
    let Finished { device, outcome, took, recorded } = finished;
    let seconds = took.as_secs_f32();
    match outcome {
        Outcome::Changed { bytes } => info!(%device, result = "changed", bytes, seconds, "device backed up"),
        Outcome::Unchanged { bytes } => info!(%device, result = "unchanged", bytes, seconds, "device backed up"),
        Outcome::Failed(failure) => {
            warn!(%device, result = %failure.reason, message = failure.message, seconds, recorded, "device not backed up");
        }
        Outcome::Erased => info!(%device, result = "erased", "the device was deleted in the meantime"),
        Outcome::Interrupted => info!(%device, result = "interrupted", "device not backed up"),
    }
}
