//! The audit service as a program: its arguments, and what it is made of.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tsujiban_core::workload::Service;
use tsujiban_database::{Backend, Database, DatabaseArgs, InvalidDatabase};
use tsujiban_history::{EnvironmentOrigin, OriginDomain};
use tsujiban_objects::{Measured, StoreMetrics};
use tsujiban_service::history::{History, Ledger};
use tsujiban_service::program::{Kit, Program, Tasks};
use tsujiban_service::server::ServerArgs;
use tsujiban_service::tls::Certificate;

use crate::engine::Standing;
use crate::metrics::Metrics;
use crate::scrub::Scrub;
use crate::service::{Audit, Parts, migrations};
use crate::start::{StartError, start};
use crate::{jobs, rpc, tiles};

/// PostgreSQL: what lets the service's role use the tables, one function for each version of them.
const GRANTS: [&str; 2] = ["SELECT grant_history($1)", "SELECT grant_archive($1)"];

#[derive(Debug, Clone, Args)]
pub struct AuditArgs {
    /// Where logs are shown as C2SP tlog-tiles: HTTPS, with the certificate of the service.
    #[arg(long, env = "TSUJIBAN_TILES_LISTEN", default_value = "0.0.0.0:8444")]
    pub tiles_listen: SocketAddr,
    /// The DNS name that begins the names of logs, root lists and the key. The first start fixes it.
    #[arg(long, env = "TSUJIBAN_ORIGIN_DOMAIN", default_value_t)]
    pub origin_domain: OriginDomain,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// PostgreSQL: brings the tables to this version, as the role that owns them, and lets the service's role use them.
    Migrate(MigrateArgs),
}

#[derive(Debug, Clone, Args)]
pub struct MigrateArgs {
    /// The database, as the role that owns the tables. That role is not the service's: the service could else change them.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// The role that the service connects as.
    #[arg(long, env = "TSUJIBAN_SERVICE_ROLE")]
    pub service_role: String,
}

/// Why the tables were not brought to this version.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error("migrate is for PostgreSQL; an SQLite file is brought to this version by the service itself")]
    NoPostgres,
    #[error(transparent)]
    Database(#[from] InvalidDatabase),
    #[error("the tables cannot be brought to this version; was a newer version of the service here?")]
    Migration(#[from] sqlx::migrate::MigrateError),
    #[error("role {role} cannot be given its rights; create it first: CREATE ROLE {role} LOGIN")]
    Grant {
        role: String,
        #[source]
        source: sqlx::Error,
    },
}

impl MigrateArgs {
    pub async fn migrate(&self) -> Result<(), MigrateError> {
        if self.database.database_url.is_empty() {
            return Err(MigrateError::NoPostgres);
        }
        let database = self.database.open(&PathBuf::new()).await?;
        database.migrate(&migrations()).await?;
        if let Backend::Postgres(pool) = database.writes() {
            for grant in GRANTS {
                let granted = sqlx::query(grant).bind(self.service_role.clone()).execute(pool).await;
                granted.map_err(|source| MigrateError::Grant { role: self.service_role.clone(), source })?;
            }
        }
        database.close().await;
        Ok(())
    }
}

impl Program for Audit {
    const SERVICE: Service = Service::Audit;
    const ABOUT: &'static str = "Keeps the operation history of every group";
    const CONTRACTS: &'static [&'static str] = &rpc::SERVICES;

    type Args = AuditArgs;
    type Command = Command;
    type Tables = Database;
    type Parts = Parts;
    type Error = StartError;

    async fn execute(Command::Migrate(args): Command) -> Result<(), Box<dyn Error + Send + Sync>> {
        args.migrate().await?;
        println!("the tables are of this version, and {} may use them", args.service_role);
        Ok(())
    }

    /// A file is brought to this version; PostgreSQL is by `migrate`.
    async fn open(database: Database) -> Result<Database, StartError> {
        if let Backend::Sqlite(_) = database.writes() {
            database.migrate(&migrations()).await?;
        }
        Ok(database)
    }

    fn parts(kit: &Kit<Database>, args: &AuditArgs) -> Result<Parts, StartError> {
        Ok(Parts {
            clock: kit.clock.clone(),
            random: kit.random.clone(),
            store: Arc::new(Measured::new(kit.store.clone(), StoreMetrics::new(&kit.registry, "tsujiban_audit")?)),
            database: kit.tables.clone(),
            folder: kit.folder.clone(),
            keyring: Arc::clone(&kit.keyring),
            environment: EnvironmentOrigin { domain: args.origin_domain.clone(), environment: kit.installation.environment.clone() },
            metrics: Metrics::new(&kit.registry)?,
            writing: kit.writing.clone(),
        })
    }

    async fn start(parts: Parts, allowed_regions: &[String]) -> Result<Arc<Self>, StartError> {
        start(parts, allowed_regions).await
    }

    fn is_transient(error: &StartError) -> bool {
        error.is_transient()
    }

    fn own_ledger(self: &Arc<Self>) -> Option<Arc<dyn Ledger>> {
        let ledger: Arc<dyn Ledger> = Arc::<Self>::clone(self);
        Some(ledger)
    }

    fn record_in(&self, history: History) {
        Self::record_in(self, history);
    }

    fn routes(self: &Arc<Self>) -> Routes {
        rpc::routes(self)
    }

    fn is_able(&self) -> bool {
        self.engine.standing() == Standing::Sound
    }

    async fn run(self: Arc<Self>, args: AuditArgs, tasks: Tasks) -> Result<(), Box<dyn Error + Send + Sync>> {
        let Tasks { server, keys, scrub, history, health, stop } = tasks;
        // whatever is logged: an auditor needs it
        println!("{}", self.verifier());
        let scrub = Scrub::new(scrub.scrub_days).healing_from(self.clone());
        let tiles = tokio::spawn(show_tiles(Arc::clone(&self), server, args.tiles_listen, stop.clone()));
        if let Some(own) = history {
            Box::pin(jobs::run(self, own, keys, scrub, health, stop)).await;
        }
        tiles.await??;
        Ok(())
    }
}

/// Why the logs' tiles are not shown.
#[derive(Debug, thiserror::Error)]
enum TilesError {
    #[error("TLS cannot be served")]
    Tls(#[from] tsujiban_service::tls::TlsError),
    #[error("cannot listen on {address}; another program may hold the port")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
}

/// Shows logs under the same certificate as the service, on a port of their own.
async fn show_tiles(audit: Arc<Audit>, server: ServerArgs, address: SocketAddr, stop: CancellationToken) -> Result<(), TilesError> {
    // the server's own one is the one that is measured
    let certificate = Certificate::new(&server.tls_dir, &Registry::new())?;
    certificate.wait(&stop).await;
    if stop.is_cancelled() {
        return Ok(());
    }
    let listener = TcpListener::bind(address).await.map_err(|source| TilesError::Listen { address, source })?;
    let following = (certificate.clone(), stop.clone());
    tokio::spawn(async move { following.0.follow(following.1).await });
    let mut config = (*certificate.server_config()?).clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    tiles::serve(audit, listener, TlsAcceptor::from(Arc::new(config)), stop).await;
    Ok(())
}
