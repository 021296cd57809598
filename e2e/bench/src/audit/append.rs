//! The engine in process.

use std::path::Path;

use anyhow::Result;
use tsujiban_audit::engine::Addition;

use super::entries::{BYTES, Entries};
use super::service::Service;
use super::{APPEND, GROUPS, ROUNDS, WIDE, each, folder, median, rate, tessera};
use crate::figure::{Figure, Measured, Target};
use crate::progress::step;

/// Callers that each wait for their answer before they append the next entry.
struct Width {
    name: &'static str,
    in_flight: u64,
    entries: u64,
    target: Target,
}

/// Fewer entries in flight than Tessera's batches have: each of its batches waits for its age.
const NARROW: Width = Width { name: APPEND, in_flight: 128, entries: 51_200, target: Target::RatioAtLeast(2.0) };
/// So many that its batches are always full.
const BROAD: Width = Width { name: WIDE, in_flight: 4096, entries: 196_608, target: Target::RatioAtLeast(1.0) };

pub async fn narrow(disk: &Path) -> Result<Measured> {
    beside_tessera(disk, &NARROW).await
}

pub async fn wide(disk: &Path) -> Result<Measured> {
    beside_tessera(disk, &BROAD).await
}

async fn beside_tessera(disk: &Path, width: &Width) -> Result<Measured> {
    let Width { name, in_flight, entries, target } = *width;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        step(&format!("{name}: Tessera, round {round} of {ROUNDS}"));
        let folder = folder(disk)?;
        theirs.push(rate(entries, tessera::append(folder.path(), entries, in_flight).await?));
        drop(folder);
        step(&format!("{name}: the engine, round {round} of {ROUNDS}"));
        ours.push(append(disk, in_flight, 1, entries).await?);
    }
    let note = format!(
        "{entries} entries of {BYTES} bytes into one new log, one at a time by each of {in_flight} callers, answered when they are durable: the \
         engine in process on SQLite with synchronous=FULL, beside Tessera 1.0.4's POSIX driver with entries of 300 bytes, batches of 256 and 20 ms; \
         median of {ROUNDS} rounds each ({}; {})",
        each(&ours),
        each(&theirs),
    );
    Ok(Measured { figure: Figure::new(name, median(ours), "entries/s", median(theirs), note), target })
}

/// The same entries over few groups and over many.
pub async fn groups(disk: &Path) -> Result<Measured> {
    const FEW: u64 = 10;
    const MANY: u64 = 10_000;
    const IN_FLIGHT: u64 = 4096;
    const ENTRIES: u64 = 204_800;
    let (mut few, mut many) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        step(&format!("{GROUPS}: round {round} of {ROUNDS}"));
        few.push(1e6 / append(disk, IN_FLIGHT, FEW, ENTRIES).await?);
        many.push(1e6 / append(disk, IN_FLIGHT, MANY, ENTRIES).await?);
    }
    let note = format!(
        "microseconds an entry for {ENTRIES} entries of {BYTES} bytes over {MANY} groups by chance, beside {FEW}, with {IN_FLIGHT} in flight; \
         the making of the groups' logs and keys is in it, and no checkpoint is signed; median of {ROUNDS} rounds each ({}; {})",
        each(&many),
        each(&few),
    );
    Ok(Measured { figure: Figure::new(GROUPS, median(many), "us", median(few), note), target: Target::RatioAtMost(2.0) })
}

/// Entries a second.
async fn append(disk: &Path, in_flight: u64, groups: u64, entries: u64) -> Result<f64> {
    let service = Service::open(disk).await?;
    let (maker, each) = (Entries::new()?, entries / in_flight);
    let caller = |caller: u64| -> Result<Vec<Vec<Addition>>> {
        (caller * each..(caller + 1) * each).map(|n| Ok(vec![maker.addition(n, groups)?])).collect()
    };
    let work = (0..in_flight).map(caller).collect::<Result<Vec<_>>>()?;
    Ok(rate(each * in_flight, service.append(work).await?))
}
