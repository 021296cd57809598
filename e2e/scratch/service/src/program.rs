//! The scratch service as a program: its arguments, what it is made of, and what it does by itself.

use std::error::Error as AnyError;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use tonic::service::Routes;
use tsujiban_core::error::chain;
use tsujiban_core::workload::Service;
use tsujiban_database::{Database, Schema};
use tsujiban_service::history::{ClientArgs, HistoryClient, InvalidClient, Ledger};
use tsujiban_service::jobs::{interrupted, repeat, report, rest_after};
use tsujiban_service::program::{Kit, Program, Tasks};
use tsujiban_service::writing;

use crate::rpc;
use crate::service::{Error, Parts, Result, SCHEMA, Scratch};

/// How often it looks which epoch keys are mounted.
const KEYS: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Args)]
pub struct ScratchArgs {
    #[command(flatten)]
    pub audit: ClientArgs,
}

impl Program for Scratch {
    const SERVICE: Service = Service::Scratch;
    const ABOUT: &'static str = "Keeps one counter for each group";
    const CONTRACTS: &'static [&'static str] = &rpc::SERVICES;

    type Args = ScratchArgs;
    type Tables = Database;
    type Parts = Parts;
    type Error = Error;

    fn schema() -> &'static Schema {
        &SCHEMA
    }

    fn ledger(args: &ScratchArgs) -> Result<Option<Arc<dyn Ledger>>, InvalidClient> {
        if args.audit.endpoint.is_empty() {
            return Ok(None);
        }
        Ok(Some(Arc::new(HistoryClient::new(&args.audit)?)))
    }

    async fn open(database: Database) -> Result<Database> {
        Ok(database)
    }

    fn parts(kit: &Kit<Database>, _args: &ScratchArgs) -> Result<Parts> {
        Ok(Parts {
            clock: kit.clock.clone(),
            random: kit.random.clone(),
            database: kit.tables.clone(),
            keyring: Arc::clone(&kit.keyring),
            environment: kit.installation.environment.clone(),
            history: kit.history.clone(),
            writing: kit.writing.clone(),
        })
    }

    /// It keeps nothing in the bucket, so it does not ask where that is.
    async fn start(parts: Parts, _allowed_regions: &[String]) -> Result<Arc<Self>> {
        Self::start(parts).await
    }

    fn is_transient(error: &Error) -> bool {
        error.is_transient()
    }

    fn routes(self: &Arc<Self>) -> Routes {
        rpc::routes(self)
    }

    async fn run(self: Arc<Self>, _args: ScratchArgs, tasks: Tasks) -> Result<(), Box<dyn AnyError + Send + Sync>> {
        let Tasks { keys, health, stop, .. } = tasks;
        let follow_keys = repeat(&stop, || async {
            let followed = match keys.epoch_keys().await {
                Ok(mounted) => self.follow_keys(&mounted).map_err(|error| chain(&error)),
                Err(error) => Err(error),
            };
            report("keys", followed);
            KEYS
        });
        let writing = writing::follow(&self.writing, &health, &stop, || self.try_write());
        let checks = repeat(&stop, || async {
            let begun = Instant::now();
            report("database check", self.check_database().await.map_err(|error| chain(&error)));
            rest_after(begun.elapsed())
        });
        futures::join!(follow_keys, writing, interrupted(&stop, checks));
        Ok(())
    }
}
