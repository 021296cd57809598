//! Keys as the kubelet mounts them: one file for each entry of a Secret.

use std::path::{Path, PathBuf};
use std::{fs, io};

use zeroize::Zeroizing;

use crate::{MasterKey, SealedEpochKey, SealingError};

/// Why mounted keys cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("{path} cannot be read; mount the Secret there")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is no key")]
    Key { path: PathBuf, source: SealingError },
    #[error("{path} says that the master key is {named}, but {dir}/key is {found}; mount one Secret, not parts of two")]
    OtherId { path: PathBuf, dir: PathBuf, named: String, found: String },
    #[error("{path} is no sealed epoch key; the operator writes them, and nobody changes them")]
    Epoch { path: PathBuf, source: serde_json::Error },
}

/// The master key in `key`, which must have the id in `id`.
pub fn master_key(dir: &Path) -> Result<MasterKey, KeyFileError> {
    let path = dir.join("key");
    let key = MasterKey::from_bytes(&Zeroizing::new(read(&path)?)).map_err(|source| KeyFileError::Key { path, source })?;
    let path = dir.join("id");
    let named = String::from_utf8_lossy(&read(&path)?).trim().to_owned();
    if named == key.id().as_str() {
        return Ok(key);
    }
    Err(KeyFileError::OtherId { path, dir: dir.to_owned(), named, found: key.id().to_string() })
}

/// All epoch keys of a folder, still wrapped. Files that begin with a dot are the kubelet's own.
pub fn epoch_keys(dir: &Path) -> Result<Vec<SealedEpochKey>, KeyFileError> {
    let unreadable = |source| KeyFileError::Read { path: dir.to_owned(), source };
    let mut keys = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.')) {
            continue;
        }
        keys.push(serde_json::from_slice(&read(&path)?).map_err(|source| KeyFileError::Epoch { path, source })?);
    }
    keys.sort_by(|a: &SealedEpochKey, b| a.id.cmp(&b.id));
    Ok(keys)
}

fn read(path: &Path) -> Result<Vec<u8>, KeyFileError> {
    fs::read(path).map_err(|source| KeyFileError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemRandom;

    #[test]
    fn keys_are_read_as_they_are_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let master = MasterKey::generate(&SystemRandom::new()).unwrap();
        fs::write(dir.path().join("key"), master.expose()).unwrap();
        fs::write(dir.path().join("id"), master.id().as_str()).unwrap();
        assert_eq!(master_key(dir.path()).unwrap().id(), master.id());

        let epochs = tempfile::tempdir().unwrap();
        let epoch = SealedEpochKey::generate(&master, &SystemRandom::new(), "2026-11-23T00:00:00Z".parse().unwrap()).unwrap();
        fs::create_dir(epochs.path().join("..data")).unwrap();
        fs::write(epochs.path().join(epoch.id.as_str()), serde_json::to_vec(&epoch).unwrap()).unwrap();
        assert_eq!(epoch_keys(epochs.path()).unwrap(), [epoch]);
    }

    #[test]
    fn parts_of_two_secrets_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("key"), [1; 32]).unwrap();
        fs::write(dir.path().join("id"), "0").unwrap();
        assert!(matches!(master_key(dir.path()), Err(KeyFileError::OtherId { .. })));
    }
}
