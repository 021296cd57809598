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

/// How many devices can be written at the same time without ever waiting for each other by chance.
const TURNS: usize = 1024;

/// What the service is made of. Whatever it knows of the world comes from here.
#[derive(Clone)]
pub struct Parts {
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub store: Arc<dyn Objects>,
    pub catalogue: Catalogue,
    pub keyring: Arc<Keyring>,
    pub environment: EnvironmentName,
    pub metrics: Metrics,
    /// Where it is recorded what came of each call. `None`: nowhere.
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
    /// Held while catalogue and bucket are compared; when that was last done since the start. Nothing expires before.
    pub(crate) compared: Mutex<Option<Timestamp>>,
    /// Whether a comparison brought keys back since damaged snapshots were last read again.
    pub(crate) keys_came_back: AtomicBool,
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
            keys_came_back: AtomicBool::default(),
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

    /// Opens the data key of a device or group. There is no cache: a key that is destroyed is destroyed at once. One that is missing
    /// without a record of an erasure is damaged.
    pub(crate) async fn data_key(&self, id: &KeyId, subject: &IncarnationId) -> Result<DataKey> {
        match keys::unwrap(&self.keyring, &self.catalogue.wrappings(id).await?) {
            Err(KeyError::Destroyed) if !self.catalogue.was_destroyed(subject).await? => {
                Err(Damaged::key(id, subject, "it is not in the key table, and no erasure is on record").into())
            }
            Err(KeyError::Sealing(error @ SealingError::NotOpened)) => Err(Damaged::key(id, subject, error.to_string()).into()),
            key => Ok(key?),
        }
    }

    /// Waits until nobody else stores something of this device.
    pub(crate) async fn turn(&self, device: &IncarnationId) -> Option<MutexGuard<'_, ()>> {
        // ids are random, so their digits spread well
        let digits = device.as_str().get(..4).and_then(|digits| usize::from_str_radix(digits, 16).ok()).unwrap_or_default();
        match self.turns.get(digits % TURNS) {
            Some(turn) => Some(turn.lock().await),
            None => None,
        }
    }
}
