//! The key table's copy in the bucket, its restoration, and the rotation of epoch keys.
//!
//! The copy is one unlocked object, sealed by a key of its own that every epoch key opens that wraps at that time. It is renewed
//! on every change, and its older versions are deleted: what was destroyed in the table must not be found in the bucket.
//!
//! After a rotation the epoch key from before still opens everything for a day, what is new included. So nothing is lost when the
//! cluster, and with it the Secret of the epoch keys, is brought back to a copy from before the rotation.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tsujiban_core::error::chain;
use tsujiban_core::id::{EnvironmentName, GroupId, IncarnationId, KeyId};
use tsujiban_objects::{StoreError, list_all};
use tsujiban_sealing::{Context, DataKey, KeyError, LiveEpoch, OVERLAP, SealedEpochKey, SealingError, WrappedKey};
use zeroize::Zeroizing;

use crate::catalogue::{GroupRow, GroupState, KeyRow};
use crate::envelope;
use crate::error::Result;
use crate::keys;
use crate::life::Life;
use crate::metrics;
use crate::object::ObjectError;
use crate::service::Backup;

/// Where the copy lies.
pub const OBJECT: &str = "key-table";

const CLASS: &str = "key table";
const BATCH: u32 = 500;

#[derive(Debug, Serialize, Deserialize)]
struct CopyHeader {
    environment: EnvironmentName,
    master: KeyId,
    /// The newest epoch key that opens it. In copies of versions before 0.2 it is the only one, and seals the copy itself.
    epoch: KeyId,
    /// How new it is: known also to a service that cannot open it.
    #[serde(default)]
    generation: Option<u64>,
    /// The key that seals it, and its wrappings.
    #[serde(default)]
    key: Option<KeyId>,
    #[serde(default)]
    wrappings: Vec<CopiedWrapping>,
}

#[derive(Debug, Serialize, Deserialize)]
struct CopiedWrapping {
    epoch: KeyId,
    wrapped: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Copy {
    generation: u64,
    groups: Vec<CopiedGroup>,
    keys: Vec<CopiedKey>,
    #[serde(default)]
    erased: Vec<CopiedLife>,
}

/// A Device that was erased, so that nothing is stored for it.
#[derive(Debug, Serialize, Deserialize)]
struct CopiedLife {
    life: String,
    erased_at: Timestamp,
}

#[derive(Debug, Serialize, Deserialize)]
struct CopiedGroup {
    incarnation: IncarnationId,
    group: GroupId,
    state: String,
    key_id: KeyId,
    prepared_at: Timestamp,
    ended_at: Option<Timestamp>,
    id_free_at: Option<Timestamp>,
}

#[derive(Debug, Serialize, Deserialize)]
struct CopiedKey {
    key_id: KeyId,
    subject: IncarnationId,
    group: IncarnationId,
    epoch: KeyId,
    wrapped: String,
    #[serde(default)]
    superseded_at: Option<Timestamp>,
}

/// What a look at the epoch keys led to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rotation {
    pub rewrapped: u64,
    /// Wrappings that were destroyed.
    pub dropped: u64,
    /// Keys that no epoch key opens.
    pub unopened: u64,
}

impl Backup {
    /// Copies the key table to the bucket unless the copy there is up to date.
    pub async fn copy_key_table(&self) -> Result<()> {
        let _copying = self.copying.lock().await;
        let (state, epochs) = (self.catalogue.key_table_state().await?, self.keyring.live_epochs(self.now())?);
        let opened_by = epochs.iter().map(|epoch| epoch.key.id().clone()).collect();
        let behind = state.generation.saturating_sub(state.copied);
        self.metrics.key_copy_behind.set(i64::try_from(behind).unwrap_or(i64::MAX));
        self.metrics.key_copy_timestamp.set(state.copied_at.map(metrics::seconds).unwrap_or_default());
        if behind == 0 && state.copied_epochs == opened_by {
            return Ok(());
        }
        let groups = self.catalogue.groups(None).await?.into_iter().map(CopiedGroup::from).collect();
        let keys = self.catalogue.key_table().await?.into_iter().map(CopiedKey::from).collect();
        let lives = self.catalogue.ended_lives().await?.into_iter();
        let erased = lives.map(|(life, erased_at)| CopiedLife { life: STANDARD.encode(life.as_bytes()), erased_at }).collect();
        let copy = Copy { generation: state.generation, groups, keys, erased };
        let object = self.seal_copy(&copy, &epochs)?;
        let version = self.store.put(OBJECT, object, None).await?;
        for entry in list_all(&*self.store, OBJECT).await? {
            if entry.key == OBJECT && entry.version != version {
                self.store.delete(OBJECT, &entry.version).await?;
            }
        }
        self.catalogue.key_table_copied(state.generation, &opened_by, self.now()).await?;
        self.metrics.key_copy_behind.set(0);
        self.metrics.key_copy_timestamp.set(metrics::seconds(self.now()));
        Ok(())
    }

    fn seal_copy(&self, copy: &Copy, epochs: &[LiveEpoch]) -> Result<Bytes> {
        let (id, key) = (KeyId::from_bytes(self.random_id()?), DataKey::generate(&self.random)?);
        let wrap = |epoch: &LiveEpoch| {
            let wrapped = epoch.key.wrap(&id, CLASS, &key, &self.random)?;
            Ok(CopiedWrapping { epoch: wrapped.epoch, wrapped: STANDARD.encode(wrapped.bytes) })
        };
        let header = CopyHeader {
            environment: self.environment.clone(),
            master: self.keyring.master_id(),
            epoch: epochs.first().ok_or(KeyError::NoEpoch)?.key.id().clone(),
            generation: Some(copy.generation),
            wrappings: epochs.iter().map(wrap).collect::<Result<_>>()?,
            key: Some(id),
        };
        let clear = envelope::clear_part(&header).map_err(ObjectError::from)?;
        let plain = serde_json::to_vec(copy).map_err(|_| ObjectError::Contents("the key table cannot be written"))?;
        let sealed = key.seal(Context { class: CLASS, record: &clear }, &plain, &self.random)?;
        Ok(Bytes::from([clear, sealed].concat()))
    }

    fn open_copy(&self, header: &CopyHeader, clear: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let context = Context { class: CLASS, record: clear };
        let Some(id) = &header.key else { return Ok(self.keyring.epoch(&header.epoch)?.open(context, sealed)?) };
        let mut failed = KeyError::EpochMissing(header.epoch.clone());
        for CopiedWrapping { epoch, wrapped } in &header.wrappings {
            let opened = self.keyring.epoch(epoch).and_then(|epoch| {
                let bytes = STANDARD.decode(wrapped).map_err(|_| SealingError::NotOpened)?;
                Ok(epoch.unwrap(id, CLASS, &WrappedKey { epoch: epoch.id().clone(), bytes })?.open(context, sealed)?)
            });
            match opened {
                Ok(plain) => return Ok(plain),
                Err(error) => failed = error,
            }
        }
        Err(failed.into())
    }

    /// Takes groups and keys from the copy in the bucket when it is newer than the database, as after the loss of a volume or
    /// the restoration of an old one. Answers whether it was.
    pub(crate) async fn restore_key_table(&self) -> Result<bool> {
        let object = match self.store.get(OBJECT, None).await {
            Ok(object) => object,
            Err(StoreError::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let (header, parts) = envelope::split::<CopyHeader>(&object).map_err(ObjectError::from)?;
        let known = self.catalogue.key_table_state().await?.generation;
        if header.generation.is_some_and(|generation| generation <= known) {
            return Ok(false); // and need not be opened
        }
        let plain = self.open_copy(&header, parts.clear, parts.sealed)?;
        let copy: Copy = serde_json::from_slice(&plain).map_err(|_| ObjectError::Contents("the key table's copy cannot be read"))?;
        if copy.generation <= known {
            return Ok(false);
        }
        let groups = copy.groups.into_iter().map(GroupRow::try_from).collect::<Result<Vec<_>, _>>()?;
        let keys = copy.keys.into_iter().map(KeyRow::try_from).collect::<Result<Vec<_>, _>>()?;
        let lives = copy.erased.into_iter().map(<(Life, Timestamp)>::try_from).collect::<Result<Vec<_>, _>>()?;
        self.catalogue.restore_key_table(copy.generation, &groups, &keys, &lives).await?;
        self.catalogue.flush_log().await?;
        tracing::warn!(
            groups = groups.len(),
            keys = keys.len(),
            "the database was older than the key table's copy in the bucket; restored from it"
        );
        Ok(true)
    }

    /// Takes the epoch keys that are mounted now: wraps every data key with the newest one, destroys wrappings that were
    /// superseded a day ago, and renews the copy in the bucket. A key that none of them opens stays as it is.
    pub async fn rotate_keys(&self, mounted: &[SealedEpochKey]) -> Result<Rotation> {
        self.keyring.replace_epochs(mounted)?;
        let epoch = self.keyring.newest_epoch()?;
        let mut rotation = Rotation::default();
        let mut after: Option<KeyId> = None;
        loop {
            let old = self.catalogue.keys_not_under(epoch.id(), after.as_ref(), BATCH).await?;
            let Some(last) = old.last() else { break };
            after = Some(last.key_id.clone());
            let mut new = Vec::new();
            for wrappings in old.chunk_by(|a, b| a.key_id == b.key_id) {
                match keys::rewrap(&self.keyring, wrappings, &epoch, &self.random) {
                    Ok(row) => {
                        rotation.rewrapped += 1;
                        new.push(row);
                    }
                    Err(error) => {
                        rotation.unopened += 1;
                        let key = wrappings.first().map(|row| &row.key_id);
                        tracing::error!(key = ?key, error = chain(&error), "a data key cannot be opened; what it seals is unreadable until it can");
                    }
                }
            }
            if !new.is_empty() {
                self.catalogue.rewrap(&new, self.now()).await?;
            }
        }
        self.keyring.forget_unmounted();
        self.metrics.keys_unopened.set(i64::try_from(rotation.unopened).unwrap_or(i64::MAX));
        rotation.dropped = self.catalogue.drop_superseded(self.now() - OVERLAP, epoch.id()).await?;
        if rotation.dropped > 0 {
            self.catalogue.flush_log().await?;
        }
        if rotation != Rotation::default() {
            tracing::info!(epoch = %epoch.id(), ?rotation, "data keys follow the epoch");
        }
        self.copy_key_table().await?;
        Ok(rotation)
    }
}

impl From<GroupRow> for CopiedGroup {
    fn from(row: GroupRow) -> Self {
        let GroupRow { incarnation, group, state, key_id, prepared_at, ended_at, id_free_at } = row;
        Self { incarnation, group, state: state.to_string(), key_id, prepared_at, ended_at, id_free_at }
    }
}

impl TryFrom<CopiedGroup> for GroupRow {
    type Error = ObjectError;
    fn try_from(copied: CopiedGroup) -> Result<Self, ObjectError> {
        let CopiedGroup { incarnation, group, state, key_id, prepared_at, ended_at, id_free_at } = copied;
        let state: GroupState =
            state.parse().map_err(|()| ObjectError::Contents("the key table's copy has a group in an unknown state"))?;
        Ok(Self { incarnation, group, state, key_id, prepared_at, ended_at, id_free_at })
    }
}

impl TryFrom<CopiedLife> for (Life, Timestamp) {
    type Error = ObjectError;
    fn try_from(copied: CopiedLife) -> Result<Self, ObjectError> {
        let life = STANDARD.decode(copied.life);
        let life = life.map_err(|_| ObjectError::Contents("the key table's copy has a digest that is not base64"))?;
        Ok((Life::from_digest(life), copied.erased_at))
    }
}

impl From<KeyRow> for CopiedKey {
    fn from(row: KeyRow) -> Self {
        let KeyRow { key_id, subject, group, wrapped, superseded_at } = row;
        Self { key_id, subject, group, epoch: wrapped.epoch, wrapped: STANDARD.encode(wrapped.bytes), superseded_at }
    }
}

impl TryFrom<CopiedKey> for KeyRow {
    type Error = ObjectError;
    fn try_from(copied: CopiedKey) -> Result<Self, ObjectError> {
        let CopiedKey { key_id, subject, group, epoch, wrapped, superseded_at } = copied;
        let bytes = STANDARD.decode(wrapped).map_err(|_| ObjectError::Contents("the key table's copy has a key that is not base64"))?;
        Ok(Self { key_id, subject, group, wrapped: WrappedKey { epoch, bytes }, superseded_at })
    }
}
