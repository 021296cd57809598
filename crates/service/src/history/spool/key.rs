//! The key of a spool: made for it, kept beside it, wrapped by the epoch keys.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tsujiban_core::id::KeyId;
use tsujiban_sealing::{DataKey, KeyError, Keyring, LiveEpoch, Random, SealingError, WrappedKey};

const FILE: &str = "key.json";
const SUBJECT: &str = "history spool";

/// Why a spool cannot be opened by its key.
#[derive(Debug, thiserror::Error)]
pub enum SpoolKeyError {
    #[error("{path} is no key of a spool; bring it back as it was, or move the folder away and lose the operations in it")]
    Damaged { path: PathBuf },
    #[error("the spool's key cannot be opened or wrapped")]
    Key(#[from] KeyError),
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
    pub(super) fn open(dir: &Path, keyring: &Keyring, random: Arc<dyn Random>, now: Timestamp) -> Result<Self, SpoolKeyError> {
        let path = dir.join(FILE);
        let stored = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Stored>(&bytes).map_err(|_| SpoolKeyError::Damaged { path: path.clone() })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let new = keyring.new_data_key(SUBJECT, &random, now)?;
                let made = Self { path, id: new.id, key: new.key, random };
                made.store(new.wrappings.into_iter().map(|wrapping| wrapping.wrapped))?;
                return Ok(made);
            }
            Err(source) => return Err(SpoolKeyError::File { path, source }),
        };
        let mut wrappings = Vec::new();
        for Wrapping { epoch, wrapped } in stored.wrappings {
            let bytes = STANDARD.decode(wrapped).map_err(|_| SpoolKeyError::Damaged { path: path.clone() })?;
            wrappings.push(WrappedKey { epoch, bytes });
        }
        let key = keyring.unwrap(&stored.id, SUBJECT, &wrappings)?;
        Ok(Self { path, id: stored.id, key, random })
    }

    /// Wraps the key by the epoch keys that wrap now, and by no other.
    pub(super) fn wrap(&self, keyring: &Keyring, now: Timestamp) -> Result<(), SpoolKeyError> {
        let live = keyring.live_epochs(now)?;
        let known = self.epochs()?;
        if live.iter().map(|epoch| epoch.key.id()).eq(&known) {
            return Ok(());
        }
        let wrap = |epoch: &LiveEpoch| epoch.key.wrap(&self.id, SUBJECT, &self.key, &self.random);
        let wrappings = live.iter().map(wrap).collect::<Result<Vec<_>, SealingError>>().map_err(KeyError::from)?;
        self.store(wrappings)
    }

    /// Replaces the file: after a crash it is the old one or the new one, never a part.
    fn store(&self, wrappings: impl IntoIterator<Item = WrappedKey>) -> Result<(), SpoolKeyError> {
        let wrap = |WrappedKey { epoch, bytes }| Wrapping { epoch, wrapped: STANDARD.encode(bytes) };
        let stored = Stored { id: self.id.clone(), wrappings: wrappings.into_iter().map(wrap).collect() };
        let text = serde_json::to_vec_pretty(&stored).map_err(|_| SpoolKeyError::Damaged { path: self.path.clone() })?;
        self.replace(&text).map_err(|source| SpoolKeyError::File { path: self.path.clone(), source })
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
    pub(super) fn epochs(&self) -> Result<Vec<KeyId>, SpoolKeyError> {
        let bytes = fs::read(&self.path).map_err(|source| SpoolKeyError::File { path: self.path.clone(), source })?;
        let stored: Stored = serde_json::from_slice(&bytes).map_err(|_| SpoolKeyError::Damaged { path: self.path.clone() })?;
        Ok(stored.wrappings.into_iter().map(|wrapping| wrapping.epoch).collect())
    }

    /// No other spool has this id.
    pub(super) const fn id(&self) -> &KeyId {
        &self.id
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
        let (dir, random, now) = (tempfile::tempdir().unwrap(), Arc::new(SystemRandom::new()), Timestamp::UNIX_EPOCH);
        let epochs = Epochs::new();
        let first = SpoolKey::open(dir.path(), &epochs.keyring, random.clone(), now).unwrap();
        let old = first.epochs().unwrap();
        epochs.replace();
        first.wrap(&epochs.keyring, now).unwrap();
        assert_ne!(first.epochs().unwrap(), old);
        epochs.keyring.forget_unmounted();
        let second = SpoolKey::open(dir.path(), &epochs.keyring, random.clone(), now).unwrap();
        assert_eq!(second.key.mac("x", b"y"), first.key.mac("x", b"y"));

        let missing = SpoolKey::open(dir.path(), &Epochs::new().keyring, random.clone(), now);
        assert!(matches!(missing, Err(SpoolKeyError::Key(KeyError::EpochMissing(_)))), "never a new key beside what the old one sealed");
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(matches!(SpoolKey::open(dir.path(), &epochs.keyring, random, now), Err(SpoolKeyError::Damaged { .. })));
    }
}
