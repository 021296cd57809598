//! Records of erasures in the bucket, apart from the key table: one locked object for each, sealed under the master key. When database and
//! key table are lost, these records still show that a restored key had been destroyed on purpose (C24, C25).

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tsujiban_core::id::{EnvironmentName, GroupId, IncarnationId, KeyId};
use tsujiban_objects::{LockUntil, StoreError, list_all};
use tsujiban_sealing::Context;

use crate::catalogue::{ERASURES_KEPT, ErasureRow, GroupRow, GroupState};
use crate::damage::{DamageScope, Damaged, object_name};
use crate::envelope;
use crate::error::Result;
use crate::object::ObjectError;
use crate::service::Backup;

/// Where the records lie.
pub const PREFIX: &str = "erasures/";
const CLASS: &str = "erasure record";
/// An erasure whose record would be needed for less than this gets none: its last objects are about to expire.
const SHORTEST: SignedDuration = SignedDuration::from_hours(1);

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    environment: EnvironmentName,
    master: KeyId,
    subject: IncarnationId,
}

/// The sealed part of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Record {
    Device {
        subject: IncarnationId,
        group: IncarnationId,
        erased_at: Timestamp,
    },
    Group {
        incarnation: IncarnationId,
        group: GroupId,
        key_id: KeyId,
        prepared_at: Timestamp,
        ended_at: Option<Timestamp>,
        id_free_at: Timestamp,
    },
}

impl Record {
    fn subject(&self) -> &IncarnationId {
        match self {
            Self::Device { subject, .. } => subject,
            Self::Group { incarnation, .. } => incarnation,
        }
    }

    /// Until when the erased objects may exist, so that a restored key could open them.
    fn needed_until(&self) -> Timestamp {
        match self {
            Self::Device { erased_at, .. } => *erased_at + ERASURES_KEPT,
            Self::Group { id_free_at, .. } => *id_free_at,
        }
    }
}

impl Backup {
    /// Puts a record into the bucket for each erasure that has none there.
    pub async fn record_erasures(&self) -> Result<()> {
        let (devices, groups) = self.catalogue.unrecorded_erasures().await?;
        for record in devices.into_iter().map(Record::from).chain(groups.into_iter().filter_map(|group| Record::try_from(group).ok())) {
            let until = record.needed_until();
            if until.duration_since(self.now()) > SHORTEST {
                let key = format!("{PREFIX}{}", record.subject());
                self.store.put(&key, self.seal_record(&record)?, Some(LockUntil::at_least(until))).await?;
            }
            self.catalogue.erasure_recorded(record.subject()).await?;
        }
        Ok(())
    }

    /// Applies the bucket's records to a new database. A record that does not open is reported as damaged and has no effect.
    pub(crate) async fn take_in_erasure_records(&self) -> Result<()> {
        let (mut devices, mut groups) = (Vec::new(), Vec::new());
        for entry in list_all(&*self.store, PREFIX).await?.into_iter().filter(|entry| !entry.delete_marker) {
            let record = match self.store.get(&entry.key, Some(&entry.version)).await {
                Err(StoreError::NotFound { .. }) => continue,
                Err(StoreError::Damaged { detail, .. }) => Err(Damaged::object(&entry.key, detail)),
                object => self.open_record(&entry.key, &object?),
            };
            match record {
                Ok(Record::Device { subject, group, erased_at }) => devices.push(ErasureRow { subject, group, erased_at }),
                Ok(Record::Group { incarnation, group, key_id, prepared_at, ended_at, id_free_at }) => {
                    let (state, id_free_at) = (GroupState::Erased, Some(id_free_at));
                    groups.push(GroupRow { incarnation, group, state, key_id, prepared_at, ended_at, id_free_at });
                }
                Err(damaged) => drop(self.found_damaged(&damaged, &DamageScope::default()).await?),
            }
        }
        Ok(self.catalogue.take_in_erasures(&devices, &groups).await?)
    }

    /// Deletes records whose lock has run out and whose erasure the catalogue has forgotten, and forgets the damage of records that were
    /// deleted from the bucket.
    pub(crate) async fn expire_erasure_records(&self, now: Timestamp) -> Result<u64> {
        let mut expired = 0;
        for entry in list_all(&*self.store, PREFIX).await? {
            let subject: Option<IncarnationId> = entry.key.strip_prefix(PREFIX).and_then(|subject| subject.parse().ok());
            let Some(subject) = subject else { continue };
            if self.catalogue.is_erased(&subject, &subject).await? || !self.ran_out(&entry.key, &entry.version, now).await? {
                continue;
            }
            self.store.delete(&entry.key, &entry.version).await?;
            self.catalogue.forget_erasure_record(&subject).await?;
            expired += 1;
        }
        for name in self.catalogue.damaged_names(&object_name(PREFIX)).await? {
            let Some(key) = name.strip_prefix(&object_name("")) else { continue };
            if let Err(StoreError::NotFound { .. }) = self.store.head(key, None).await {
                self.found_sound(&name).await?;
            }
        }
        Ok(expired)
    }

    fn seal_record(&self, record: &Record) -> Result<Bytes> {
        let (environment, master) = (self.environment.clone(), self.keyring.master_id());
        let header = Header { environment, master, subject: record.subject().clone() };
        let clear = envelope::clear_part(&header).map_err(ObjectError::from)?;
        let plain = serde_json::to_vec(record).map_err(|_| ObjectError::Contents("the record of an erasure cannot be written"))?;
        let sealed = self.keyring.master().seal(Context { class: CLASS, record: &clear }, &plain, &self.random)?;
        Ok(Bytes::from([clear, sealed].concat()))
    }

    fn open_record(&self, key: &str, object: &[u8]) -> Result<Record, Damaged> {
        let damaged = |detail: String| Damaged::object(key, detail);
        let (_, parts) = envelope::split::<Header>(object).map_err(|error| damaged(error.to_string()))?;
        let context = Context { class: CLASS, record: parts.clear };
        let plain = self.keyring.master().open(context, parts.sealed).map_err(|error| damaged(error.to_string()))?;
        let record: Record = serde_json::from_slice(&plain).map_err(|_| damaged("it cannot be read".to_owned()))?;
        if format!("{PREFIX}{}", record.subject()) == key { Ok(record) } else { Err(damaged("it is about something else".to_owned())) }
    }
}

impl From<ErasureRow> for Record {
    fn from(ErasureRow { subject, group, erased_at }: ErasureRow) -> Self {
        Self::Device { subject, group, erased_at }
    }
}

impl TryFrom<GroupRow> for Record {
    type Error = ();
    fn try_from(row: GroupRow) -> Result<Self, ()> {
        let GroupRow { incarnation, group, key_id, prepared_at, ended_at, id_free_at, .. } = row;
        Ok(Self::Group { incarnation, group, key_id, prepared_at, ended_at, id_free_at: id_free_at.ok_or(())? })
    }
}
