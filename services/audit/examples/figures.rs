//! The engine's figures by themselves: `cargo run --release --example figures FOLDER`. `make bench` sets them beside Tessera's.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::as_conversions, clippy::cast_precision_loss)]

use std::path::Path;
use std::time::Duration;

use tsujiban_audit::bench::Bench;

#[global_allocator]
static ALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() {
    // the folder of a disk that is measured
    let place = std::env::args().nth(1).unwrap();
    let appends = [
        ("audit_append", 128, 10, 200_000),
        ("audit_append_wide", 4096, 10, 600_000),
        ("audit_groups 10", 4096, 10, 400_000),
        ("audit_groups 10,000", 4096, 10_000, 400_000),
    ];
    for (name, in_flight, groups, entries) in appends {
        let folder = tempfile::tempdir_in(Path::new(&place)).unwrap();
        let mut bench = Bench::open(folder.path()).await.unwrap();
        let (took, p99) = bench.append(in_flight, groups, entries).await.unwrap();
        println!("{name}: {:.0}/s, p99 {:.1} ms", entries as f64 / took.as_secs_f64(), millis(p99));
    }
    let folder = tempfile::tempdir_in(Path::new(&place)).unwrap();
    let mut bench = Bench::open(folder.path()).await.unwrap();
    bench.fill(1_000_000).await.unwrap();
    let (p99, hashes) = bench.prove(1000).await.unwrap();
    println!("audit_proof: p99 {:.2} ms, at most {hashes} hashes", millis(p99));
    println!("audit_list: p99 {:.2} ms", millis(bench.list(200, 100).await.unwrap()));
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
