//! Measures what is promised about speed and size, each figure beside a baseline of the same run, and writes `bench.json`.
//!
//! `bench` runs every figure, `bench NAME...` some of them. A figure that misses its target is shown as missed and fails nothing: the
//! machine may be slow. A figure that could not be measured fails the run and says what is missing.

mod audit;
mod backup;
mod collector_rate;
mod figure;
mod load;
mod netns;
mod operator;
mod program;
mod progress;
mod report;
mod server;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Parser;

use crate::figure::{Measured, Suite};

#[global_allocator]
static ALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Everything that can be measured. What shares an expensive set-up is one suite.
const SUITES: [&[Suite]; 4] = [&[operator::SUITE], &[collector_rate::SUITE], &audit::SUITES, &[backup::SUITE]];

/// Measures, prints a table, and writes the figures as JSON.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Args {
    /// The figures to measure; all of them when none is named.
    figures: Vec<String>,
    /// Where the figures are written. Those that are not measured now keep their last result there.
    #[arg(long, default_value = "target/bench.json")]
    out: PathBuf,
    /// Is a process that only knows all Devices; a baseline starts it.
    #[arg(long, hide = true)]
    bare_store: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.bare_store {
        operator::store_in_this_process()?;
        return Ok(ExitCode::SUCCESS);
    }
    let known: Vec<&str> = SUITES.iter().copied().flatten().flat_map(|suite| suite.figures).copied().collect();
    if let Some(unknown) = args.figures.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("no figure is called {unknown}; there are: {}", known.join(" "));
    }
    let mut measured: Vec<Measured> = Vec::new();
    let mut failed = false;
    for suite in SUITES.iter().copied().flatten() {
        let wanted: Vec<&str> = suite
            .figures
            .iter()
            .copied()
            .filter(|name| args.figures.is_empty() || args.figures.iter().any(|named| named == name))
            .collect();
        if wanted.is_empty() {
            continue;
        }
        match (suite.measure)(&wanted) {
            Ok(figures) => measured.extend(figures),
            Err(error) => {
                eprintln!("bench: {} could not be measured: {error:#}", wanted.join(", "));
                failed = true;
            }
        }
    }
    if !measured.is_empty() {
        report::merge(&args.out, &measured).with_context(|| format!("writing {}", args.out.display()))?;
        print!("{}", report::table(&measured));
        eprintln!("written to {}", args.out.display());
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
