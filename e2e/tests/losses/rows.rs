//! The table: every loss that was tried, what has to be seen of it and what has to be healed. Times are the most that it may take.

mod cluster;
mod history;
mod keys;
mod storage;
mod writing;

use std::collections::BTreeSet;

use crate::row::Row;

/// All rows, in the order of docs/losses.md.
pub fn all() -> Vec<&'static Row> {
    [storage::ROWS, keys::ROWS, writing::ROWS, history::ROWS, cluster::ROWS, writing::LONG].into_iter().flatten().collect()
}

/// The rows that are wanted: `short`, `all`, or the names of some.
pub fn wanted(which: &str) -> anyhow::Result<Vec<&'static Row>> {
    let names: BTreeSet<&str> = which.split_whitespace().collect();
    let all = all();
    let known: BTreeSet<&str> = all.iter().map(|row| row.id).chain(["short", "all"]).collect();
    let unknown: Vec<_> = names.difference(&known).collect();
    anyhow::ensure!(
        unknown.is_empty(),
        "there are no rows {unknown:?}; there are: {}",
        known.iter().copied().collect::<Vec<_>>().join(" ")
    );
    Ok(all.into_iter().filter(|row| names.contains("all") || names.contains(row.id) || (row.is_short && names.contains("short"))).collect())
}
