//! What the scrub costs those who append meanwhile.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use jiff::SignedDuration;
use tsujiban_audit::engine::Addition;
use tsujiban_audit::scrub::{Scrub, Step, pace};
use tsujiban_audit::service::Audit;
use tsujiban_core::clock::{Clock, SystemClock};

use super::entries::{BYTES, Entries};
use super::service::Service;
use super::{ROUNDS, SCRUB, as_f64, each, median, millis, p99};
use crate::figure::{Figure, Measured, Target};
use crate::load;
use crate::progress::step;

/// What is there, and what comes.
struct Work {
    /// How many entries there are before.
    size: u64,
    calls: u64,
    rounds: usize,
}

const WORK: Work = Work { size: 300_000, calls: 1500, rounds: ROUNDS };
/// How many entries a year has: 100,000 a day.
const YEAR: u64 = 36_500_000;
const WEEK: Duration = Duration::from_hours(7 * 24);
const BATCH: u64 = 16;
const EVERY: Duration = Duration::from_millis(BATCH);

pub async fn cost(disk: &Path) -> Result<Measured> {
    let Work { size, calls, rounds } = WORK;
    let (on, off) = both(disk, &WORK).await?;
    let note = format!(
        "99th percentile of {calls} appends of {BATCH} entries of {BYTES} bytes, one every {} ms whether or not those before were answered, straight \
         to the engine, with the scrub on, which reads a log of {size} entries at the pace at which it reads {YEAR} within 7 days; beside the same \
         without it; median of {rounds} rounds each in turns ({}; {})",
        EVERY.as_millis(),
        each(&on),
        each(&off),
    );
    Ok(Measured { figure: Figure::new(SCRUB, median(on), "ms", median(off), note), target: Target::RatioAtMost(1.2) })
}

/// What each round takes with the scrub and without it, in milliseconds. The scrub runs as it does for a whole year's entries within a week,
/// on fewer: the period is as much shorter as they are fewer.
async fn both(disk: &Path, work: &Work) -> Result<(Vec<f64>, Vec<f64>)> {
    step(&format!("{SCRUB}: a log is filled with {} entries", work.size));
    let service = Service::open(disk).await?;
    service.fill(work.size).await?;
    let period = SignedDuration::try_from(WEEK.mul_f64(as_f64(work.size) / as_f64(YEAR)))?;
    let (mut on, mut off, mut next) = (Vec::new(), Vec::new(), work.size);
    for round in 1..=work.rounds {
        step(&format!("{SCRUB}: a batch every {} ms, without and with the scrub, round {round} of {}", EVERY.as_millis(), work.rounds));
        off.push(append(&service, &mut next, work.calls).await?);
        let mut scrub = tokio::spawn(scrub(Arc::clone(&service.audit), period));
        on.push(append(&service, &mut next, work.calls).await?);
        if scrub.is_finished() {
            (&mut scrub).await??;
        }
        scrub.abort();
    }
    ensure!(service.metrics.scrub_checked.get() > 0, "the scrub read nothing");
    Ok((on, off))
}

/// The 99th percentile in milliseconds.
async fn append(service: &Service, next: &mut u64, calls: u64) -> Result<f64> {
    let (entries, first) = (Entries::new()?, *next);
    *next += calls * BATCH;
    let batch = |call: u64| {
        let first = first + call * BATCH;
        (first..first + BATCH).map(|n| entries.addition(n, 1)).collect::<Result<Vec<Addition>>>()
    };
    let work = (0..calls).map(batch).collect::<Result<_>>()?;
    let took = load::paced(work, EVERY, |_, batch| {
        let engine = service.audit.engine.clone();
        async move {
            engine.append(batch).await?;
            Ok(())
        }
    })
    .await?;
    Ok(millis(p99(took)))
}

/// As the service does, until it fails or is aborted.
async fn scrub(audit: Arc<Audit>, period: SignedDuration) -> Result<()> {
    let mut scrub = Scrub::new(period).healing_from(audit.clone());
    loop {
        let begun = Instant::now();
        let rest = match scrub.step(&audit).await? {
            Step::Read { left, until } => pace::rest(left, until.duration_since(SystemClock.now()), begun.elapsed()),
            Step::Idle => pace::IDLE,
        };
        tokio::time::sleep(rest).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_round_has_both_sides() {
        let disk = tempfile::tempdir().unwrap();
        let (on, off) = both(disk.path(), &Work { size: 600, calls: 20, rounds: 1 }).await.unwrap();
        assert!(on.iter().chain(&off).all(|took| *took > 0.0));
        assert_eq!((on.len(), off.len()), (1, 1));
    }
}
