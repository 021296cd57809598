//! The keys that are mounted, and what they wrap.

pub mod files;

use std::sync::{PoisonError, RwLock};

use tsujiban_core::id::{IncarnationId, KeyId};
use tsujiban_sealing::{DataKey, EpochKey, MasterKey, Random, SealedEpochKey, SealingError};

use crate::catalogue::KeyRow;

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("there is no epoch key; the operator makes the first one in Secret tsujiban-epoch-keys")]
    NoEpoch,
    #[error("the data key was destroyed when its data was erased")]
    Destroyed,
    #[error("the data key is wrapped by epoch key {0}, which is not mounted; bring it back to Secret tsujiban-epoch-keys")]
    EpochMissing(KeyId),
    #[error("a key cannot be used")]
    Sealing(#[from] SealingError),
}

/// The master key and the epoch keys under it.
#[derive(Debug)]
pub struct Keyring {
    master: MasterKey,
    /// From old to new, never empty.
    epochs: RwLock<Vec<EpochKey>>,
}

impl Keyring {
    pub fn new(master: MasterKey, epochs: &[SealedEpochKey]) -> Result<Self, KeyError> {
        let epochs = RwLock::new(opened(&master, epochs)?);
        Ok(Self { master, epochs })
    }

    pub fn master_id(&self) -> KeyId {
        self.master.id()
    }

    /// Takes the epoch keys that are mounted now. When one of them cannot be opened, everything stays as it was.
    pub fn replace_epochs(&self, epochs: &[SealedEpochKey]) -> Result<(), KeyError> {
        let epochs = opened(&self.master, epochs)?;
        *self.epochs.write().unwrap_or_else(PoisonError::into_inner) = epochs;
        Ok(())
    }

    /// The epoch key that wraps.
    pub fn newest_epoch(&self) -> Result<EpochKey, KeyError> {
        self.epochs.read().unwrap_or_else(PoisonError::into_inner).last().cloned().ok_or(KeyError::NoEpoch)
    }

    pub fn epoch(&self, id: &KeyId) -> Result<EpochKey, KeyError> {
        let epochs = self.epochs.read().unwrap_or_else(PoisonError::into_inner);
        epochs.iter().find(|epoch| epoch.id() == id).cloned().ok_or_else(|| KeyError::EpochMissing(id.clone()))
    }

    /// A new data key for a group or device, and its row for the key table.
    pub fn new_data_key(&self, group: &IncarnationId, subject: &IncarnationId, random: &dyn Random) -> Result<(DataKey, KeyRow), KeyError> {
        let mut id = [0; 16];
        random.fill(&mut id)?;
        let (key_id, key) = (KeyId::from_bytes(id), DataKey::generate(random)?);
        let wrapped = self.newest_epoch()?.wrap(&key_id, subject.as_str(), &key, random)?;
        Ok((key, KeyRow { key_id, subject: subject.clone(), group: group.clone(), wrapped }))
    }

    /// Opens a data key by whichever of its wrappings has its epoch key here.
    pub fn unwrap(&self, wrappings: &[KeyRow]) -> Result<DataKey, KeyError> {
        let mut failed = KeyError::Destroyed;
        for row in wrappings {
            let opened =
                self.epoch(&row.wrapped.epoch).and_then(|epoch| Ok(epoch.unwrap(&row.key_id, row.subject.as_str(), &row.wrapped)?));
            match opened {
                Ok(key) => return Ok(key),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// The same key wrapped by another epoch key.
    pub fn rewrap(&self, row: &KeyRow, epoch: &EpochKey, random: &dyn Random) -> Result<KeyRow, KeyError> {
        let key = self.unwrap(std::slice::from_ref(row))?;
        let wrapped = epoch.wrap(&row.key_id, row.subject.as_str(), &key, random)?;
        Ok(KeyRow { wrapped, ..row.clone() })
    }
}

fn opened(master: &MasterKey, sealed: &[SealedEpochKey]) -> Result<Vec<EpochKey>, KeyError> {
    let mut epochs = sealed.iter().map(|epoch| epoch.open(master)).collect::<Result<Vec<_>, _>>()?;
    epochs.sort_by(|a, b| (a.created(), a.id()).cmp(&(b.created(), b.id())));
    if epochs.is_empty() { Err(KeyError::NoEpoch) } else { Ok(epochs) }
}
