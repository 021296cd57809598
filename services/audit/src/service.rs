//! The service: what it is made of, and what several calls need.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use tsujiban_core::clock::Clock;
use tsujiban_core::id::EnvironmentName;
use tsujiban_database::{Database, Migrations};
use tsujiban_history::{Checkpoint, LogId, Origin, SigningKey, TreeHead, VerifierKey};
use tsujiban_objects::Objects;
use tsujiban_proto::audit::v1::NewEntry;
use tsujiban_proto::error::ServiceError;
use tsujiban_sealing::{Keyring, Random};
use tsujiban_service::history::{History, Ledger};

use crate::engine::{Addition, Engine, EngineParts, Phase, Standing};
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::{rpc, signing};

/// What the service is made of. Whatever it knows of the world comes from here.
#[derive(Clone)]
pub struct Parts {
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub store: Arc<dyn Objects>,
    pub database: Database,
    /// SQLite: the folder of the database.
    pub folder: Option<PathBuf>,
    pub keyring: Arc<Keyring>,
    pub environment: EnvironmentName,
    pub metrics: Metrics,
}

/// How many intents to declare a gap wait for one at most.
const HELD: usize = 64;

/// The service.
pub struct Audit {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) store: Arc<dyn Objects>,
    pub(crate) database: Database,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) environment: EnvironmentName,
    pub(crate) metrics: Metrics,
    pub engine: Engine,
    pub(crate) key: Arc<SigningKey>,
    verifier: VerifierKey,
    /// Held while root lists are compared or written, and while a gap is declared.
    pub(crate) listing: tokio::sync::Mutex<()>,
    /// Intents to declare a gap, until there is a place for them.
    held: Mutex<Vec<Addition>>,
    /// Where what is done to this service is recorded, for its keys.
    own: OnceLock<History>,
}

/// How the tables come to be. With PostgreSQL their owner does this, who is not the service.
pub fn migrations() -> Migrations {
    Migrations { sqlite: sqlx::migrate!("migrations/sqlite"), postgres: sqlx::migrate!("migrations/postgres") }
}

impl Audit {
    /// Opens the signing key and starts the engine. The tables are there already.
    pub async fn open(parts: Parts) -> Result<Arc<Self>> {
        let Parts { clock, random, store, database, folder, keyring, environment, metrics } = parts;
        let key = Arc::new(signing::open(&database, &keyring, &random, clock.now()).await?);
        let verifier = signing::verifier(&key, &environment)?;
        tracing::info!(%verifier, "checkpoints and root lists are signed by this key");
        let engine = Engine::start(EngineParts {
            database: database.clone(),
            keyring: Arc::clone(&keyring),
            clock: Arc::clone(&clock),
            random: Arc::clone(&random),
            folder,
        })
        .await?;
        let (listing, held) = (tokio::sync::Mutex::default(), Mutex::default());
        let audit = Arc::new(Self {
            clock,
            random,
            store,
            database,
            keyring,
            environment,
            metrics,
            engine,
            key,
            verifier,
            listing,
            held,
            own: OnceLock::new(),
        });
        audit.seal_logs().await?;
        Ok(audit)
    }

    /// Says where what is done to this service is recorded. Its spool needs epoch keys, too.
    pub fn record_in(&self, own: History) {
        let _ = self.own.set(own); // said once
    }

    pub(crate) fn own(&self) -> Option<&History> {
        self.own.get()
    }

    pub(crate) fn take_held(&self) -> Vec<Addition> {
        std::mem::take(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Whose signature checkpoints, root lists and gaps carry.
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    pub fn origin(&self, log: LogId) -> Origin {
        Origin { environment: self.environment.clone(), log }
    }

    /// Signs how far a log has come.
    pub fn sign(&self, log: LogId, head: TreeHead) -> Result<String> {
        Ok(Checkpoint::new(&self.origin(log), head).sign(&self.key)?)
    }
}

/// The audit service records what is done to itself in its own history.
#[async_trait]
impl Ledger for Audit {
    async fn append(&self, entries: Vec<NewEntry>) -> Result<(), ServiceError> {
        let way_back = entries.iter().all(|entry| entry.operation.as_ref().is_some_and(|operation| operation.method == "DeclareGap"));
        let additions = entries.into_iter().map(rpc::addition).collect::<Result<Vec<_>>>()?;
        let intents = additions.iter().all(|addition| addition.phase == Phase::Intent);
        if way_back && intents && self.engine.standing() != Standing::Sound {
            // it cannot be in the history before the gap: it comes right behind it
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.extend(additions);
            let excess = held.len().saturating_sub(HELD);
            held.drain(..excess);
            return Ok(());
        }
        self.engine.append(additions).await.map_err(Error::from)?;
        Ok(())
    }
}
