//! The copy of the key table as it lies in the bucket: one unlocked object, sealed by the epoch key, or by a key of its own that every
//! epoch key wraps while several of them are in use.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tsujiban_core::id::{EnvironmentName, GroupId, IncarnationId, KeyId};
use tsujiban_objects::{StoreError, Version};
use tsujiban_sealing::{Context, DataKey, KeyError, LiveEpoch, SealingError, WrappedKey};
use zeroize::Zeroizing;

use super::{OBJECT, Table};
use crate::catalogue::{ErasureRow, GroupRow, GroupState, KeyRow};
use crate::envelope;
use crate::error::Result;
use crate::life::DeviceUidHash;
use crate::object::ObjectError;
use crate::service::Backup;

const CLASS: &str = "key table";

#[derive(Debug, Serialize, Deserialize)]
struct CopyHeader {
    environment: EnvironmentName,
    master: KeyId,
    /// The newest epoch key that opens the copy. Without `key` it seals the copy itself, which versions before 0.2 need to open it.
    epoch: KeyId,
    /// The table's generation, which a service can read without opening the copy.
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
    /// `None` in copies of versions that recorded none.
    #[serde(default)]
    erasures: Option<Vec<CopiedErasure>>,
}

/// A Device that was erased, so that nothing is stored for it.
#[derive(Debug, Serialize, Deserialize)]
struct CopiedLife {
    life: String,
    erased_at: Timestamp,
}

/// A device that was erased, so that a missing key is known to be no damage.
#[derive(Debug, Serialize, Deserialize)]
struct CopiedErasure {
    subject: IncarnationId,
    group: IncarnationId,
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

/// The copy in the bucket.
#[derive(Debug)]
pub enum Found {
    Missing,
    /// It is not what was stored.
    Damaged(String),
    /// It belongs to another environment, or to another master key.
    Foreign(String),
    /// None of the mounted epoch keys opens it.
    Unopened {
        generation: Option<u64>,
        error: KeyError,
    },
    Read(Read),
}

/// A copy that was opened.
#[derive(Debug)]
pub struct Read {
    pub table: Table,
    /// Whether the version that wrote it recorded erasures of devices.
    pub records_erasures: bool,
    /// The epoch keys that open it.
    pub opened_by: BTreeSet<KeyId>,
}

impl Backup {
    /// Reads the newest version of the copy.
    pub(crate) async fn read_copy(&self) -> Result<Found, StoreError> {
        let object = match self.store.get(OBJECT, None).await {
            Ok(object) => object,
            Err(StoreError::NotFound { .. }) => return Ok(Found::Missing),
            Err(StoreError::Damaged { detail, .. }) => return Ok(Found::Damaged(detail)),
            Err(error) => return Err(error),
        };
        Ok(self.open_copy(&object))
    }

    /// Searches all versions of the copy when the newest is missing or cannot be used, and puts the usable one of the highest generation
    /// again. If none is usable, answers one that needs an epoch key which is not mounted.
    pub(crate) async fn salvage_copy(&self) -> Result<Option<Found>, StoreError> {
        let (mut best, mut unopened) = (None::<(Read, Bytes)>, None);
        for entry in tsujiban_objects::list_all(&*self.store, OBJECT).await? {
            if entry.key != OBJECT || entry.delete_marker {
                continue;
            }
            let object = match self.store.get(OBJECT, Some(&entry.version)).await {
                Err(StoreError::NotFound { .. } | StoreError::Damaged { .. }) => continue,
                object => object?,
            };
            match self.open_copy(&object) {
                Found::Read(read) if best.as_ref().is_none_or(|(known, _)| known.table.generation < read.table.generation) => {
                    best = Some((read, object));
                }
                found @ Found::Unopened { .. } => unopened = Some(found),
                _ => {}
            }
        }
        let Some((read, object)) = best else { return Ok(unopened) };
        tracing::error!(
            generation = read.table.generation,
            "the newest version of the key table's copy cannot be used; an older one was put again"
        );
        self.store.put(OBJECT, object, None).await?;
        Ok(Some(Found::Read(read)))
    }

    /// All versions of the copy, and delete markers above them.
    pub(crate) async fn copy_versions(&self) -> Result<Vec<Version>, StoreError> {
        let entries = tsujiban_objects::list_all(&*self.store, OBJECT).await?;
        Ok(entries.into_iter().filter(|entry| entry.key == OBJECT).map(|entry| entry.version).collect())
    }

    fn open_copy(&self, object: &[u8]) -> Found {
        let (header, parts) = match envelope::split::<CopyHeader>(object) {
            Ok(split) => split,
            Err(error) => return Found::Damaged(error.to_string()),
        };
        if header.environment != self.environment || header.master != self.keyring.master_id() {
            return Found::Foreign(format!("it is of environment {} and master key {}", header.environment, header.master));
        }
        let opened = match self.unseal_copy(&header, parts.clear, parts.sealed) {
            Ok(opened) => opened,
            Err(KeyError::Sealing(error)) => return Found::Damaged(error.to_string()),
            Err(error) => return Found::Unopened { generation: header.generation, error },
        };
        match serde_json::from_slice::<Copy>(&opened).ok().map(|copy| (copy.erasures.is_some(), Table::try_from(copy))) {
            Some((records_erasures, Ok(table))) => {
                let wrappings = header.wrappings.into_iter().map(|wrapping| wrapping.epoch);
                Found::Read(Read { table, records_erasures, opened_by: wrappings.chain([header.epoch]).collect() })
            }
            Some((_, Err(error))) => Found::Damaged(error.to_string()),
            None => Found::Damaged("it cannot be read".to_owned()),
        }
    }

    fn unseal_copy(&self, header: &CopyHeader, clear: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
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
        Err(failed)
    }

    pub(super) fn seal_copy(&self, table: Table, epochs: &[LiveEpoch]) -> Result<Bytes> {
        let newest = epochs.first().ok_or(KeyError::NoEpoch)?;
        let header = CopyHeader {
            environment: self.environment.clone(),
            master: self.keyring.master_id(),
            epoch: newest.key.id().clone(),
            generation: Some(table.generation),
            key: None,
            wrappings: Vec::new(),
        };
        let plain = serde_json::to_vec(&Copy::from(table)).map_err(|_| ObjectError::Contents("the key table cannot be written"))?;
        if epochs.len() == 1 {
            let clear = envelope::clear_part(&header).map_err(ObjectError::from)?;
            let sealed = newest.key.seal(Context { class: CLASS, record: &clear }, &plain, &self.random)?;
            return Ok(Bytes::from([clear, sealed].concat()));
        }
        let (id, key) = (KeyId::from_bytes(self.random_id()?), DataKey::generate(&self.random)?);
        let wrap = |epoch: &LiveEpoch| {
            let wrapped = epoch.key.wrap(&id, CLASS, &key, &self.random)?;
            Ok(CopiedWrapping { epoch: wrapped.epoch, wrapped: STANDARD.encode(wrapped.bytes) })
        };
        let wrappings = epochs.iter().map(wrap).collect::<Result<_>>()?;
        let clear = envelope::clear_part(&CopyHeader { key: Some(id), wrappings, ..header }).map_err(ObjectError::from)?;
        let sealed = key.seal(Context { class: CLASS, record: &clear }, &plain, &self.random)?;
        Ok(Bytes::from([clear, sealed].concat()))
    }
}

impl From<Table> for Copy {
    fn from(table: Table) -> Self {
        let life = |(life, erased_at): (DeviceUidHash, Timestamp)| CopiedLife { life: STANDARD.encode(life.as_bytes()), erased_at };
        let erasure = |ErasureRow { subject, group, erased_at }| CopiedErasure { subject, group, erased_at };
        Self {
            generation: table.generation,
            groups: table.groups.into_iter().map(CopiedGroup::from).collect(),
            keys: table.keys.into_iter().map(CopiedKey::from).collect(),
            erased: table.lives.into_iter().map(life).collect(),
            erasures: Some(table.erasures.into_iter().map(erasure).collect()),
        }
    }
}

impl TryFrom<Copy> for Table {
    type Error = ObjectError;
    fn try_from(copy: Copy) -> Result<Self, ObjectError> {
        let erasure = |CopiedErasure { subject, group, erased_at }| ErasureRow { subject, group, erased_at };
        Ok(Self {
            generation: copy.generation,
            groups: copy.groups.into_iter().map(GroupRow::try_from).collect::<Result<_, _>>()?,
            keys: copy.keys.into_iter().map(KeyRow::try_from).collect::<Result<_, _>>()?,
            lives: copy.erased.into_iter().map(<(DeviceUidHash, Timestamp)>::try_from).collect::<Result<_, _>>()?,
            erasures: copy.erasures.into_iter().flatten().map(erasure).collect(),
        })
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
        let state: GroupState = state.parse().map_err(|()| ObjectError::Contents("it has a group in an unknown state"))?;
        Ok(Self { incarnation, group, state, key_id, prepared_at, ended_at, id_free_at })
    }
}

impl TryFrom<CopiedLife> for (DeviceUidHash, Timestamp) {
    type Error = ObjectError;
    fn try_from(copied: CopiedLife) -> Result<Self, ObjectError> {
        let life = STANDARD.decode(copied.life);
        let life = life.map_err(|_| ObjectError::Contents("it has a digest that is not base64"))?;
        Ok((DeviceUidHash::from_digest(life), copied.erased_at))
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
        let bytes = STANDARD.decode(wrapped).map_err(|_| ObjectError::Contents("it has a key that is not base64"))?;
        Ok(Self { key_id, subject, group, wrapped: WrappedKey { epoch, bytes }, superseded_at })
    }
}
