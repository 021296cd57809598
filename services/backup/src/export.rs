//! Exports a group's records for its tenant snapshot, and imports them. They are sealed under the group's key, and hold no key and no
//! config: an import cannot restore what was erased.
//!
//! An envelope whose sealed part is a sequence of frames, each a length and a sealed list of records; an empty list is the end.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tsujiban_core::driver::StoredDriver;
use tsujiban_core::id::{EnvironmentName, IncarnationId, KeyId, SnapshotId};
use tsujiban_core::retention;
use tsujiban_objects::{StoreError, Version};
use tsujiban_proto::error::Kind;
use tsujiban_sealing::Context;
use tsujiban_service::caller::GroupScope;

use crate::catalogue::SnapshotRow;
use crate::damage::object_name;
use crate::device::{Details, OpenGroup, open_device};
use crate::envelope;
use crate::error::{Error, Result};
use crate::object::{self, ObjectError};
use crate::service::Backup;

const CLASS: &str = "group export";
const BATCH: u32 = 100;
/// A frame of so many records has at most about 200 kB.
const MAX_FRAME: usize = 4 * 1024 * 1024;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Header {
    environment: EnvironmentName,
    group: IncarnationId,
    key: KeyId,
    exported_at: Timestamp,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Record {
    Device {
        incarnation: IncarnationId,
        key: KeyId,
        details: Details,
    },
    Snapshot(SnapshotRecord),
    /// Something that could not be exported, by its name.
    Damaged {
        name: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct SnapshotRecord {
    id: SnapshotId,
    device: IncarnationId,
    version: String,
    driver: StoredDriver,
    taken_at: Timestamp,
    sightings: u64,
    bytes: u64,
    stable_mac: Vec<u8>,
    shrunk: bool,
}

/// An export under way: [`next`](Self::next) gives its pieces.
pub struct Export {
    group: OpenGroup,
    clear: Vec<u8>,
    frame: u64,
    stage: Stage,
}

enum Stage {
    Header,
    Devices(std::vec::IntoIter<crate::catalogue::DeviceRow>),
    Snapshots(Option<SnapshotId>),
    End,
    Over,
}

impl Export {
    pub async fn begin(backup: &Backup, scope: &GroupScope, incarnation: &IncarnationId) -> Result<Self> {
        let group = exact_group(backup, scope, incarnation).await?;
        let header = Header {
            environment: backup.environment.clone(),
            group: incarnation.clone(),
            key: group.row.key_id.clone(),
            exported_at: backup.now(),
        };
        let clear = envelope::clear_part(&header).map_err(ObjectError::from)?;
        Ok(Self { group, clear, frame: 0, stage: Stage::Header })
    }

    /// The next piece, `None` after the last one.
    pub async fn next(&mut self, backup: &Backup) -> Result<Option<Vec<u8>>> {
        match &mut self.stage {
            Stage::Header => {
                self.stage = Stage::Devices(backup.catalogue.devices(self.group.incarnation(), None).await?.into_iter());
                Ok(Some(self.clear.clone()))
            }
            Stage::Devices(rows) => {
                let batch: Vec<_> = rows.by_ref().take(usize::try_from(BATCH).unwrap_or(usize::MAX)).collect();
                if batch.is_empty() {
                    self.stage = Stage::Snapshots(None);
                    return Ok(Some(Vec::new()));
                }
                let mut records = Vec::new();
                for row in batch {
                    let (incarnation, key) = (row.incarnation.clone(), row.key_id.clone());
                    records.push(match open_device(&self.group, row) {
                        Ok(device) => Record::Device { incarnation, key, details: device.details },
                        Err(Error::Damaged(damaged)) => {
                            tracing::error!(name = damaged.name, "something damaged is left out of the export of a group, which names it");
                            Record::Damaged { name: damaged.name }
                        }
                        Err(error) => return Err(error),
                    });
                }
                self.frame(backup, &records).map(Some)
            }
            Stage::Snapshots(before) => {
                let rows = backup.catalogue.snapshots(self.group.incarnation(), None, before.as_ref(), BATCH).await?;
                let Some(last) = rows.last() else {
                    self.stage = Stage::End;
                    return Ok(Some(Vec::new()));
                };
                *before = Some(last.id.clone());
                let records: Vec<_> = rows.into_iter().map(Record::from).collect();
                self.frame(backup, &records).map(Some)
            }
            Stage::End => {
                self.stage = Stage::Over;
                self.frame(backup, &[]).map(Some)
            }
            Stage::Over => Ok(None),
        }
    }

    fn frame(&mut self, backup: &Backup, records: &[Record]) -> Result<Vec<u8>> {
        let plain = serde_json::to_vec(records).map_err(|_| ObjectError::Contents("a record cannot be written"))?;
        let record = frame_record(&self.clear, self.frame);
        let sealed = self.group.key.seal(Context { class: CLASS, record: &record }, &plain, &backup.random)?;
        self.frame += 1;
        let length = u32::try_from(sealed.len()).map_err(|_| ObjectError::Contents("a frame is too long"))?;
        Ok([&length.to_be_bytes()[..], &sealed].concat())
    }
}

/// An import under way.
pub struct Import {
    group: OpenGroup,
    clear: Option<Vec<u8>>,
    unread: Vec<u8>,
    frame: u64,
    ended: bool,
    records: u64,
}

impl Import {
    pub async fn begin(backup: &Backup, scope: &GroupScope, incarnation: &IncarnationId) -> Result<Self> {
        let group = exact_group(backup, scope, incarnation).await?;
        Ok(Self { group, clear: None, unread: Vec::new(), frame: 0, ended: false, records: 0 })
    }

    /// Takes the next piece, which may be cut at any byte.
    pub async fn push(&mut self, backup: &Backup, piece: &[u8]) -> Result<()> {
        self.unread.extend_from_slice(piece);
        if self.clear.is_none() && !self.read_header(backup)? {
            return Ok(());
        }
        while let Some(sealed) = self.next_frame()? {
            let record = frame_record(self.clear.as_deref().unwrap_or_default(), self.frame);
            let plain = self
                .group
                .key
                .open(Context { class: CLASS, record: &record }, &sealed)
                .map_err(|_| Error::refuse(Kind::Invalid, "BAD_EXPORT", "the export is damaged, or of another group; export again"))?;
            self.frame += 1;
            let records: Vec<Record> = serde_json::from_slice(&plain).map_err(|_| ObjectError::Contents("an export cannot be read"))?;
            self.ended = records.is_empty();
            for record in records {
                self.records += u64::from(backup.take_back(&self.group, record).await?);
            }
        }
        Ok(())
    }

    /// How many records were restored. Fails when the end is missing.
    pub fn end(self) -> Result<u64> {
        if self.ended && self.unread.is_empty() {
            return Ok(self.records);
        }
        Err(Error::refuse(Kind::Invalid, "CUT_EXPORT", "the export is cut; what came before the cut was taken back, send it again whole"))
    }

    /// Answers whether the whole header has arrived.
    fn read_header(&mut self, backup: &Backup) -> Result<bool> {
        let Ok((header, parts)) = envelope::split::<Header>(&self.unread) else {
            if self.unread.len() > MAX_FRAME {
                return Err(Error::refuse(Kind::Invalid, "BAD_EXPORT", "this is no export of a group; send what Export gave"));
            }
            return Ok(false);
        };
        if header.environment != backup.environment || header.group != *self.group.incarnation() {
            let message = "the export is of another group or environment; import it where it came from";
            return Err(Error::refuse(Kind::Precondition, "OTHER_EXPORT", message));
        }
        self.clear = Some(parts.clear.to_vec());
        self.unread = parts.sealed.to_vec();
        Ok(true)
    }

    fn next_frame(&mut self) -> Result<Option<Vec<u8>>> {
        let Some((length, rest)) = self.unread.split_first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*length)).ok().filter(|length| *length <= MAX_FRAME && !self.ended);
        let length = length.ok_or_else(|| Error::refuse(Kind::Invalid, "BAD_EXPORT", "the export is damaged; export again"))?;
        let Some((sealed, rest)) = rest.split_at_checked(length) else { return Ok(None) };
        let (sealed, rest) = (sealed.to_vec(), rest.to_vec());
        self.unread = rest;
        Ok(Some(sealed))
    }
}

impl Backup {
    /// Answers whether the record was missing and is restored.
    async fn take_back(&self, group: &OpenGroup, record: Record) -> Result<bool> {
        match record {
            Record::Damaged { name } => {
                tracing::warn!(name, "the export of a group lacks something that was damaged");
                Ok(false)
            }
            Record::Device { incarnation, key, details } => {
                if !self.catalogue.has_key(&key, &incarnation).await? {
                    return Ok(false); // erased since
                }
                let row = self.seal_device(group, incarnation, key, &details)?;
                Ok(self.catalogue.add_device(&row, &[], None).await?)
            }
            Record::Snapshot(record) => {
                let there = self.catalogue.snapshot(group.incarnation(), &record.id).await?.is_some();
                if there || self.catalogue.device(&record.device).await?.is_none() {
                    return Ok(false);
                }
                let object = object::object_key(group.incarnation(), &record.device, &record.id);
                let head = match self.store.head(&object, Some(&Version(record.version.clone()))).await {
                    Err(StoreError::NotFound { .. }) => return Ok(false), // expired since
                    head => head?,
                };
                let locked_until = head.lock.map_or(record.taken_at, |lock| lock.until);
                let row = record.into_row(group.incarnation().clone(), locked_until, head.bytes);
                self.catalogue.adopt_snapshot(&row, &object).await?;
                Ok(true)
            }
        }
    }
}

impl From<SnapshotRow> for Record {
    fn from(row: SnapshotRow) -> Self {
        let SnapshotRow { id, device, group, version, driver, taken_at, sightings, bytes, stable_mac, shrunk, .. } = row;
        // nothing but its name is known of an object that could not be read
        let Some(driver) = driver else { return Self::Damaged { name: object_name(&object::object_key(&group, &device, &id)) } };
        Self::Snapshot(SnapshotRecord { id, device, version: version.0, driver, taken_at, sightings, bytes, stable_mac, shrunk })
    }
}

impl SnapshotRecord {
    fn into_row(self, group: IncarnationId, locked_until: Timestamp, stored_bytes: u64) -> SnapshotRow {
        let Self { id, device, version, driver, taken_at, sightings, bytes, stable_mac, shrunk } = self;
        let seen_at = retention::last_sighting(locked_until).max(taken_at);
        let version = Version(version);
        SnapshotRow {
            id,
            device,
            group,
            version,
            driver: Some(driver),
            taken_at,
            seen_at,
            sightings,
            locked_until,
            bytes,
            stored_bytes,
            stable_mac,
            shrunk,
            damaged: false,
        }
    }
}

/// The present group, provided that it is this incarnation.
async fn exact_group(backup: &Backup, scope: &GroupScope, incarnation: &IncarnationId) -> Result<OpenGroup> {
    let group = backup.group(scope).await?;
    if group.incarnation() == incarnation {
        return Ok(group);
    }
    let message = format!("the data of group {} is kept under incarnation {}, not {incarnation}", scope.group(), group.incarnation());
    Err(Error::refuse(Kind::Precondition, "OTHER_INCARNATION", message))
}

fn frame_record(clear: &[u8], frame: u64) -> Vec<u8> {
    [clear, &frame.to_be_bytes()].concat()
}
