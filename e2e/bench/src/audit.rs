//! What the audit service takes and answers: `audit_append` and `audit_append_wide` beside Tessera's POSIX driver, the same as RPCs, the cost
//! of many groups, proofs and pages at a million entries, the offline verifier, how fast a lost database comes back, and what the scrub costs.

mod append;
mod entries;
mod read;
mod rebuild;
mod rpc;
mod scrub;
mod service;
mod tessera;
mod verify;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::figure::{Measured, Suite};

/// Each by itself: what one of them meets does not cost the others their result.
pub const SUITES: [Suite; 9] = [
    Suite { figures: &[APPEND], measure: |_| one(append::narrow) },
    Suite { figures: &[WIDE], measure: |_| one(append::wide) },
    Suite { figures: &[RPC], measure: |_| one(rpc::rate) },
    Suite { figures: &[ACKNOWLEDGED], measure: |_| one(rpc::acknowledged) },
    Suite { figures: &[GROUPS], measure: |_| one(append::groups) },
    Suite { figures: &[PROOF, HASHES, LIST], measure: reads },
    Suite { figures: &[VERIFY], measure: |_| one(verify::rate) },
    Suite { figures: &[REBUILD], measure: |_| one(rebuild::rate) },
    Suite { figures: &[SCRUB], measure: |_| one(scrub::cost) },
];

const APPEND: &str = "audit_append";
const WIDE: &str = "audit_append_wide";
const RPC: &str = "audit_append_rpc";
const ACKNOWLEDGED: &str = "audit_append_acknowledged";
const GROUPS: &str = "audit_groups";
const PROOF: &str = "audit_proof";
const HASHES: &str = "audit_proof_hashes";
const LIST: &str = "audit_list";
const VERIFY: &str = "audit_verify";
const REBUILD: &str = "history_rebuild";
const SCRUB: &str = "scrub_cost";

/// How often both sides of a rate are measured, in turns. The medians count.
pub const ROUNDS: usize = 3;

pub fn one(figure: impl AsyncFnOnce(&Path) -> Result<Measured>) -> Result<Vec<Measured>> {
    Ok(vec![runtime()?.block_on(figure(&disk()?))?])
}

fn reads(wanted: &[&str]) -> Result<Vec<Measured>> {
    let measured = runtime()?.block_on(read::at_a_million(&disk()?))?;
    Ok(measured.into_iter().filter(|measured| wanted.contains(&measured.figure.name.as_str())).collect())
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// The folder of this program, which lies on a disk: what is measured is durable, and memory is not.
fn disk() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let folder = program.parent().context("this program lies in no folder")?;
    let is_memory = statfs(folder)?.filesystem_type() == TMPFS_MAGIC;
    ensure!(!is_memory, "{} lies in memory, where nothing is durable: build on a disk (CARGO_TARGET_DIR)", folder.display());
    Ok(folder.to_owned())
}

/// An empty folder on the disk that is measured, gone when it is dropped.
pub fn folder(disk: &Path) -> Result<TempDir> {
    tempfile::Builder::new().prefix("bench-audit-").tempdir_in(disk).with_context(|| format!("no folder in {}", disk.display()))
}

/// So many in a second.
fn rate(count: u64, took: Duration) -> f64 {
    as_f64(count) / took.as_secs_f64()
}

pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Counts here are far below 2^53.
#[allow(clippy::as_conversions, clippy::cast_precision_loss)]
pub fn as_f64(count: u64) -> f64 {
    count as f64
}

/// The middle of an odd number of values.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// All of them, for a note.
pub fn each(values: &[f64]) -> String {
    let one = |value: &f64| if *value >= 1000.0 { format!("{value:.0}") } else { format!("{value:.1}") };
    values.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The 99th percentile.
pub fn p99(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took.get((took.len() * 99 / 100).min(took.len().saturating_sub(1))).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_hundred_calls_one_may_take_longer_than_the_99th_percentile() {
        let took: Vec<Duration> = (0..100).rev().map(Duration::from_millis).collect();
        assert_eq!(p99(took), Duration::from_millis(99));
        let took: Vec<Duration> = (0..1000).rev().map(Duration::from_millis).collect();
        assert_eq!(p99(took), Duration::from_millis(990));
        assert_eq!(p99(Vec::new()), Duration::ZERO);
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
    }
}
