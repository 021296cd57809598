//! The life of a group: prepared, detached, erased. What is erased is unreadable before the call answers.

use std::collections::BTreeSet;

use jiff::Timestamp;
use tsujiban_core::id::{GroupId, IncarnationId, KeyId, SerialNumber};
use tsujiban_core::retention;
use tsujiban_proto::error::Kind;
use tsujiban_service::caller::GroupScope;
use tsujiban_service::history::History;

use crate::catalogue::{Damage, Erased, GroupRow, GroupState, GroupUse};
use crate::error::{Error, Result};
use crate::keys;
use crate::life::Life;
use crate::service::Backup;

/// Who wants a whole group erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eraser {
    /// On the intent recorded in a Tenant.
    Operator,
    /// Only what is retained.
    Staff,
}

/// What is held of an incarnation of a group.
pub struct Holding {
    pub row: GroupRow,
    pub held: GroupUse,
    pub damage: Damage,
}

/// Why an incarnation is not the one that a caller means.
enum Found {
    Present(GroupRow),
    Erased,
}

impl Backup {
    /// The group's living incarnation, made when there is none; and whether it was made.
    pub async fn prepare(&self, scope: &GroupScope, expected: Option<&IncarnationId>) -> Result<(IncarnationId, bool)> {
        let id = scope.group();
        if let Some(mut group) = self.catalogue.present_group(id).await? {
            check_expected(id, expected, Some(&group.incarnation))?;
            if group.state == GroupState::Retained {
                (group.state, group.ended_at) = (GroupState::Living, None);
                self.catalogue.update_group(&group).await?;
            }
            self.copy_key_table().await?;
            return Ok((group.incarnation, false));
        }
        let now = self.now();
        let erased = self.catalogue.groups(Some(id)).await?;
        if let Some(expected) = expected.filter(|expected| erased.iter().any(|group| group.incarnation == **expected)) {
            let message = format!(
                "incarnation {expected}, which the namespace of group {id} names, was erased: a cluster that was restored to a copy from \
                 before has brought namespace and Tenant back, but not the data; delete the Tenant, and what is left of it goes, too"
            );
            return Err(Error::refuse(Kind::Precondition, "ERASED", message));
        }
        if let Some(expected) = expected
            && self.was_lost(expected).await?
        {
            self.take_on(id, expected).await?;
            return Ok((expected.clone(), false));
        }
        check_expected(id, expected, None)?;
        if let Some(free_at) = erased.iter().filter_map(|group| group.id_free_at).max().filter(|free_at| *free_at > now) {
            let message = format!("data of an erased group {id} has not expired; use the id again after {free_at}, or choose another one");
            return Err(Error::refuse(Kind::Precondition, "ID_NOT_FREE", message));
        }
        let incarnation = IncarnationId::from_bytes(self.random_id()?);
        self.begin_group(id, &incarnation).await?;
        Ok((incarnation, true))
    }

    /// Makes an incarnation, with a key.
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

    /// Notes that the group's Tenant has gone and its data is kept.
    pub async fn detach(&self, scope: &GroupScope, incarnation: &IncarnationId) -> Result<()> {
        match self.incarnation(scope.group(), incarnation).await? {
            Found::Present(group) if group.state == GroupState::Retained => Ok(()),
            Found::Present(mut group) => {
                (group.state, group.ended_at) = (GroupState::Retained, Some(self.now()));
                Ok(self.catalogue.update_group(&group).await?)
            }
            Found::Erased => {
                let message = format!("incarnation {incarnation} of group {} was erased; there is nothing to keep", scope.group());
                Err(Error::refuse(Kind::Precondition, "ERASED", message))
            }
        }
    }

    /// Erases a device: its key is destroyed, so that no lock of an object can keep it readable, and the life of its Device ends,
    /// so that nobody who still knows it stores anything.
    pub async fn erase_device(
        &self,
        scope: &GroupScope,
        incarnation: Option<&IncarnationId>,
        serial: &SerialNumber,
        life: Option<&Life>,
    ) -> Result<Erased> {
        let group = match incarnation {
            Some(incarnation) => match self.incarnation(scope.group(), incarnation).await? {
                Found::Present(group) => Some(group),
                Found::Erased => None,
            },
            None => self.catalogue.present_group(scope.group()).await?,
        };
        let Some(group) = group else {
            if let Some(life) = life {
                self.catalogue.end_life(life, self.now()).await?;
            }
            return self.erased(Erased::default()).await;
        };
        let group = self.open_group(group).await?;
        let mac = group.serial_mac(serial.as_str());
        let erased = self.catalogue.erase_device_of(group.incarnation(), &mac, life, self.now()).await?;
        let Some((device, erased)) = erased else { return self.erased(Erased::default()).await };
        tracing::info!(%device, snapshots = erased.snapshots, "device erased");
        self.erased(erased).await
    }

    /// Erases a whole group.
    pub async fn erase_group(&self, scope: &GroupScope, incarnation: &IncarnationId, by: Eraser) -> Result<Erased> {
        let mut group = match self.incarnation(scope.group(), incarnation).await? {
            Found::Present(group) => group,
            Found::Erased => return self.erased(Erased::default()).await,
        };
        if by == Eraser::Staff && group.state == GroupState::Living {
            let message = format!("the Tenant of group {} lives; delete it with deletionPolicy Erase instead", scope.group());
            return Err(Error::refuse(Kind::Precondition, "GROUP_LIVES", message));
        }
        let now = self.now();
        // objects of devices that were erased before may be locked for longer than those of today
        let last = self.catalogue.last_lock(incarnation).await?;
        let free_at = last.into_iter().fold(retention::group_id_free_at(now), Timestamp::max);
        (group.state, group.ended_at, group.id_free_at) = (GroupState::Erased, Some(now), Some(free_at));
        let erased = self.catalogue.erase_group(&group).await?;
        tracing::info!(group = %group.incarnation, snapshots = erased.snapshots, "group erased");
        self.erased(Erased { last_object_until: last, ..erased }).await
    }

    /// An erasure is done when the bucket's copy of the key table has lost the key as well, and the bucket has it on record. When the storage is down the data
    /// is unreadable here already, and the caller comes again for the rest.
    async fn erased(&self, erased: Erased) -> Result<Erased> {
        self.copy_key_table().await?;
        self.record_erasures().await?;
        Ok(erased)
    }

    /// What the service holds of one group, or of all.
    pub async fn holdings(&self, of: Option<&GroupId>) -> Result<Vec<Holding>> {
        let (mut holdings, mut damaged) = (Vec::new(), self.catalogue.damage().await?);
        for row in self.catalogue.groups(of).await? {
            let held = self.catalogue.use_of_group(&row.incarnation).await?;
            let damage = damaged.remove(&Some(row.incarnation.clone())).unwrap_or_default();
            holdings.push(Holding { row, held, damage });
        }
        Ok(holdings)
    }

    /// What is damaged of what belongs to no group.
    pub async fn shared_damage(&self) -> Result<Damage> {
        Ok(self.catalogue.damage().await?.remove(&None).unwrap_or_default())
    }

    /// The epoch keys that wrap something: data keys, or the key of the operations that wait for the history.
    pub async fn epochs_in_use(&self) -> Result<BTreeSet<KeyId>> {
        let mut epochs = self.catalogue.epochs_in_use().await?;
        if let Some(history) = &self.history {
            epochs.extend(history.epochs_in_use()?);
        }
        Ok(epochs)
    }

    /// Where it is recorded what came of each call.
    pub fn history(&self) -> Option<History> {
        self.history.clone()
    }

    /// An incarnation of this very group, whatever became of it.
    async fn incarnation(&self, group: &GroupId, incarnation: &IncarnationId) -> Result<Found> {
        match self.catalogue.group(incarnation).await? {
            Some(row) if row.group == *group && row.state == GroupState::Erased => Ok(Found::Erased),
            Some(row) if row.group == *group => Ok(Found::Present(row)),
            _ => {
                let message = format!("group {group} has no incarnation {incarnation}; ask for a report of those there are");
                Err(Error::refuse(Kind::NotFound, "NO_INCARNATION", message))
            }
        }
    }
}

/// The namespace's annotation, if there is one, must name the incarnation that has the data.
fn check_expected(group: &GroupId, expected: Option<&IncarnationId>, present: Option<&IncarnationId>) -> Result<()> {
    let Some(expected) = expected else { return Ok(()) };
    if present == Some(expected) {
        return Ok(());
    }
    let there = present.map_or_else(|| "no incarnation with data".to_owned(), |present| format!("incarnation {present}"));
    let message = format!(
        "the namespace of group {group} names incarnation {expected}, but the backup service has {there}; \
         restore the service's data, or remove the annotation tsujiban.dev/incarnation to go on without what it named"
    );
    Err(Error::refuse(Kind::Precondition, "OTHER_INCARNATION", message))
}
