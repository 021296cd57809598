//! The command `migrate`: brings a service's tables in PostgreSQL to this version, as the role that owns them. Run by an init container of the
//! service's pods, which alone holds the owner's password.

use std::path::Path;

use clap::Args;
use tokio_util::sync::CancellationToken;
use tsujiban_database::{DatabaseArgs, InvalidDatabase, OwnerArgs, Schema, SchemaError};

use crate::retry::{NotStarted, retry_startup};
use crate::telemetry::TelemetryArgs;

#[derive(Debug, Clone, Args)]
pub struct MigrateArgs {
    /// The service's database, as the service is told it.
    #[command(flatten)]
    pub database: DatabaseArgs,
    #[command(flatten)]
    pub owner: OwnerArgs,
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// Why the tables were not brought to this version.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error(transparent)]
    Database(#[from] InvalidDatabase),
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

impl MigrateError {
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Database(error) => error.is_transient(),
            Self::Schema(error) => error.is_transient(),
        }
    }
}

/// Waits for the database, migrates, and gives the service's role its rights. Answers the name of that role.
pub async fn migrate(args: &MigrateArgs, schema: &Schema, stop: &CancellationToken) -> Result<String, NotStarted<MigrateError>> {
    let role = args.database.role().map_err(|error| NotStarted::Failed(error.into()))?;
    let owners = args.database.of_owner(&args.owner).map_err(|error| NotStarted::Failed(error.into()))?;
    let attempt = async || -> Result<(), MigrateError> {
        let database = owners.open(Path::new("")).await?;
        let done = async {
            database.migrate(schema).await?;
            database.grant(schema, &role).await
        };
        let done = done.await;
        // a try that failed may hold the lock of the migrations
        database.close().await;
        Ok(done?)
    };
    retry_startup(stop, attempt, MigrateError::is_transient).await?;
    Ok(role)
}
