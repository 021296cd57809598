//! The audit service as a program: its arguments and parts.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use clap::Args;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tsujiban_core::workload::Service;
use tsujiban_database::{Database, Schema};
use tsujiban_history::{EnvironmentOrigin, OriginDomain};
use tsujiban_objects::{Measured, StoreMetrics};
use tsujiban_service::history::{History, Ledger};
use tsujiban_service::program::{Kit, Program, Tasks};
use tsujiban_service::server::ServerArgs;
use tsujiban_service::tls::Certificate;

use crate::engine::Standing;
use crate::metrics::Metrics;
use crate::scrub::Scrub;
use crate::service::{Audit, Parts, SCHEMA};
use crate::start::{StartError, start};
use crate::{jobs, rpc, tiles};

#[derive(Debug, Clone, Args)]
pub struct AuditArgs {
    /// Where logs are shown as C2SP tlog-tiles: HTTPS, with the certificate of the service.
    #[arg(long, env = "TSUJIBAN_TILES_LISTEN", default_value = "0.0.0.0:8444")]
    pub tiles_listen: SocketAddr,
    /// The DNS name that begins the names of logs, root lists and the key. The first start fixes it.
    #[arg(long, env = "TSUJIBAN_ORIGIN_DOMAIN", default_value_t)]
    pub origin_domain: OriginDomain,
}

impl Program for Audit {
    const SERVICE: Service = Service::Audit;
    const ABOUT: &'static str = "Keeps the operation history of every group";
    const CONTRACTS: &'static [&'static str] = &rpc::SERVICES;

    type Args = AuditArgs;
    type Tables = Database;
    type Parts = Parts;
    type Error = StartError;

    fn schema() -> &'static Schema {
        &SCHEMA
    }

    async fn open(database: Database) -> Result<Database, StartError> {
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
        // printed at every log level: an auditor needs it
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

/// Why the logs' tiles are not served.
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

/// Serves logs under the same certificate as the service, on their own port.
async fn show_tiles(audit: Arc<Audit>, server: ServerArgs, address: SocketAddr, stop: CancellationToken) -> Result<(), TilesError> {
    // an unused registry: the server already measures this certificate
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
