//! Epoch keys: a new one each week. An old one is destroyed a day after the new one was made at the earliest, and only when every service
//! reports that it wraps with the new one and no longer with the old one. After that, older copies of the key tables cannot be opened.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use tsujiban_core::id::KeyId;
use tsujiban_sealing::{MasterKey, Random, SealedEpochKey, SealingError};

use super::Layer;

const ROTATION: SignedDuration = SignedDuration::from_hours(7 * 24);
const OVERLAP: SignedDuration = SignedDuration::from_hours(24);

/// Epoch keys that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EpochError {
    #[error("entry {0} of Secret tsujiban-epoch-keys is not an epoch key; restore the Secret from a backup of the cluster")]
    Unreadable(String),
    #[error("Secret tsujiban-epoch-keys holds no epoch key; restore the Secret from a backup of the cluster")]
    Empty,
    #[error(
        "Secret tsujiban-epoch-keys is gone, while groups are prepared or services have data that its keys open; nothing new is made in its place: restore the Secret from a backup of the cluster"
    )]
    Gone,
    #[error(
        "Secret tsujiban-epoch-keys holds none of the epoch keys that a service has its data keys wrapped with; put the missing entries back beside those that are there, from a backup of the cluster"
    )]
    Replaced,
    #[error("an epoch key cannot be opened with the master key that is there; restore Secret tsujiban-master-key from its escrow copy")]
    Foreign(#[source] SealingError),
    #[error("an epoch key could not be made")]
    Make(#[source] SealingError),
    #[error("an epoch key could not be written down")]
    Encode(#[from] serde_json::Error),
}

impl EpochError {
    /// Which keys people have to restore, if keys are lost.
    pub const fn lost(&self) -> Option<Layer> {
        match self {
            Self::Unreadable(_) | Self::Empty | Self::Gone | Self::Replaced => Some(Layer::Epochs),
            Self::Foreign(_) => Some(Layer::Master),
            Self::Make(_) | Self::Encode(_) => None,
        }
    }
}

/// What shows, besides the Secret itself, which epoch keys must exist.
#[derive(Debug, Clone, Copy, Default)]
pub struct Evidence<'a> {
    /// Whether a group was ever prepared: its data keys are wrapped with an epoch key.
    pub has_prepared_groups: bool,
    /// With which epoch keys each service wraps, as it reported last, however long ago.
    pub last_reported: &'a [&'a BTreeSet<KeyId>],
    /// The same, reported just now by every service; `None` when one of them has not reported.
    pub in_use: Option<&'a [&'a BTreeSet<KeyId>]>,
}

impl Evidence<'_> {
    /// What is lost, if the Secret is absent (`None`) or holds these keys. A service that reports no key is new, and proves nothing.
    fn loss(&self, keys: Option<&BTreeMap<KeyId, Timestamp>>) -> Option<EpochError> {
        let mut reported = self.last_reported.iter().filter(|known| !known.is_empty());
        match keys {
            None => (self.has_prepared_groups || reported.next().is_some()).then_some(EpochError::Gone),
            Some(keys) if keys.is_empty() => Some(EpochError::Empty), // a new key could not open the stored data
            Some(keys) => reported.any(|known| !known.iter().any(|id| keys.contains_key(id))).then_some(EpochError::Replaced),
        }
    }
}

/// What to do about the epoch keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    pub make: bool,
    pub destroy: Vec<KeyId>,
}

/// Decides. `in_use` is what each service reported just now; `None` when one of them did not report.
pub fn plan(keys: &BTreeMap<KeyId, Timestamp>, in_use: Option<&[&BTreeSet<KeyId>]>, now: Timestamp) -> Plan {
    let Some((newest, made)) = keys.iter().max_by_key(|(id, made)| (**made, (*id).clone())) else {
        return Plan { make: true, destroy: Vec::new() };
    };
    let age = now.duration_since(*made);
    let in_use = in_use.filter(|services| age >= OVERLAP && !services.is_empty() && services.iter().all(|known| known.contains(newest)));
    let is_needed = |id: &KeyId, services: &[&BTreeSet<KeyId>]| id == newest || services.iter().any(|known| known.contains(id));
    let destroy = in_use.map(|services| keys.keys().filter(|id| !is_needed(id, services)).cloned().collect());
    Plan { make: age >= ROTATION, destroy: destroy.unwrap_or_default() }
}

/// The Secret's data as it should be at `now`.
pub fn settle(
    there: Option<&BTreeMap<String, Vec<u8>>>,
    master: &MasterKey,
    evidence: Evidence<'_>,
    random: &dyn Random,
    now: Timestamp,
) -> Result<BTreeMap<String, Vec<u8>>, EpochError> {
    let mut keys = BTreeMap::new();
    for (name, bytes) in there.into_iter().flatten() {
        let key: SealedEpochKey = serde_json::from_slice(bytes).map_err(|_| EpochError::Unreadable(name.clone()))?;
        if key.id.as_str() != name {
            return Err(EpochError::Unreadable(name.clone()));
        }
        key.open(master).map_err(EpochError::Foreign)?;
        keys.insert(key.id, key.created);
    }
    if let Some(lost) = evidence.loss(there.map(|_| &keys)) {
        return Err(lost);
    }
    let plan = plan(&keys, evidence.in_use, now);
    let mut data = there.cloned().unwrap_or_default();
    for id in &plan.destroy {
        tracing::info!(epoch = %id, "an epoch key that nothing is wrapped with any more is destroyed");
        data.remove(id.as_str());
    }
    if plan.make {
        let key = SealedEpochKey::generate(master, random, now).map_err(EpochError::Make)?;
        tracing::info!(epoch = %key.id, "a new epoch key is made");
        data.insert(key.id.to_string(), serde_json::to_vec(&key)?);
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tsujiban_sealing::SystemRandom;

    fn id(digit: u8) -> KeyId {
        KeyId::from_bytes([digit; 16])
    }

    fn hour(hour: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + hour * 3600).unwrap()
    }

    fn set(digits: &[u8]) -> BTreeSet<KeyId> {
        digits.iter().map(|digit| id(*digit)).collect()
    }

    #[test]
    fn an_old_key_goes_only_when_nothing_needs_it() {
        let keys: BTreeMap<_, _> = [(id(1), hour(0)), (id(2), hour(168))].into();
        let destroyed = |in_use: Option<&[u8]>, at| plan(&keys, in_use.map(set).as_ref().map(|one| vec![one]).as_deref(), hour(at)).destroy;
        assert_eq!(destroyed(Some(&[2]), 168 + 24), [id(1)]);
        assert!(destroyed(Some(&[2]), 168 + 23).is_empty(), "both stay for a day");
        assert!(destroyed(Some(&[1, 2]), 168 + 48).is_empty(), "still in use");
        assert!(destroyed(Some(&[]), 168 + 48).is_empty(), "a service that knows of no key may have lost its key table");
        assert!(destroyed(None, 168 + 48).is_empty(), "nobody said");
    }

    /// What one service needs no more, another one may: its data would be erased without anybody having meant it.
    #[test]
    fn an_old_key_stays_while_any_service_needs_it() {
        let keys: BTreeMap<_, _> = [(id(1), hour(0)), (id(2), hour(168))].into();
        let destroyed = |services: &[&[u8]]| {
            let sets: Vec<_> = services.iter().map(|digits| set(digits)).collect();
            plan(&keys, Some(&sets.iter().collect::<Vec<_>>()), hour(168 + 48)).destroy
        };
        assert_eq!(destroyed(&[&[2], &[2]]), [id(1)]);
        assert!(destroyed(&[&[2], &[1, 2]]).is_empty() && destroyed(&[&[1, 2], &[2]]).is_empty());
        assert!(destroyed(&[&[2], &[1]]).is_empty(), "it does not wrap with the new one yet");
        assert!(destroyed(&[&[2], &[]]).is_empty(), "it may have lost its key table");
        assert!(destroyed(&[]).is_empty(), "nobody was asked");
    }

    #[test]
    fn a_new_key_each_week() {
        assert!(plan(&BTreeMap::new(), None, hour(0)).make);
        let keys: BTreeMap<_, _> = [(id(1), hour(0))].into();
        assert_eq!(plan(&keys, None, hour(167)), Plan::default());
        assert!(plan(&keys, None, hour(168)).make);
    }

    /// What was lost and why, by what is in the Secret and who says what.
    #[test]
    fn nothing_is_made_anew_over_a_loss() {
        let made = hour(0);
        let secret = |digits: &[u8]| -> BTreeMap<KeyId, Timestamp> { digits.iter().map(|digit| (id(*digit), made)).collect() };
        let lost = |there: Option<&[u8]>, has_prepared_groups: bool, reported: &[&[u8]]| {
            let sets: Vec<_> = reported.iter().map(|digits| set(digits)).collect();
            let last_reported: Vec<_> = sets.iter().collect();
            let evidence = Evidence { has_prepared_groups, last_reported: &last_reported, in_use: None };
            evidence.loss(there.map(secret).as_ref()).map(|error| format!("{error:?}"))
        };
        let gone = Some("Gone".to_owned());
        assert_eq!(lost(None, false, &[]), None, "the first start");
        assert_eq!(lost(None, false, &[&[], &[]]), None, "services that have never wrapped anything");
        assert_eq!(lost(None, true, &[]), gone, "a group is prepared, and no service has said anything since the operator's start");
        assert_eq!(lost(None, false, &[&[1]]), gone, "no namespace is there, and a service still has data");
        assert_eq!(lost(Some(&[]), false, &[]), Some("Empty".to_owned()));
        assert_eq!(lost(Some(&[2]), true, &[&[1]]), Some("Replaced".to_owned()), "another key was made in its place");
        assert_eq!(lost(Some(&[2]), true, &[&[1, 2], &[3]]), Some("Replaced".to_owned()), "one of two services has lost its keys");
        assert_eq!(lost(Some(&[1]), true, &[&[1, 2]]), None, "for 24 hours the epoch key from before opens everything, too");
        assert_eq!(lost(Some(&[1, 2]), true, &[&[1], &[]]), None);
    }

    #[test]
    fn keys_of_another_master_are_never_replaced() {
        let random = SystemRandom::new();
        let (first, other) = (MasterKey::generate(&random).unwrap(), MasterKey::generate(&random).unwrap());
        let settled = |there, master: &MasterKey, at| settle(there, master, Evidence::default(), &random, hour(at));
        let data = settled(None, &first, 0).unwrap();
        assert_eq!(settled(Some(&data), &first, 1).unwrap(), data);
        assert_eq!(settled(Some(&data), &other, 1).unwrap_err().lost(), Some(Layer::Master));
        assert_eq!(settled(Some(&BTreeMap::new()), &first, 1).unwrap_err().lost(), Some(Layer::Epochs));
        let prepared = Evidence { has_prepared_groups: true, ..Evidence::default() };
        assert_eq!(settle(None, &first, prepared, &random, hour(1)).unwrap_err().lost(), Some(Layer::Epochs));
    }
}
