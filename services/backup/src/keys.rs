//! The keys that are mounted, and what they wrap.

pub mod files;

use std::sync::{PoisonError, RwLock};

use jiff::{SignedDuration, Timestamp};
use tsujiban_core::id::{IncarnationId, KeyId};
use tsujiban_sealing::{DataKey, EpochKey, MasterKey, Random, SealedEpochKey, SealingError};

use crate::catalogue::KeyRow;

/// For how long an epoch key that was followed by a newer one still wraps whatever is wrapped. A cluster that is brought back to
/// a copy of at most this age has one of these keys, and so opens everything: what was wrapped before the copy and after it.
pub const OVERLAP: SignedDuration = SignedDuration::from_hours(24);

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
    epochs: RwLock<Epochs>,
}

#[derive(Debug)]
struct Epochs {
    /// From old to new, never empty.
    mounted: Vec<EpochKey>,
    /// Not mounted any more, and not forgotten before what only they open is wrapped by another one.
    leaving: Vec<EpochKey>,
}

/// An epoch key that wraps.
#[derive(Debug, Clone)]
pub struct LiveEpoch {
    pub key: EpochKey,
    /// When a newer one followed; `None` for the newest.
    pub superseded_at: Option<Timestamp>,
}

impl Keyring {
    pub fn new(master: MasterKey, epochs: &[SealedEpochKey]) -> Result<Self, KeyError> {
        let mounted = opened(&master, epochs)?;
        Ok(Self { master, epochs: RwLock::new(Epochs { mounted, leaving: Vec::new() }) })
    }

    pub fn master_id(&self) -> KeyId {
        self.master.id()
    }

    /// Takes the epoch keys that are mounted now. Those that were mounted before open what they wrapped until
    /// [`forget_unmounted`](Self::forget_unmounted). When one cannot be opened, everything stays as it was.
    pub fn replace_epochs(&self, epochs: &[SealedEpochKey]) -> Result<(), KeyError> {
        let mounted = opened(&self.master, epochs)?;
        let mut epochs = self.epochs.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut epochs.mounted, mounted);
        epochs.leaving.extend(before);
        let Epochs { mounted, leaving } = &mut *epochs;
        leaving.retain(|old| !mounted.iter().any(|epoch| epoch.id() == old.id()));
        Ok(())
    }

    /// Forgets the epoch keys that are not mounted any more.
    pub fn forget_unmounted(&self) {
        self.epochs.write().unwrap_or_else(PoisonError::into_inner).leaving.clear();
    }

    /// The epoch key whose wrappings are the current ones.
    pub fn newest_epoch(&self) -> Result<EpochKey, KeyError> {
        self.epochs.read().unwrap_or_else(PoisonError::into_inner).mounted.last().cloned().ok_or(KeyError::NoEpoch)
    }

    /// The epoch keys that wrap what is new at `now`, the newest first: that one, and those of the [`OVERLAP`].
    pub fn live_epochs(&self, now: Timestamp) -> Result<Vec<LiveEpoch>, KeyError> {
        let epochs = self.epochs.read().unwrap_or_else(PoisonError::into_inner);
        let mut superseded_at: Option<Timestamp> = None;
        let mut live = Vec::new();
        for key in epochs.mounted.iter().rev() {
            if superseded_at.is_some_and(|at| now.duration_since(at) >= OVERLAP) {
                break;
            }
            live.push(LiveEpoch { key: key.clone(), superseded_at });
            superseded_at = Some(key.created());
        }
        if live.is_empty() { Err(KeyError::NoEpoch) } else { Ok(live) }
    }

    pub fn epoch(&self, id: &KeyId) -> Result<EpochKey, KeyError> {
        let epochs = self.epochs.read().unwrap_or_else(PoisonError::into_inner);
        let found = epochs.mounted.iter().chain(&epochs.leaving).find(|epoch| epoch.id() == id);
        found.cloned().ok_or_else(|| KeyError::EpochMissing(id.clone()))
    }

    /// The id of a new data key for a group or device, and its rows for the key table: a wrapping by each epoch key that wraps.
    pub fn new_data_key(
        &self,
        (group, subject): (&IncarnationId, &IncarnationId),
        random: &dyn Random,
        now: Timestamp,
    ) -> Result<(KeyId, Vec<KeyRow>), KeyError> {
        let mut id = [0; 16];
        random.fill(&mut id)?;
        let (key_id, key) = (KeyId::from_bytes(id), DataKey::generate(random)?);
        let wrap = |epoch: LiveEpoch| {
            let wrapped = epoch.key.wrap(&key_id, subject.as_str(), &key, random)?;
            let (key_id, subject, group) = (key_id.clone(), subject.clone(), group.clone());
            Ok(KeyRow { key_id, subject, group, wrapped, superseded_at: epoch.superseded_at })
        };
        let rows = self.live_epochs(now)?.into_iter().map(wrap).collect::<Result<Vec<_>, KeyError>>()?;
        Ok((key_id, rows))
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

    /// The key of these wrappings wrapped by another epoch key.
    pub fn rewrap(&self, wrappings: &[KeyRow], epoch: &EpochKey, random: &dyn Random) -> Result<KeyRow, KeyError> {
        let key = self.unwrap(wrappings)?;
        let row = wrappings.first().ok_or(KeyError::Destroyed)?;
        let wrapped = epoch.wrap(&row.key_id, row.subject.as_str(), &key, random)?;
        Ok(KeyRow { wrapped, superseded_at: None, ..row.clone() })
    }
}

fn opened(master: &MasterKey, sealed: &[SealedEpochKey]) -> Result<Vec<EpochKey>, KeyError> {
    let mut epochs = sealed.iter().map(|epoch| epoch.open(master)).collect::<Result<Vec<_>, _>>()?;
    epochs.sort_by(|a, b| (a.created(), a.id()).cmp(&(b.created(), b.id())));
    if epochs.is_empty() { Err(KeyError::NoEpoch) } else { Ok(epochs) }
}
