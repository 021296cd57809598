//! The life of a group: prepared, detached, erased. What is erased is unreadable before the call answers.

use std::collections::BTreeSet;

use jiff::Timestamp;
use tonic::Status;
use tsujiban_core::id::{GroupId, IncarnationId, KeyId};
use tsujiban_core::retention;
use tsujiban_core::workload::Service;
use tsujiban_proto::lifecycle::v1::ReportResponse;
use tsujiban_service::caller::GroupScope;
use tsujiban_service::history::History;
use tsujiban_service::lifecycle::{self, ErasedDevice, Eraser, Holder, Left, Prepared};

use crate::catalogue::{Erased, GroupRow, GroupState};
use crate::error::{Error, Result};
use crate::export::{Export, Import};
use crate::keys;
use crate::life::DeviceUidHash;
use crate::service::Backup;
use crate::wire;

/// An incarnation of a group, by whether it still has data.
enum Found {
    Present(GroupRow),
    Erased,
}

impl Holder for Backup {
    type Error = Error;
    type Export = Export;
    type Import = Import;

    /// The group's living incarnation, made when there is none.
    async fn prepare(&self, scope: &GroupScope, expected: Option<&IncarnationId>, _log: &str) -> Result<Prepared> {
        let id = scope.group();
        if let Some(mut group) = self.catalogue.present_group(id).await? {
            check_expected(id, expected, Some(&group.incarnation))?;
            if group.state == GroupState::Retained {
                (group.state, group.ended_at) = (GroupState::Living, None);
                self.catalogue.update_group(&group).await?;
            }
            self.copy_key_table().await?;
            return Ok(prepared(group.incarnation, false));
        }
        let now = self.now();
        let erased = self.catalogue.groups(Some(id)).await?;
        if let Some(expected) = expected.filter(|expected| erased.iter().any(|group| group.incarnation == **expected)) {
            return Err(lifecycle::erased(id, expected).into());
        }
        if let Some(expected) = expected
            && self.was_lost(expected).await?
        {
            self.adopt_incarnation(id, expected).await?;
            return Ok(prepared(expected.clone(), false));
        }
        check_expected(id, expected, None)?;
        if let Some(free_at) = erased.iter().filter_map(|group| group.id_free_at).max().filter(|free_at| *free_at > now) {
            return Err(lifecycle::id_not_free(id, free_at).into());
        }
        let incarnation = IncarnationId::from_bytes(self.random_id()?);
        self.begin_group(id, &incarnation).await?;
        Ok(prepared(incarnation, true))
    }

    async fn detach(&self, scope: &GroupScope, incarnation: &IncarnationId) -> Result<()> {
        match self.incarnation(scope.group(), incarnation).await? {
            Found::Present(group) if group.state == GroupState::Retained => Ok(()),
            Found::Present(mut group) => {
                (group.state, group.ended_at) = (GroupState::Retained, Some(self.now()));
                Ok(self.catalogue.update_group(&group).await?)
            }
            Found::Erased => Err(lifecycle::nothing_to_keep(scope.group(), incarnation).into()),
        }
    }

    async fn begin_export(&self, scope: &GroupScope, incarnation: &IncarnationId) -> Result<Export> {
        Export::begin(self, scope, incarnation).await
    }

    async fn export(&self, export: &mut Export) -> Result<Option<Vec<u8>>> {
        export.next(self).await
    }

    async fn begin_import(&self, scope: &GroupScope, incarnation: &IncarnationId) -> Result<Import> {
        Import::begin(self, scope, incarnation).await
    }

    async fn import(&self, import: &mut Import, piece: &[u8]) -> Result<()> {
        import.push(self, piece).await
    }

    async fn end_import(&self, import: Import) -> Result<u64> {
        import.end()
    }

    async fn erase_group(&self, scope: &GroupScope, incarnation: &IncarnationId, by: Eraser) -> Result<Left> {
        let mut group = match self.incarnation(scope.group(), incarnation).await? {
            Found::Present(group) => group,
            Found::Erased => return self.erased(Erased::default()).await,
        };
        if by == Eraser::Staff && group.state == GroupState::Living {
            return Err(lifecycle::group_lives(scope.group()).into());
        }
        let now = self.now();
        // objects of devices that were erased before may be locked for longer than `group_id_free_at`
        let last = self.catalogue.last_lock(incarnation).await?;
        let free_at = last.into_iter().fold(retention::group_id_free_at(now), Timestamp::max);
        (group.state, group.ended_at, group.id_free_at) = (GroupState::Erased, Some(now), Some(free_at));
        let erased = self.catalogue.erase_group(&group).await?;
        tracing::info!(group = %group.incarnation, snapshots = erased.snapshots, "group erased");
        self.erased(Erased { last_object_until: last, ..erased }).await
    }

    /// Erases a device: destroys its key, so that even a locked object is unreadable, and ends the life of its Device, so that a collector
    /// that still has it listed cannot store anything.
    async fn erase_device(&self, scope: &GroupScope, device: &ErasedDevice) -> Result<Left> {
        let ErasedDevice { incarnation, serial, uid } = device;
        let life = uid.as_ref().map(DeviceUidHash::of);
        let group = match incarnation {
            Some(incarnation) => match self.incarnation(scope.group(), incarnation).await? {
                Found::Present(group) => Some(group),
                Found::Erased => None,
            },
            None => self.catalogue.present_group(scope.group()).await?,
        };
        let Some(group) = group else {
            if let Some(life) = &life {
                self.catalogue.end_life(life, self.now()).await?;
            }
            return self.erased(Erased::default()).await;
        };
        let group = self.open_group(group).await?;
        let mac = group.serial_mac(serial.as_str());
        let erased = self.catalogue.erase_device_of(group.incarnation(), &mac, life.as_ref(), self.now()).await?;
        let Some((device, erased)) = erased else { return self.erased(Erased::default()).await };
        tracing::info!(%device, snapshots = erased.snapshots, "device erased");
        self.erased(erased).await
    }

    async fn report(&self, only: Option<&GroupId>) -> Result<ReportResponse> {
        let holdings = self.holdings(only).await?;
        let epochs = self.epochs_in_use().await?;
        let whole = self.whole_scrub().await?;
        let shared = if only.is_none() { Some(self.shared_damage().await?) } else { None };
        let ended = if only.is_none() { self.ended_lives().await? } else { Vec::new() };
        Ok(ReportResponse {
            groups: holdings.into_iter().map(|holding| wire::group(holding, whole)).collect(),
            canary: self.canary().await?.map(wire::canary),
            epochs_in_use: epochs.into_iter().map(String::from).collect(),
            erased_devices: ended.iter().map(|life| life.as_bytes().to_vec()).collect(),
            clock_synchronised: None,
            writing: Some(self.writing.report()),
            shared_integrity: shared.map(|damage| wire::integrity(damage, whole)),
        })
    }

    fn explain(&self, error: Error) -> Status {
        self.writing.explain(error.into()).into()
    }
}

const fn prepared(incarnation: IncarnationId, created: bool) -> Prepared {
    Prepared { incarnation, created, log: String::new() }
}

impl Backup {
    /// Adds an incarnation, with a new key.
    pub(crate) async fn begin_group(&self, id: &GroupId, incarnation: &IncarnationId) -> Result<()> {
        let now = self.now();
        let (key_id, wrappings) = keys::new_data_key(&self.keyring, (incarnation, incarnation), &self.random, now)?;
        let group = GroupRow {
            incarnation: incarnation.clone(),
            group: id.clone(),
            state: GroupState::Living,
            key_id,
            prepared_at: now,
            ended_at: None,
            id_free_at: None,
        };
        self.catalogue.add_group(&group, &wrappings).await?;
        // the incarnation becomes an annotation of the namespace: it must outlive this database
        self.copy_key_table().await
    }

    /// An erasure is complete when the bucket's copy of the key table no longer has the key and the bucket has the erasure on record. When
    /// the storage is down the data is already unreadable here, and the caller has to repeat the call for the rest.
    async fn erased(&self, erased: Erased) -> Result<Left> {
        self.copy_key_table().await?;
        self.record_erasures().await?;
        Ok(Left { snapshots: erased.snapshots, last_object_until: erased.last_object_until })
    }

    /// The epoch keys that wrap something: data keys, or the key of the operations that wait for the history.
    pub async fn epochs_in_use(&self) -> Result<BTreeSet<KeyId>> {
        let mut epochs = self.catalogue.epochs_in_use().await?;
        if let Some(history) = &self.history {
            epochs.extend(history.epochs_in_use()?);
        }
        Ok(epochs)
    }

    /// The history that records the result of each call.
    pub fn history(&self) -> Option<History> {
        self.history.clone()
    }

    /// An incarnation of this group, erased or not.
    async fn incarnation(&self, group: &GroupId, incarnation: &IncarnationId) -> Result<Found> {
        match self.catalogue.group(incarnation).await? {
            Some(row) if row.group == *group && row.state == GroupState::Erased => Ok(Found::Erased),
            Some(row) if row.group == *group => Ok(Found::Present(row)),
            _ => Err(lifecycle::no_incarnation(group, incarnation).into()),
        }
    }
}

/// The namespace's annotation, if there is one, must name the incarnation that has the data.
fn check_expected(group: &GroupId, expected: Option<&IncarnationId>, present: Option<&IncarnationId>) -> Result<()> {
    match expected.filter(|expected| present != Some(*expected)) {
        Some(expected) => Err(lifecycle::other_incarnation(Service::Backup, group, expected, present).into()),
        None => Ok(()),
    }
}
