use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tsujiban_core::id::KeyId;
use zeroize::Zeroizing;

use crate::secret::{Context, Secret};
use crate::{DataKey, MasterKey, Random, SealingError};

const WRAPPED_EPOCH: &str = "epoch key";
const WRAPPED_DATA: &str = "data key";

/// An epoch key as it lies in its Secret: wrapped by the master key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedEpochKey {
    pub id: KeyId,
    pub created: Timestamp,
    /// The master key that wrapped it.
    pub master: KeyId,
    /// Base64.
    pub wrapped: String,
}

impl SealedEpochKey {
    pub fn generate(master: &MasterKey, random: &dyn Random, now: Timestamp) -> Result<Self, SealingError> {
        let mut id = [0; 16];
        random.fill(&mut id)?;
        let mut sealed = Self { id: KeyId::from_bytes(id), created: now, master: master.id(), wrapped: String::new() };
        let secret = Secret::generate(random)?;
        let context = Context { class: WRAPPED_EPOCH, record: &sealed.record() };
        sealed.wrapped = STANDARD.encode(master.wrapping().seal(context, secret.expose(), random)?);
        Ok(sealed)
    }

    /// Fails with [`SealingError::OtherMaster`] when another master key wrapped it.
    pub fn open(&self, master: &MasterKey) -> Result<EpochKey, SealingError> {
        if self.master != master.id() {
            return Err(SealingError::OtherMaster { epoch: self.id.clone(), wrapped_by: self.master.clone(), given: master.id() });
        }
        let wrapped = STANDARD.decode(&self.wrapped).map_err(|_| SealingError::NotOpened)?;
        let context = Context { class: WRAPPED_EPOCH, record: &self.record() };
        let secret = Secret::from_bytes(&master.wrapping().open(context, &wrapped)?)?;
        Ok(EpochKey { secret, id: self.id.clone(), created: self.created })
    }

    /// Everything that stands beside the wrapped key in the clear.
    fn record(&self) -> Vec<u8> {
        format!("{} {} {}", self.id, self.created, self.master).into_bytes()
    }
}

/// Wraps and unwraps data keys for some time, then is replaced and destroyed, and with it every old copy of the key table.
#[derive(Clone)]
pub struct EpochKey {
    secret: Secret,
    id: KeyId,
    created: Timestamp,
}

impl EpochKey {
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// When it was made. The newest one wraps.
    pub fn created(&self) -> Timestamp {
        self.created
    }

    /// Wraps a data key. `subject` says whose data it seals; it must be the same when the key is unwrapped.
    pub fn wrap(&self, key_id: &KeyId, subject: &str, key: &DataKey, random: &dyn Random) -> Result<WrappedKey, SealingError> {
        let record = data_record(key_id, subject);
        let bytes = self.wrapping().seal(Context { class: WRAPPED_DATA, record: &record }, key.secret().expose(), random)?;
        Ok(WrappedKey { epoch: self.id.clone(), bytes })
    }

    /// Fails with [`SealingError::OtherEpoch`] when another epoch key wrapped it.
    pub fn unwrap(&self, key_id: &KeyId, subject: &str, wrapped: &WrappedKey) -> Result<DataKey, SealingError> {
        if wrapped.epoch != self.id {
            return Err(SealingError::OtherEpoch { key: key_id.clone(), wrapped_by: wrapped.epoch.clone(), given: self.id.clone() });
        }
        let record = data_record(key_id, subject);
        let secret = self.wrapping().open(Context { class: WRAPPED_DATA, record: &record }, &wrapped.bytes)?;
        Secret::from_bytes(&secret).map(DataKey::new)
    }

    /// Seals what belongs to no subject, such as the copy of the key table.
    pub fn seal(&self, context: Context<'_>, plaintext: &[u8], random: &dyn Random) -> Result<Vec<u8>, SealingError> {
        self.sealing().seal(context, plaintext, random)
    }

    pub fn open(&self, context: Context<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealingError> {
        self.sealing().open(context, sealed)
    }

    fn wrapping(&self) -> Secret {
        self.secret.derive("tsujiban.dev epoch key wraps data keys")
    }

    fn sealing(&self) -> Secret {
        self.secret.derive("tsujiban.dev epoch key seals")
    }
}

impl fmt::Debug for EpochKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpochKey").field("id", &self.id).field("created", &self.created).finish_non_exhaustive()
    }
}

/// A data key as it lies in the key table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// The epoch key that wrapped it.
    pub epoch: KeyId,
    pub bytes: Vec<u8>,
}

fn data_record(key_id: &KeyId, subject: &str) -> Vec<u8> {
    format!("{key_id} {subject}").into_bytes()
}
