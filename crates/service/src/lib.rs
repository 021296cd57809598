//! What every gRPC server of Tsujiban shares: settings, a patient start, who is calling, whether they may, what came of it, jobs, TLS with
//! reload, health, metrics, shutdown.
//!
//! Nothing of one service lives here. [`telemetry`] and [`shutdown`] know nothing of servers, so that every binary can use them.

pub mod access;
pub mod answers;
pub mod caller;
pub mod health;
pub mod history;
pub mod http;
pub mod identity;
pub mod jobs;
pub mod lifecycle;
pub mod parse;
pub mod plan;
#[cfg(feature = "program")]
pub mod program;
pub mod retry;
pub mod server;
pub mod settings;
pub mod shutdown;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tls;
pub mod trace;
pub mod writing;
