//! Tessera's POSIX driver as a program of its own (`e2e/bench/tessera/append`).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::program;

const PATIENCE: Duration = Duration::from_mins(10);

/// Appends so many entries with so many callers to a new log in `folder`: how long that took.
pub async fn append(folder: &Path, entries: u64, in_flight: u64) -> Result<Duration> {
    let mut command = program::bounded(binary()?, PATIENCE);
    command.arg(folder.join("tessera")).arg(entries.to_string()).arg(in_flight.to_string());
    let output = program::output(command).await.context("tessera-append")?;
    ensure!(output.status.success(), "tessera-append failed: {}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout)?;
    let seconds: f64 = said.trim().parse().with_context(|| format!("tessera-append said {said:?}"))?;
    Ok(Duration::from_secs_f64(seconds))
}

fn binary() -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cluster/path");
    let output = Command::new(&path).arg("tessera-append").output().with_context(|| format!("{}", path.display()))?;
    let binary = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    ensure!(binary.is_file(), "tessera-append is missing; build it with: e2e/cluster/build tessera");
    Ok(binary)
}
