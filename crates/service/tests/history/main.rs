//! The layers and the operation history, over real TLS on both sides: callers to a server, and the server to an audit service that is as
//! good or bad as a test wants it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::as_conversions)] // a test: what goes wrong here fails it

mod groups;
mod kept;
mod kill;
mod methods;
mod outage;
mod refusals;
mod revealing;
mod stage;
mod telemetry;
mod traces;
