//! The mounted master and epoch keys: wrapping and unwrapping data keys with them.

use std::sync::{PoisonError, RwLock};

use jiff::{SignedDuration, Timestamp};
use tsujiban_core::id::KeyId;

use crate::{DataKey, EpochKey, MasterKey, Random, SealedEpochKey, SealingError, WrappedKey};

/// For how long an epoch key still wraps everything new after a newer one followed. A cluster that is restored from a backup of at most
/// this age has one of these keys, and so opens everything: what was wrapped before the backup and after it.
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
    /// Not mounted any more, but kept until the data keys that only they open are wrapped by another one.
    leaving: Vec<EpochKey>,
}

/// An epoch key that wraps.
#[derive(Debug, Clone)]
pub struct LiveEpoch {
    pub key: EpochKey,
    /// When a newer one followed; `None` for the newest.
    pub superseded_at: Option<Timestamp>,
}

/// A data key under one of the epoch keys that wrap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapping {
    pub wrapped: WrappedKey,
    /// Since when another wrapping is the current one; `None` when this one is.
    pub superseded_at: Option<Timestamp>,
}

/// A data key that was just made.
#[derive(Debug, Clone)]
pub struct NewDataKey {
    pub id: KeyId,
    pub key: DataKey,
    /// One by each epoch key that wraps, the current one first.
    pub wrappings: Vec<Wrapping>,
}

impl Keyring {
    pub fn new(master: MasterKey, epochs: &[SealedEpochKey]) -> Result<Self, KeyError> {
        let mounted = opened(&master, epochs)?;
        Ok(Self { master, epochs: RwLock::new(Epochs { mounted, leaving: Vec::new() }) })
    }

    pub fn master_id(&self) -> KeyId {
        self.master.id()
    }

    /// The master key, for what has to outlive every epoch key.
    pub fn master(&self) -> &MasterKey {
        &self.master
    }

    /// A digest that only a holder of the master key can compute: equal for equal data under the same label.
    pub fn mac(&self, label: &str, data: &[u8]) -> [u8; 32] {
        self.master.mac(label, data)
    }

    /// Replaces the epoch keys by those that are mounted now. The earlier ones open what they wrapped until
    /// [`forget_unmounted`](Self::forget_unmounted). When one of the new ones cannot be opened, everything stays as it was.
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

    /// Makes a data key. `subject` says whose data it seals; it must be the same when the key is unwrapped.
    pub fn new_data_key(&self, subject: &str, random: &dyn Random, now: Timestamp) -> Result<NewDataKey, KeyError> {
        let mut id = [0; 16];
        random.fill(&mut id)?;
        let (id, key) = (KeyId::from_bytes(id), DataKey::generate(random)?);
        let wrap = |epoch: LiveEpoch| {
            let wrapped = epoch.key.wrap(&id, subject, &key, random)?;
            Ok(Wrapping { wrapped, superseded_at: epoch.superseded_at })
        };
        let wrappings = self.live_epochs(now)?.into_iter().map(wrap).collect::<Result<_, KeyError>>()?;
        Ok(NewDataKey { id, key, wrappings })
    }

    /// Opens a data key by any wrapping whose epoch key is in the keyring. A key without wrappings is destroyed.
    pub fn unwrap<'a>(&self, id: &KeyId, subject: &str, wrappings: impl IntoIterator<Item = &'a WrappedKey>) -> Result<DataKey, KeyError> {
        let mut failed = KeyError::Destroyed;
        for wrapped in wrappings {
            match self.epoch(&wrapped.epoch).and_then(|epoch| Ok(epoch.unwrap(id, subject, wrapped)?)) {
                Ok(key) => return Ok(key),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// The key of these wrappings wrapped by another epoch key.
    pub fn rewrap<'a>(
        &self,
        id: &KeyId,
        subject: &str,
        wrappings: impl IntoIterator<Item = &'a WrappedKey>,
        epoch: &EpochKey,
        random: &dyn Random,
    ) -> Result<WrappedKey, KeyError> {
        Ok(epoch.wrap(id, subject, &self.unwrap(id, subject, wrappings)?, random)?)
    }
}

fn opened(master: &MasterKey, sealed: &[SealedEpochKey]) -> Result<Vec<EpochKey>, KeyError> {
    let mut epochs = sealed.iter().map(|epoch| epoch.open(master)).collect::<Result<Vec<_>, _>>()?;
    epochs.sort_by(|a, b| (a.created(), a.id()).cmp(&(b.created(), b.id())));
    if epochs.is_empty() { Err(KeyError::NoEpoch) } else { Ok(epochs) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Context, SystemRandom};

    const SUBJECT: &str = "somebody";

    fn epoch(master: &MasterKey, hours: i64) -> SealedEpochKey {
        SealedEpochKey::generate(master, &SystemRandom::new(), at(hours)).unwrap()
    }

    fn at(hours: i64) -> Timestamp {
        "2026-11-23T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_hours(hours)
    }

    fn wrapped(new: &NewDataKey) -> impl Iterator<Item = &WrappedKey> {
        new.wrappings.iter().map(|wrapping| &wrapping.wrapped)
    }

    /// C24: for a day after a rotation what is new is wrapped by both, so that either opens it; after that by the newest alone.
    #[test]
    fn the_epoch_key_from_before_wraps_for_a_day_longer() {
        let (master, random) = (MasterKey::generate(&SystemRandom::new()).unwrap(), SystemRandom::new());
        let (old, new) = (epoch(&master, 0), epoch(&master, 100));
        let both = Keyring::new(master.clone(), &[new.clone(), old.clone()]).unwrap();
        let made = both.new_data_key(SUBJECT, &random, at(123)).unwrap();
        let shown: Vec<_> = made.wrappings.iter().map(|wrapping| (&wrapping.wrapped.epoch, wrapping.superseded_at)).collect();
        assert_eq!(shown, [(&new.id, None), (&old.id, Some(at(100)))]);
        for one in [&old, &new] {
            let alone = Keyring::new(master.clone(), std::slice::from_ref(one)).unwrap();
            let opened = alone.unwrap(&made.id, SUBJECT, wrapped(&made)).unwrap();
            let context = Context { class: "test", record: b"1" };
            let sealed = made.key.seal(context, b"plain", &random).unwrap();
            assert_eq!(**opened.open(context, &sealed).unwrap(), *b"plain");
            assert!(alone.unwrap(&made.id, "somebody else", wrapped(&made)).is_err());
        }
        assert_eq!(both.new_data_key(SUBJECT, &random, at(124)).unwrap().wrappings.len(), 1);
    }

    #[test]
    fn a_key_that_is_not_mounted_any_more_opens_until_it_is_forgotten() {
        let (master, random) = (MasterKey::generate(&SystemRandom::new()).unwrap(), SystemRandom::new());
        let (old, new) = (epoch(&master, 0), epoch(&master, 100));
        let keyring = Keyring::new(master, std::slice::from_ref(&old)).unwrap();
        let made = keyring.new_data_key(SUBJECT, &random, at(1)).unwrap();
        keyring.replace_epochs(std::slice::from_ref(&new)).unwrap();
        let newest = keyring.newest_epoch().unwrap();
        let again = keyring.rewrap(&made.id, SUBJECT, wrapped(&made), &newest, &random).unwrap();
        keyring.forget_unmounted();
        assert!(matches!(keyring.unwrap(&made.id, SUBJECT, wrapped(&made)), Err(KeyError::EpochMissing(id)) if id == old.id));
        keyring.unwrap(&made.id, SUBJECT, [&again]).unwrap();
        assert!(matches!(keyring.unwrap(&made.id, SUBJECT, []), Err(KeyError::Destroyed)));
        assert!(matches!(keyring.replace_epochs(&[]), Err(KeyError::NoEpoch)));
        keyring.unwrap(&made.id, SUBJECT, [&again]).unwrap();
    }
}
