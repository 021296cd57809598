//! The key of a spool: made for it, kept beside it, wrapped by the epoch keys.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tsujiban_core::id::KeyId;
use tsujiban_sealing::{DataKey, EpochKey, Random, SealingError, WrappedKey};

const FILE: &str = "key.json";
const SUBJECT: &str = "history spool";

/// The epoch keys, as the service that owns the spool has them.
pub trait EpochKeys: Send + Sync + 'static {
    /// Those that wrap what is new, the newest first. Empty when there is none.
    fn live(&self) -> Vec<EpochKey>;

    /// An epoch key that is still here, whether or not it wraps.
    fn find(&self, id: &KeyId) -> Option<EpochKey>;
}

/// Why a spool cannot be opened by its key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("there is no epoch key; the operator makes the first one in Secret tsujiban-epoch-keys")]
    NoEpoch,
    #[error("{path} is no key of a spool; bring it back as it was, or move the folder away and lose the operations in it")]
    Damaged { path: PathBuf },
    #[error("the spool's key is wrapped by epoch keys {epochs}, and none is mounted; bring one back to Secret tsujiban-epoch-keys")]
    EpochMissing { epochs: String },
    #[error("the spool's key cannot be used")]
    Sealing(#[from] SealingError),
    #[error("{path} cannot be read or written")]
    File { path: PathBuf, source: io::Error },
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    id: KeyId,
    wrappings: Vec<Wrapping>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Wrapping {
    epoch: KeyId,
    /// Base64.
    wrapped: String,
}

/// The key of the spool in a folder.
#[derive(Clone)]
pub(super) struct SpoolKey {
    path: PathBuf,
    id: KeyId,
    pub key: DataKey,
    random: Arc<dyn Random>,
}

impl SpoolKey {
    /// Opens the key in `dir`, or makes one.
    pub(super) fn open(dir: &Path, epochs: &dyn EpochKeys, random: Arc<dyn Random>) -> Result<Self, KeyError> {
        let path = dir.join(FILE);
        let stored = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Stored>(&bytes).map_err(|_| KeyError::Damaged { path: path.clone() })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut id = [0; 16];
                random.fill(&mut id)?;
                let (id, key) = (KeyId::from_bytes(id), DataKey::generate(&random)?);
                let made = Self { path, id, key, random };
                made.wrap(epochs)?;
                return Ok(made);
            }
            Err(source) => return Err(KeyError::File { path, source }),
        };
        let mut named = Vec::new();
        for Wrapping { epoch, wrapped } in stored.wrappings {
            if let Some(found) = epochs.find(&epoch) {
                let bytes = STANDARD.decode(wrapped).map_err(|_| KeyError::Damaged { path: path.clone() })?;
                let key = found.unwrap(&stored.id, SUBJECT, &WrappedKey { epoch, bytes })?;
                return Ok(Self { path, id: stored.id, key, random });
            }
            named.push(epoch.to_string());
        }
        Err(KeyError::EpochMissing { epochs: named.join(", ") })
    }

    /// Wraps the key by the epoch keys that wrap now, and by no other. The file is the old one or the new one, whatever happens.
    pub(super) fn wrap(&self, epochs: &dyn EpochKeys) -> Result<(), KeyError> {
        let live = epochs.live();
        if live.is_empty() {
            return Err(KeyError::NoEpoch);
        }
        let wrap = |epoch: &EpochKey| {
            let wrapped = epoch.wrap(&self.id, SUBJECT, &self.key, &self.random)?;
            Ok::<_, KeyError>(Wrapping { epoch: wrapped.epoch, wrapped: STANDARD.encode(wrapped.bytes) })
        };
        let stored = Stored { id: self.id.clone(), wrappings: live.iter().map(wrap).collect::<Result<_, _>>()? };
        let text = serde_json::to_vec_pretty(&stored).map_err(|_| KeyError::Damaged { path: self.path.clone() })?;
        self.replace(&text).map_err(|source| KeyError::File { path: self.path.clone(), source })
    }

    fn replace(&self, text: &[u8]) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        self.path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    }

    /// The epoch keys that open this key's file.
    pub(super) fn epochs(&self) -> Result<Vec<KeyId>, KeyError> {
        let bytes = fs::read(&self.path).map_err(|source| KeyError::File { path: self.path.clone(), source })?;
        let stored: Stored = serde_json::from_slice(&bytes).map_err(|_| KeyError::Damaged { path: self.path.clone() })?;
        Ok(stored.wrappings.into_iter().map(|wrapping| wrapping.epoch).collect())
    }

    pub(super) fn random(&self) -> &dyn Random {
        &*self.random
    }
}

#[cfg(test)]
mod tests {
    use tsujiban_sealing::SystemRandom;

    use super::*;
    use crate::testing::Epochs;

    #[test]
    fn the_key_outlives_the_epoch_key_that_wrapped_it_first() {
        let (dir, random) = (tempfile::tempdir().unwrap(), Arc::new(SystemRandom::new()));
        let epochs = Epochs::new();
        let first = SpoolKey::open(dir.path(), &epochs, random.clone()).unwrap();
        let old = first.epochs().unwrap();
        epochs.rotate();
        first.wrap(&epochs).unwrap();
        assert_ne!(first.epochs().unwrap(), old);
        epochs.forget(&old[0]);
        let second = SpoolKey::open(dir.path(), &epochs, random.clone()).unwrap();
        assert_eq!(second.key.mac("x", b"y"), first.key.mac("x", b"y"));

        let missing = SpoolKey::open(dir.path(), &Epochs::new(), random.clone());
        assert!(matches!(missing, Err(KeyError::EpochMissing { .. })), "never a new key beside what the old one sealed");
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(matches!(SpoolKey::open(dir.path(), &epochs, random), Err(KeyError::Damaged { .. })));
    }
}
