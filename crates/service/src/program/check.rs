//! The command `check-tables`: whether this version may use a service's tables in PostgreSQL. Run before an upgrade, while the pods of the
//! version before still serve.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use tsujiban_core::backoff::Backoff;
use tsujiban_core::error::chain;
use tsujiban_database::{DatabaseArgs, SchemaError};

use super::MigrateError;
use crate::retry::{Retry, no_jitter};
use crate::telemetry::TelemetryArgs;

/// How long the check is tried. An unreachable database does not block an upgrade, which may be what repairs it.
const PATIENCE: Duration = Duration::from_mins(1);
const RETRY: Retry = Retry::times(5, Backoff::constant(Duration::from_secs(2)));

#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// The service's database, as the service is told it.
    #[command(flatten)]
    pub database: DatabaseArgs,
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// Fails where the tables say that this version may not use them. Other problems are only logged here, since the service reports them
/// itself.
pub async fn check(args: &CheckArgs) -> Result<(), SchemaError> {
    let attempt = async || -> Result<(), MigrateError> {
        let database = args.database.open(Path::new("")).await?;
        let done = database.may_use().await;
        database.close().await;
        Ok(done?)
    };
    let looked = tokio::time::timeout(PATIENCE, RETRY.run(no_jitter, attempt, MigrateError::is_transient)).await;
    let why = match looked {
        Ok(Ok(())) => {
            tracing::info!(version = env!("CARGO_PKG_VERSION"), "this version may use the tables");
            return Ok(());
        }
        Ok(Err(MigrateError::Schema(error @ (SchemaError::TooNew { .. } | SchemaError::NoVersion { .. })))) => return Err(error),
        Ok(Err(error)) => chain(&error),
        Err(_) => format!("the database does not answer within {} s", PATIENCE.as_secs()),
    };
    tracing::warn!(why, "the tables could not be looked at; the upgrade goes on, and the service says what is wrong");
    Ok(())
}
