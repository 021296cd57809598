//! `operator_settle`, `operator_rss`, `operator_restart`, `resync_writes`: the operator at the size that is promised, on a control plane
//! without nodes, beside bare clients of the same apiserver.

mod bare;
mod declare;
mod process;
mod writes;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tsujiban_plane::Plane;
use tsujiban_plane::backup::Backup;

use self::declare::{Size, State, States, declare, touch};
use self::process::Operator;
use crate::figure::{Figure, Measured, Suite, Target};
use crate::progress::step;

pub use bare::store_in_this_process;

pub const SUITE: Suite = Suite { figures: &[SETTLE, RSS, RESTART, RESYNC], measure };

const SETTLE: &str = "operator_settle";
const RSS: &str = "operator_rss";
const RESTART: &str = "operator_restart";
const RESYNC: &str = "resync_writes";

/// Where settling is timed, and where memory is measured.
const SMALL: Size = Size { tenants: 200, devices: 2_000 };
const LARGE: Size = Size { tenants: 1_000, devices: 10_000 };
/// Everything is looked at again within five minutes.
const QUIET: Duration = Duration::from_mins(6);
const LONG: Duration = Duration::from_mins(30);

fn measure(wanted: &[&str]) -> Result<Vec<Measured>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(wanted))
}

async fn run(wanted: &[&str]) -> Result<Vec<Measured>> {
    let plane = Plane::start().await?;
    let backup = Backup::default();
    let endpoint = backup.serve().await?;
    let admin = plane.admin.client()?;
    let operator = Operator::start(&plane, &endpoint).await?;
    let mut measured = Vec::new();
    let states = States::follow(&admin);

    step(&format!("operator: {} tenants with {} devices are declared", SMALL.tenants, SMALL.devices));
    let start = Instant::now();
    declare(&admin, Size::default(), SMALL).await?;
    let declared = start.elapsed();
    settled(&states, SMALL, start).await?;
    let settle = start.elapsed();
    let small_rss = operator.rss()?;
    if wanted.contains(&SETTLE) {
        step(&format!("operator_settle: {:.1} s; a bare client writes the same objects", settle.as_secs_f64()));
        let bare = writes::write_the_same(&admin).await?;
        let note = format!(
            "from the first apply to Ready of all {} Tenants and {} Devices (declaring them took {:.1} s of it), beside a bare client that \
             creates copies of the {} objects that the operator had made, one after the other as kubectl does; {} at a time it takes {:.1} s",
            SMALL.tenants,
            SMALL.devices,
            declared.as_secs_f64(),
            bare.objects,
            writes::AT_ONCE,
            bare.at_once.as_secs_f64()
        );
        let figure = Figure::new(SETTLE, settle.as_secs_f64(), "s", bare.in_turn.as_secs_f64(), note);
        measured.push(Measured { figure, target: Target::RatioAtMost(1.5) });
    }
    if wanted == [SETTLE] {
        return Ok(measured);
    }

    step(&format!("operator: up to {} tenants with {} devices", LARGE.tenants, LARGE.devices));
    let start = Instant::now();
    declare(&admin, SMALL, LARGE).await?;
    settled(&states, LARGE, start).await?;
    let settled_after = start.elapsed();
    asked_about(&states, start).await?;
    step(&format!(
        "operator: settled after {:.0} s; all owners were asked about after {:.0} s; nothing changes for {} s",
        settled_after.as_secs_f64(),
        start.elapsed().as_secs_f64(),
        QUIET.as_secs()
    ));
    let (writes_before, reconciles_before) = (operator.writes(&plane)?, operator.reconciles().await?);
    tokio::time::sleep(QUIET).await;
    let writes = operator.writes(&plane)?.saturating_sub(writes_before);
    let reconciles = operator.reconciles().await?.total() - reconciles_before.total();
    if wanted.contains(&RESYNC) {
        let note = format!(
            "writes of the operator in {} s without a change at {} tenants and {} devices, its lease left out; beside the reconciles of \
             that time",
            QUIET.as_secs(),
            LARGE.tenants,
            LARGE.devices
        );
        let figure = Figure::new(RESYNC, as_f64(writes), "writes", reconciles, note);
        measured.push(Measured { figure, target: Target::ValueAtMost(0.0) });
    }
    if wanted.contains(&RSS) {
        step("operator_rss: a bare store of the same Devices");
        let rss = operator.rss()?;
        let bare = bare::store(&plane).await?;
        let more = f64::from(LARGE.tenants + LARGE.devices - SMALL.tenants - SMALL.devices);
        let note = format!(
            "resident memory at {} tenants and {} devices after {} s at rest; {:.1} KiB more for each object since {} and {}; beside a \
             process with nothing but a store of the same Devices, managedFields stripped",
            LARGE.tenants,
            LARGE.devices,
            QUIET.as_secs(),
            (rss - small_rss) * 1024.0 / more,
            SMALL.tenants,
            SMALL.devices
        );
        measured.push(Measured { figure: Figure::new(RSS, rss, "MiB", bare.rss, note), target: Target::ValueAtMost(80.0) });
    }
    if wanted.contains(&RESTART) {
        step("operator_restart: every tenth object is changed while no operator runs");
        operator.stop().await?;
        let changed = touch(&admin, LARGE).await?;
        let start = Instant::now();
        wait(start, "the watches to tell of all changes", || changed.saturating_sub(behind(&states))).await?;
        let start = Instant::now();
        let operator = Operator::start(&plane, &endpoint).await?;
        wait(start, "every generation to be observed", || behind(&states)).await?;
        operator.has_reconciled(LARGE).await?;
        let restart = start.elapsed();
        let bare = bare::store(&plane).await?;
        let note = format!(
            "from the start of the process until all {} objects were reconciled once and {changed} that had changed meanwhile show their \
             newest generation as observed; beside a process that only lists the same Devices into a store",
            LARGE.tenants + LARGE.devices
        );
        let figure = Figure::new(RESTART, restart.as_secs_f64(), "s", bare.filled.as_secs_f64(), note);
        measured.push(Measured { figure, target: Target::ValueAtMost(60.0) });
    }
    Ok(measured)
}

#[allow(clippy::cast_precision_loss, clippy::as_conversions)] // no count here comes near 2^52
fn as_f64(count: usize) -> f64 {
    count as f64
}

/// Waits until everything of this size is Ready.
async fn settled(states: &States, size: Size, start: Instant) -> Result<()> {
    let is_settled = |state: &State| state.is_ready && state.is_observed;
    let what = format!("{} tenants and {} devices to be ready", size.tenants, size.devices);
    wait(start, &what, || size.total().saturating_sub(states.all().iter().filter(|state| is_settled(state)).count())).await
}

/// Waits until every Tenant says whether it conforms.
async fn asked_about(states: &States, start: Instant) -> Result<()> {
    let is_not = |state: &&State| !state.is_asked_about;
    wait(start, "all owners to be asked about", || states.tenants().iter().filter(is_not).count()).await
}

/// Of how many objects the newest generation is not observed.
fn behind(states: &States) -> usize {
    states.all().iter().filter(|state| !state.is_observed).count()
}

/// Waits until nothing is missing any more, and says how it goes.
async fn wait(start: Instant, what: &str, missing: impl Fn() -> usize) -> Result<()> {
    let mut said = Instant::now();
    loop {
        let missing = missing();
        if missing == 0 {
            return Ok(());
        }
        if said.elapsed() > Duration::from_secs(20) {
            said = Instant::now();
            step(&format!("operator: waiting for {what}; {missing} are missing"));
        }
        ensure!(start.elapsed() < LONG, "waited {} s for {what}; {missing} are missing", LONG.as_secs());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
