//! temporary
use std::sync::RwLock;
use jiff::{SignedDuration, Timestamp};
use tsujiban_core::id::KeyId;
use tsujiban_sealing::{EpochKey, MasterKey, SealedEpochKey, SealingError};

pub const OVERLAP: SignedDuration = SignedDuration::from_hours(24);

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("there is no epoch key")]
    NoEpoch,
    #[error("the data key was destroyed when its data was erased")]
    Destroyed,
    #[error("the data key is wrapped by epoch key {0}, which is not mounted; bring it back to Secret tsujiban-epoch-keys")]
    EpochMissing(KeyId),
    #[error("a key cannot be used")]
    Sealing(#[from] SealingError),
}
#[derive(Debug)]
pub struct Keyring { master: MasterKey, epochs: RwLock<Vec<EpochKey>> }
#[derive(Debug, Clone)]
pub struct LiveEpoch { pub key: EpochKey, pub superseded_at: Option<Timestamp> }
impl Keyring {
    pub fn new(master: MasterKey, epochs: &[SealedEpochKey]) -> Result<Self, KeyError> {
        let epochs = epochs.iter().map(|e| e.open(&master)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { master, epochs: RwLock::new(epochs) })
    }
    pub fn master_id(&self) -> KeyId { self.master.id() }
    pub fn live_epochs(&self, now: Timestamp) -> Result<Vec<LiveEpoch>, KeyError> {
        let epochs = self.epochs.read().unwrap();
        let mut superseded_at: Option<Timestamp> = None;
        let mut live = Vec::new();
        for key in epochs.iter().rev() {
            if superseded_at.is_some_and(|at| now.duration_since(at) >= OVERLAP) { break; }
            live.push(LiveEpoch { key: key.clone(), superseded_at });
            superseded_at = Some(key.created());
        }
        if live.is_empty() { Err(KeyError::NoEpoch) } else { Ok(live) }
    }
    pub fn epoch(&self, id: &KeyId) -> Result<EpochKey, KeyError> {
        self.epochs.read().unwrap().iter().find(|e| e.id() == id).cloned().ok_or_else(|| KeyError::EpochMissing(id.clone()))
    }
}
