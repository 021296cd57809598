//! What happens now, for whoever waits.

use std::sync::OnceLock;
use std::time::Instant;

static STARTED: OnceLock<Instant> = OnceLock::new();

/// Says on standard error what begins now, with the seconds since the first such line.
pub fn step(what: &str) {
    let seconds = STARTED.get_or_init(Instant::now).elapsed().as_secs();
    eprintln!("[{seconds:4}s] {what}");
}
