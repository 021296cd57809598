//! How fast a history whose database is lost comes back from the bucket.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tsujiban_audit::engine::Standing;
use tsujiban_audit::owner::Owner;
use tsujiban_audit::reading::Log;

use super::entries::{BYTES, Entries, group};
use super::service::{Outside, Service};
use super::{REBUILD, ROUNDS, each, median, rate as per_second};
use crate::figure::{Figure, Measured, Target};
use crate::progress::step;

const GROUPS: u64 = 10;

/// What is appended before the database is lost.
struct Work {
    /// How many root lists there are, and parts of the archive: each a minute's entries.
    lists: u64,
    in_flight: u64,
    /// How many entries each caller appends before a list is put.
    each: u64,
}

const WORK: Work = Work { lists: 10, in_flight: 4096, each: 5 };

impl Work {
    fn entries(&self) -> u64 {
        self.lists * self.in_flight * self.each
    }
}

pub async fn rate(disk: &Path) -> Result<Measured> {
    let (entries, Work { lists, in_flight, .. }) = (WORK.entries(), WORK);
    let (mut rebuilt, mut appended) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        step(&format!("{REBUILD}: {entries} entries are appended, and come back from the bucket, round {round} of {ROUNDS}"));
        let (back, before) = both(disk, &WORK).await?;
        rebuilt.push(per_second(entries, back));
        appended.push(per_second(entries, before));
    }
    let note = format!(
        "{entries} entries of {BYTES} bytes over {GROUPS} groups, in {lists} root lists, brought back into an empty database from a bucket in \
         memory, from the start of the service until all of it is checked and can be written to; beside appending them to the engine in process, \
         {in_flight} in flight, without the time in which lists are put; median of {ROUNDS} rounds each ({}; {})",
        each(&rebuilt),
        each(&appended),
    );
    let figure = Figure::new(REBUILD, median(rebuilt), "entries/s", median(appended), note);
    Ok(Measured { figure, target: Target::RatioAtLeast(1.0) })
}

/// How long it takes until a service with an empty database has everything back, and how long the appending took.
async fn both(disk: &Path, work: &Work) -> Result<(Duration, Duration)> {
    let outside = Outside::new()?;
    let service = Service::open_beside(disk, &outside).await?;
    let appended = append(&service, work).await?;
    let mut logs = Vec::new();
    for n in 0..GROUPS {
        logs.push(service.audit.some_log_of(&Owner::parse(&group(n))?).await?);
    }
    let size: u64 = logs.iter().map(Log::size).sum();
    ensure!(size == work.entries(), "{size} entries were appended");
    drop(service);
    let begun = Instant::now();
    let service = Service::open_beside(disk, &outside).await?;
    service.audit.compare_at_start().await?;
    ensure!(service.audit.engine.standing() != Standing::Sound, "nothing was lost");
    service.audit.follow_roots().await?;
    let rebuilt = begun.elapsed();
    let standing = service.audit.engine.standing();
    ensure!(standing == Standing::Sound, "the history did not come back: {standing:?}");
    for log in logs {
        let back = service.audit.log_by_id(&log.id).await?.context("a log did not come back")?;
        ensure!(back.head() == log.head(), "log {} came back as another one", log.id);
    }
    Ok((rebuilt, appended))
}

/// How long the appending took. All of it is in the bucket afterwards.
async fn append(service: &Service, work: &Work) -> Result<Duration> {
    let (entries, mut took) = (Entries::new()?, Duration::ZERO);
    for list in 0..work.lists {
        let caller = |caller: u64| -> Result<Vec<_>> {
            let first = (list * work.in_flight + caller) * work.each;
            (first..first + work.each).map(|n| Ok(vec![entries.addition(n, GROUPS)?])).collect()
        };
        took += service.append((0..work.in_flight).map(caller).collect::<Result<_>>()?).await?;
        service.audit.follow_roots().await?;
    }
    Ok(took)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_appended_comes_back() {
        let disk = tempfile::tempdir().unwrap();
        both(disk.path(), &Work { lists: 2, in_flight: 64, each: 4 }).await.unwrap();
    }
}
