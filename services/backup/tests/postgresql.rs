//! The service as its callers see it, with a real PostgreSQL: the tests of tests/it that are not about a SQLite file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::as_conversions)] // helpers of tests are tests too

const POSTGRES: bool = true;

#[path = "it/canary.rs"]
mod canary;
#[path = "it/compare.rs"]
mod compare;
#[path = "it/crowd.rs"]
mod crowd;
#[path = "it/damage.rs"]
mod damage;
#[path = "it/erasure.rs"]
mod erasure;
#[path = "it/export.rs"]
mod export;
#[path = "it/intake.rs"]
mod intake;
#[path = "it/isolation.rs"]
mod isolation;
#[path = "it/keyloss.rs"]
mod keyloss;
#[path = "it/keys.rs"]
mod keys;
#[path = "it/keytable.rs"]
mod keytable;
#[path = "it/lives.rs"]
mod lives;
#[path = "it/outage.rs"]
mod outage;
#[path = "it/reading.rs"]
mod reading;
#[path = "it/rebuild.rs"]
mod rebuild;
#[path = "it/recovery.rs"]
mod recovery;
#[path = "it/retention.rs"]
mod retention;
#[path = "it/revealing.rs"]
mod revealing;
#[path = "it/rows.rs"]
mod rows;
#[path = "it/scrub.rs"]
mod scrub;
#[path = "it/sealed.rs"]
mod sealed;
#[path = "it/stage.rs"]
mod stage;
#[path = "it/start.rs"]
mod start;
#[path = "it/store_down.rs"]
mod store_down;
#[path = "it/writing.rs"]
mod writing;
