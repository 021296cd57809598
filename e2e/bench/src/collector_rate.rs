//! `collector_rate`: how many devices a minute the collector backs up, beside RANCID on the same routers.

mod apiserver;
mod collector;
mod delay;
mod fleet;
mod rancid;
mod router;
mod store;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::figure::{Figure, Measured, Suite, Target};
use crate::netns;
use crate::progress::step;

pub const SUITE: Suite = Suite { figures: &[NAME], measure };

const NAME: &str = "collector_rate";
const ROUTERS: u16 = 200;
const SESSIONS: u16 = 32;
/// Each way.
const LATENCY: Duration = Duration::from_millis(100);
const TARGET: Target = Target::RatioAtLeast(5.0);

fn measure(_: &[&str]) -> Result<Vec<Measured>> {
    let folder = tempfile::Builder::new().prefix("tsujiban-bench-").tempdir()?;
    // RANCID is not root: it must get to its folder
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711))?;
    let (ours, theirs) = netns::alone(fleet::NET, || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(race(folder.path()))
    })?;
    let per_minute = |took: Duration| f64::from(ROUTERS) * 60.0 / took.as_secs_f64();
    let note = format!(
        "{ROUTERS} simulated routers, {} ms each way, {SESSIONS} sessions, password, host keys known; the collector took {:.1} s ({} build), \
         Debian's RANCID with PAR_COUNT {SESSIONS} {:.1} s, each from its start to its end in its second run, after every config had changed; \
         all configs compared with the routers'",
        LATENCY.as_millis(),
        ours.as_secs_f64(),
        if cfg!(debug_assertions) { "dev" } else { "release" },
        theirs.as_secs_f64(),
    );
    Ok(vec![Measured { figure: Figure::new(NAME, per_minute(ours), "devices/min", per_minute(theirs), note), target: TARGET }])
}

/// How long the collector takes, and RANCID. Each has run once before, and finds every config changed since.
async fn race(folder: &Path) -> Result<(Duration, Duration)> {
    let fleet = fleet::Fleet::new(ROUTERS);
    fleet.listen(LATENCY).await?;
    let folder = |name: &str| -> Result<std::path::PathBuf> {
        let folder = folder.join(name);
        fs::create_dir(&folder)?;
        Ok(folder)
    };
    let collector = collector::Collector::new(&folder("collector")?, &fleet).await?;
    let rancid = rancid::Rancid::new(&folder("rancid")?, &fleet).await?;
    step("collector_rate: RANCID's first run, not counted");
    rancid.collect(&fleet).await.context("RANCID's first run")?;
    step("collector_rate: the collector's first run, not counted");
    collector.collect(&fleet).await.context("the collector's first run")?;
    fleet.change();
    step("collector_rate: RANCID");
    let theirs = rancid.collect(&fleet).await.context("RANCID")?;
    step(&format!("collector_rate: RANCID took {:.1} s; the collector", theirs.as_secs_f64()));
    let ours = collector.collect(&fleet).await.context("the collector")?;
    step(&format!("collector_rate: the collector took {:.1} s", ours.as_secs_f64()));
    Ok((ours, theirs))
}
