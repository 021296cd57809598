//! What every gRPC server of Tsujiban shares: settings, a start that retries, authentication, authorization, the operation history, jobs,
//! TLS with reload, health, metrics, shutdown.
//!
//! Nothing here belongs to one service. [`telemetry`] and [`shutdown`] do not depend on servers, so that every binary can use them.

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
