//! The backup service as a program: its arguments, and what it is made of.

use std::error::Error;
use std::sync::Arc;

use clap::Args;
use tonic::service::Routes;
use tsujiban_core::workload::Service;
use tsujiban_database::{Database, Schema};
use tsujiban_service::history::{ClientArgs, HistoryClient, InvalidClient, Ledger};
use tsujiban_service::program::{Kit, Program, Tasks};

use crate::catalogue::{self, Catalogue};
use crate::metrics::Metrics;
use crate::service::{Backup, Parts};
use crate::start::{StartError, start};
use crate::{jobs, rpc};

#[derive(Debug, Clone, Args)]
pub struct BackupArgs {
    #[command(flatten)]
    pub audit: ClientArgs,
}

impl Program for Backup {
    const SERVICE: Service = Service::Backup;
    const ABOUT: &'static str = "Takes configs of devices in, and keeps them sealed and locked";
    const CONTRACTS: &'static [&'static str] = &rpc::SERVICES;

    type Args = BackupArgs;
    type Tables = Catalogue;
    type Parts = Parts;
    type Error = StartError;

    fn schema() -> &'static Schema {
        &catalogue::SCHEMA
    }

    fn ledger(args: &BackupArgs) -> Result<Option<Arc<dyn Ledger>>, InvalidClient> {
        if args.audit.endpoint.is_empty() {
            return Ok(None);
        }
        Ok(Some(Arc::new(HistoryClient::new(&args.audit)?)))
    }

    async fn open(database: Database) -> Result<Catalogue, StartError> {
        Ok(Catalogue::new(database).await?)
    }

    fn parts(kit: &Kit<Catalogue>, _args: &BackupArgs) -> Result<Parts, StartError> {
        Ok(Parts {
            clock: kit.clock.clone(),
            random: kit.random.clone(),
            store: kit.store.clone(),
            catalogue: kit.tables.clone(),
            keyring: Arc::clone(&kit.keyring),
            environment: kit.installation.environment.clone(),
            metrics: Metrics::new(&kit.registry)?,
            history: kit.history.clone(),
            writing: kit.writing.clone(),
        })
    }

    async fn start(parts: Parts, allowed_regions: &[String]) -> Result<Arc<Self>, StartError> {
        start(parts, allowed_regions).await
    }

    fn is_transient(error: &StartError) -> bool {
        error.is_transient()
    }

    fn routes(self: &Arc<Self>) -> Routes {
        rpc::routes(self)
    }

    async fn run(self: Arc<Self>, _args: BackupArgs, tasks: Tasks) -> Result<(), Box<dyn Error + Send + Sync>> {
        Box::pin(jobs::run(self, tasks.keys, tasks.scrub.scrub_days, tasks.health, tasks.stop)).await;
        Ok(())
    }
}
