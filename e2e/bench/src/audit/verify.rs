//! The offline verifier on an export.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::time::{ClockId, clock_gettime};
use ring::digest::{Context, SHA256};
use tsujiban_audit::export::{Export, Format};
use tsujiban_core::clock::{Clock, SystemClock};
use tsujiban_history::{Verdict, Verifier};

use super::entries::BYTES;
use super::service::Service;
use super::{VERIFY, rate as per_second};
use crate::figure::{Figure, Measured, Target};
use crate::progress::step;

const ENTRIES: u64 = 300_000;
/// How much of the file is read at once, as the command does.
const BUFFER: usize = 1 << 20;

pub async fn rate(disk: &Path) -> Result<Measured> {
    step(&format!("{VERIFY}: {ENTRIES} entries are exported"));
    let service = Service::open(disk).await?;
    let log = service.fill(ENTRIES).await?;
    let (key, origin) = (service.audit.verifier().clone(), service.audit.origin(log.id));
    let path = service.folder.path().join("export.jsonl");
    let mut file = File::create(&path)?;
    let mut export = Export::begin(&service.audit, log, (None, None), Format::JsonLines).await?;
    let mut bytes = 0;
    while let Some(piece) = export.next(&service.audit).await? {
        bytes += piece.len();
        file.write_all(&piece)?;
    }
    step(&format!("{VERIFY}: {} MiB are verified", bytes >> 20));
    let verified = on_a_core(|| {
        let verifier = Verifier::new(key, origin, SystemClock.now())?;
        Ok(verifier.verify(BufReader::with_capacity(BUFFER, File::open(&path)?))?)
    })?;
    let (report, took) = verified;
    ensure!(report.verdict == Verdict::Intact, "the verifier says: {report}");
    ensure!((report.entries, report.bodies) == (ENTRIES, ENTRIES), "{} entries and {} bodies were seen", report.entries, report.bodies);
    let ((), hashed) = on_a_core(|| {
        let (mut export, mut hash) = (BufReader::with_capacity(BUFFER, File::open(&path)?), Context::new(&SHA256));
        loop {
            let length = export.fill_buf()?.len();
            if length == 0 {
                std::hint::black_box(hash.finish());
                return Ok(());
            }
            hash.update(export.buffer());
            export.consume(length);
        }
    })?;
    let note = format!(
        "entries a second of processor time of one core, for an export of {ENTRIES} entries of {BYTES} bytes ({} MiB, each with its body opened) \
         from the file to the verdict; beside nothing but the SHA-256 of the same file",
        bytes >> 20
    );
    let figure = Figure::new(VERIFY, per_second(ENTRIES, took), "entries/s", per_second(ENTRIES, hashed), note);
    Ok(Measured { figure, target: Target::ValueAtLeast(200_000.0) })
}

/// How much processor time this thread needs for something, whoever else wants the core meanwhile.
fn on_a_core<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let now = || -> Result<Duration> { Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into()) };
    let begun = now()?;
    let done = work()?;
    Ok((done, now()?.saturating_sub(begun)))
}
