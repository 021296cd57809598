//! The service: what it is made of, and what several calls need.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use jiff::Timestamp;
use tokio::sync::{Mutex, MutexGuard};
use tsujiban_core::clock::Clock;
use tsujiban_core::id::{EnvironmentName, IncarnationId, KeyId};
use tsujiban_objects::{Hooked, Measured, Objects};
use tsujiban_sealing::{DataKey, KeyError, Keyring, Random, SealingError};
use tsujiban_service::history::History;
use tsujiban_service::writing::WriteState;

use crate::catalogue::Catalogue;
use crate::damage::Damaged;
use crate::error::Result;
use crate::keys;
use crate::metrics::Metrics;
use crate::writing::Noting;

/// How many mutexes serve all devices; devices that share one by chance wait for each other.
const TURNS: usize = 1024;

/// What the service is made of: its only access to clock, randomness, storage and database.
#[derive(Clone)]
pub struct Parts {
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub store: Arc<dyn Objects>,
    pub catalogue: Catalogue,
    pub keyring: Arc<Keyring>,
    pub environment: EnvironmentName,
    pub metrics: Metrics,
    /// The history that records the result of each call. `None`: nothing is recorded.
    pub history: Option<History>,
    pub writing: WriteState,
}

/// The service. [`start`](crate::start::start) makes it.
pub struct Backup {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) store: Arc<dyn Objects>,
    pub(crate) catalogue: Catalogue,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) environment: EnvironmentName,
    pub(crate) metrics: Metrics,
    pub(crate) history: Option<History>,
    pub writing: WriteState,
    turns: Vec<Mutex<()>>,
    /// Held while the key table is copied to the bucket.
    pub(crate) copying: Mutex<()>,
    /// Held while catalogue and bucket are compared. The time of the last comparison since the start: nothing expires before the first.
    pub(crate) compared: Mutex<Option<Timestamp>>,
    /// Whether a comparison restored keys since damaged snapshots were last read again.
    pub(crate) keys_restored: AtomicBool,
}

impl Backup {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { clock, random, store, catalogue, keyring, environment, metrics, history, writing } = parts;
        let store = Arc::new(Hooked::new(Arc::new(Measured::new(store, metrics.store.clone())), Noting(writing.clone())));
        let turns = (0..TURNS).map(|_| Mutex::default()).collect();
        Self {
            clock,
            random,
            store,
            catalogue,
            keyring,
            environment,
            metrics,
            history,
            writing,
            turns,
            copying: Mutex::default(),
            compared: Mutex::default(),
            keys_restored: AtomicBool::default(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// 16 bytes that nobody can guess.
    pub(crate) fn random_id(&self) -> Result<[u8; 16]> {
        let mut id = [0; 16];
        self.random.fill(&mut id)?;
        Ok(id)
    }

    /// Opens the data key of a device or group. There is no cache, so that a destroyed key is unusable at once. One that is missing without
    /// a record of an erasure is damaged.
    pub(crate) async fn data_key(&self, id: &KeyId, subject: &IncarnationId) -> Result<DataKey> {
        match keys::unwrap(&self.keyring, &self.catalogue.wrappings(id).await?) {
            Err(KeyError::Destroyed) if !self.catalogue.was_destroyed(subject).await? => {
                Err(Damaged::key(id, subject, "it is not in the key table, and no erasure is on record").into())
            }
            Err(KeyError::Sealing(error @ SealingError::NotOpened)) => Err(Damaged::key(id, subject, error.to_string()).into()),
            key => Ok(key?),
        }
    }

    /// Waits until no other call stores something of this device, and keeps others out while the guard lives.
    pub(crate) async fn turn(&self, device: &IncarnationId) -> Option<MutexGuard<'_, ()>> {
        // ids are random, so their digits spread well
        let digits = device.as_str().get(..4).and_then(|digits| usize::from_str_radix(digits, 16).ok()).unwrap_or_default();
        match self.turns.get(digits % TURNS) {
            Some(turn) => Some(turn.lock().await),
            None => None,
        }
    }
}
