//! The key table's copy in the bucket, its restoration, and the rotation of epoch keys.
//!
//! The copy is one unlocked object, sealed under the newest epoch key. It is renewed on every change, and its older versions
//! are deleted: what was destroyed in the table must not be found in the bucket.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tsujiban_core::id::{EnvironmentName, GroupId, IncarnationId, KeyId};
use tsujiban_sealing::{Context, SealedEpochKey, WrappedKey};

use crate::catalogue::{GroupRow, GroupState, KeyRow};
use crate::envelope;
use crate::error::Result;
use crate::metrics;
use crate::object::ObjectError;
use crate::service::Backup;
use crate::store::{StoreError, list_all};

/// Where the copy lies.
pub const OBJECT: &str = "key-table";

const CLASS: &str = "key table";
/// How long a wrapping stays after a newer one was made, so that a database restored from yesterday still opens.
const OVERLAP: SignedDuration = SignedDuration::from_hours(24);
const BATCH: u32 = 500;

#[derive(Debug, Serialize, Deserialize)]
struct CopyHeader {
    environment: EnvironmentName,
    master: KeyId,
    epoch: KeyId,
}

#[derive(Debug, Serialize, Deserialize)]
struct Copy {
    generation: u64,
    groups: Vec<CopiedGroup>,
    keys: Vec<CopiedKey>,
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
}

impl Backup {
    /// Copies the key table to the bucket unless the copy there is up to date.
    pub async fn copy_key_table(&self) -> Result<()> {
        let _copying = self.copying.lock().await;
        let (state, epoch) = (self.catalogue.key_table_state().await?, self.keyring.newest_epoch()?);
        let behind = state.generation.saturating_sub(state.copied);
        self.metrics.key_copy_behind.set(i64::try_from(behind).unwrap_or(i64::MAX));
        self.metrics.key_copy_timestamp.set(state.copied_at.map(metrics::seconds).unwrap_or_default());
        if behind == 0 && state.copied_epoch.as_ref() == Some(epoch.id()) {
            return Ok(());
        }
        let groups = self.catalogue.groups(None).await?.into_iter().map(CopiedGroup::from).collect();
        let keys = self.catalogue.key_table().await?.into_iter().map(CopiedKey::from).collect();
        let copy = Copy { generation: state.generation, groups, keys };
        let header = CopyHeader { environment: self.environment.clone(), master: self.keyring.master_id(), epoch: epoch.id().clone() };
        let clear = envelope::clear_part(&header).map_err(ObjectError::from)?;
        let plain = serde_json::to_vec(&copy).map_err(|_| ObjectError::Contents("the key table cannot be written"))?;
        let sealed = epoch.seal(Context { class: CLASS, record: &clear }, &plain, &self.random)?;
        let version = self.store.put(OBJECT, Bytes::from([clear, sealed].concat()), None).await?;
        for entry in list_all(&*self.store, OBJECT).await? {
            if entry.key == OBJECT && entry.version != version {
                self.store.delete(OBJECT, &entry.version).await?;
            }
        }
        self.catalogue.key_table_copied(state.generation, epoch.id(), self.now()).await?;
        self.metrics.key_copy_behind.set(0);
        self.metrics.key_copy_timestamp.set(metrics::seconds(self.now()));
        Ok(())
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
        let plain = self.keyring.epoch(&header.epoch)?.open(Context { class: CLASS, record: parts.clear }, parts.sealed)?;
        let copy: Copy = serde_json::from_slice(&plain).map_err(|_| ObjectError::Contents("the key table's copy cannot be read"))?;
        if copy.generation <= self.catalogue.key_table_state().await?.generation {
            return Ok(false);
        }
        let groups = copy.groups.into_iter().map(GroupRow::try_from).collect::<Result<Vec<_>, _>>()?;
        let keys = copy.keys.into_iter().map(KeyRow::try_from).collect::<Result<Vec<_>, _>>()?;
        self.catalogue.restore_key_table(copy.generation, &groups, &keys).await?;
        self.catalogue.flush_log().await?;
        tracing::warn!(
            groups = groups.len(),
            keys = keys.len(),
            "the database was older than the key table's copy in the bucket; restored from it"
        );
        Ok(true)
    }

    /// Takes the epoch keys that are mounted now: wraps every data key with the newest one, destroys wrappings that were
    /// superseded a day ago, and renews the copy in the bucket.
    pub async fn rotate_keys(&self, mounted: &[SealedEpochKey]) -> Result<()> {
        self.keyring.replace_epochs(mounted)?;
        let epoch = self.keyring.newest_epoch()?;
        let mut rewrapped = 0;
        loop {
            let old = self.catalogue.keys_not_under(epoch.id(), BATCH).await?;
            if old.is_empty() {
                break;
            }
            let new = old.iter().map(|row| self.keyring.rewrap(row, &epoch, &self.random)).collect::<Result<Vec<_>, _>>()?;
            self.catalogue.rewrap(&new, self.now()).await?;
            rewrapped += new.len();
        }
        let dropped = self.catalogue.drop_superseded(self.now() - OVERLAP).await?;
        if dropped > 0 {
            self.catalogue.flush_log().await?;
        }
        if rewrapped > 0 || dropped > 0 {
            tracing::info!(epoch = %epoch.id(), rewrapped, dropped, "data keys follow the epoch");
        }
        self.copy_key_table().await
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

impl From<KeyRow> for CopiedKey {
    fn from(row: KeyRow) -> Self {
        let KeyRow { key_id, subject, group, wrapped } = row;
        Self { key_id, subject, group, epoch: wrapped.epoch, wrapped: STANDARD.encode(wrapped.bytes) }
    }
}

impl TryFrom<CopiedKey> for KeyRow {
    type Error = ObjectError;
    fn try_from(copied: CopiedKey) -> Result<Self, ObjectError> {
        let CopiedKey { key_id, subject, group, epoch, wrapped } = copied;
        let bytes = STANDARD.decode(wrapped).map_err(|_| ObjectError::Contents("the key table's copy has a key that is not base64"))?;
        Ok(Self { key_id, subject, group, wrapped: WrappedKey { epoch, bytes } })
    }
}
