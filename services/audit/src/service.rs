//! The service: its parts, and what several calls need.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use jiff::Timestamp;
use tsujiban_core::clock::Clock;
use tsujiban_core::error::chain;
use tsujiban_database::{Database, Rights, Schema};
use tsujiban_history::{Checkpoint, EnvironmentOrigin, LogId, Origin, SigningKey, TreeHead, VerifierKey};
use tsujiban_objects::Objects;
use tsujiban_proto::lifecycle::v1::Writing;
use tsujiban_sealing::{Keyring, Random};
use tsujiban_service::history::History;
use tsujiban_service::writing::{Resource, WriteState};

use crate::archive::Waiting;
use crate::engine::{Added, Addition, Engine, EngineParts, Standing};
use crate::error::{Result, WAY_OUT, why_unwritable};
use crate::metrics::Metrics;
use crate::rebuild::MissingKeys;
use crate::roots::Listing;
use crate::signing::{self, KeySources};

/// The parts of the service. All of its outside dependencies are here.
#[derive(Clone)]
pub struct Parts {
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub store: Arc<dyn Objects>,
    pub database: Database,
    /// SQLite: the folder of the database.
    pub folder: Option<PathBuf>,
    pub keyring: Arc<Keyring>,
    pub environment: EnvironmentOrigin,
    pub metrics: Metrics,
    pub writing: WriteState,
}

/// The most intents to declare a gap that are held until a gap is declared.
const HELD: usize = 64;

/// The service.
pub struct Audit {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) store: Arc<dyn Objects>,
    pub(crate) database: Database,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) environment: EnvironmentOrigin,
    pub(crate) metrics: Metrics,
    pub writing: WriteState,
    pub engine: Engine,
    pub(crate) key: Arc<SigningKey>,
    verifier: VerifierKey,
    /// Held while root lists are compared or written, and while a gap is declared.
    pub(crate) listing: tokio::sync::Mutex<Listing>,
    /// Intents to declare a gap, held until they can be added.
    held: Mutex<Vec<Addition>>,
    /// Entries whose bodies are damaged and not archived yet.
    pub(crate) waiting: Waiting,
    missing_keys: Mutex<MissingKeys>,
    /// The history client that records operations on this service, for the epoch keys of its spool.
    own: OnceLock<History>,
}

/// The history's tables. In PostgreSQL their functions grant the service's role its rights: it may add entries, and neither change nor
/// remove them.
pub static SCHEMA: Schema = Schema {
    sqlite: sqlx::migrate!("migrations/sqlite"),
    postgres: sqlx::migrate!("migrations/postgres"),
    additions: "",
    oldest: "0.2.0",
    rights: Rights::Granted(&["SELECT grant_history($1)", "SELECT grant_archive($1)"]),
};

impl Audit {
    /// Opens the signing key and starts the engine, read-only if it was so before. The tables exist already.
    pub async fn open(parts: Parts) -> Result<Arc<Self>> {
        let Parts { clock, random, store, database, folder, keyring, environment, metrics, writing } = parts;
        let sources = KeySources { database: &database, store: &store, keyring: &keyring, random: &random, environment: &environment };
        let key = Arc::new(signing::open(sources, clock.now()).await?);
        let verifier = signing::verifier(&key, &environment)?;
        tracing::info!(%verifier, "checkpoints and root lists are signed by this key");
        let engine = Engine::start(EngineParts {
            database: database.clone(),
            keyring: Arc::clone(&keyring),
            clock: Arc::clone(&clock),
            random: Arc::clone(&random),
            folder,
            writing: writing.clone(),
        })
        .await?;
        let (listing, held) = (tokio::sync::Mutex::default(), Mutex::default());
        let audit = Self {
            clock,
            random,
            store,
            database,
            keyring,
            environment,
            metrics,
            writing,
            engine,
            key,
            verifier,
            listing,
            held,
            waiting: Waiting::default(),
            missing_keys: Mutex::default(),
            own: OnceLock::new(),
        };
        audit.recall_standing().await?;
        audit.recall_refused().await?;
        audit.recall_claims().await?;
        audit.seal_logs().await?;
        audit.hold_for_owners().await?;
        Ok(Arc::new(audit))
    }

    /// Puts the signing key into the bucket again before the lock of its copy ends.
    pub(crate) async fn keep_signing_key(&self) -> Result<()> {
        let Self { database, store, keyring, random, environment, .. } = self;
        signing::keep_in_bucket(KeySources { database, store, keyring, random, environment }, self.now()).await
    }

    /// Sets the history client that records operations on this service. Its spool needs epoch keys, too.
    pub fn record_in(&self, own: History) {
        let _ = self.own.set(own); // set only once
    }

    pub(crate) fn own(&self) -> Option<&History> {
        self.own.get()
    }

    pub(crate) fn missing_keys(&self) -> MutexGuard<'_, MissingKeys> {
        self.missing_keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn take_held(&self) -> Vec<Addition> {
        std::mem::take(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Holds entries about a gap until it is declared.
    pub(crate) fn hold(&self, additions: Vec<Addition>) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.extend(additions);
        // the newest ones stay
        let excess = held.len().saturating_sub(HELD);
        held.drain(..excess);
    }

    /// Adds entries. Repeated entries restore their damaged bodies.
    pub(crate) async fn append_all(&self, additions: Vec<Addition>) -> Result<Vec<Added>> {
        let again = (!self.waiting.is_empty()).then(|| additions.clone());
        let added = self.engine.append(additions).await?;
        if let Some(again) = again
            && let Err(error) = self.bring_bodies(&again, &added).await
        {
            // the entries exist nevertheless, and callers are asked for them again
            tracing::error!(error = chain(&error), "bodies that were added once more could not be put beside the damaged ones");
        }
        Ok(added)
    }

    /// Tries to write to the database, and returns why that fails.
    pub async fn try_write(&self) -> Result<(), String> {
        self.database.try_write(self.now().as_microsecond()).await.map_err(|error| why_unwritable(&error))
    }

    /// Reads the whole database to check its integrity. Stores the result in the state of writing.
    pub async fn check_database(&self) -> Result<()> {
        let found = self.database.damage().await?;
        match found.first() {
            None => self.writing.works(Resource::Integrity),
            Some(first) => {
                tracing::error!(found = found.len(), first, "the database is malformed");
                self.writing.fails(Resource::Integrity, format!("the database is malformed ({first}): {WAY_OUT}"));
            }
        }
        Ok(())
    }

    /// Whether entries can be added, for the operator: they cannot while the history is read-only.
    pub(crate) fn writing_report(&self) -> Writing {
        let report = self.writing.report();
        match self.engine.standing() {
            Standing::Forked(why) if report.able => {
                let reason = format!("the history is read-only: {why}; see docs/history.md for the way back");
                Writing { able: false, reason, since: None }
            }
            _ => report,
        }
    }

    /// The same for one log: `None` unless it is refused.
    pub(crate) fn refusal_of(&self, log: i64) -> Option<Writing> {
        let why = self.engine.refused().why(log)?;
        let reason = format!("nothing is added to this history, and all others go on: {why}; see docs/history.md for the way back");
        Some(Writing { able: false, reason, since: None })
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The key whose signature checkpoints, root lists and gaps have.
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    pub fn origin(&self, log: LogId) -> Origin {
        Origin { environment: self.environment.clone(), log }
    }

    /// Signs a head of a log.
    pub fn sign(&self, log: LogId, head: TreeHead) -> Result<String> {
        Ok(Checkpoint::new(&self.origin(log), head).sign(&self.key)?)
    }
}
