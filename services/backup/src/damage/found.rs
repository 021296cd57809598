//! What the service does about damage that it found: notes it, reports it with the outcomes of attempts, and records it in the operation
//! history.

use ring::digest::{SHA256, digest};
use tsujiban_core::workload::Service;
use tsujiban_proto::access::v1::Operation as Verb;
use tsujiban_proto::audit::v1::{Actor, ActorKind, Operation, Result as AuditResult};
use tsujiban_proto::time::to_wire;
use tsujiban_service::history::History;

use super::{DamageScope, Damaged, object_name};
use crate::catalogue::{DamageRow, NewAttempt, SnapshotRow};
use crate::error::{Error, Result};
use crate::object;
use crate::service::Backup;

const ID_BYTES: usize = 16;
const BATCH: u32 = 100;

impl Backup {
    /// Notes that something is damaged. Answers whether that is new.
    pub(crate) async fn found_damaged(&self, damaged: &Damaged, whose: &DamageScope) -> Result<bool> {
        let is_new = self.catalogue.note_damage(damaged, whose, self.now()).await?;
        if is_new {
            tracing::error!(name = damaged.name, detail = damaged.detail, "damage was found; what it concerns is refused by name");
        }
        Ok(is_new)
    }

    /// The same for a snapshot in the catalogue. Until its config is stored anew its device does not count as freshly backed up, which the
    /// operator reads with the outcomes of attempts.
    pub(crate) async fn found_damaged_snapshot(&self, row: &SnapshotRow, damaged: &Damaged) -> Result<()> {
        let object = object::object_key(&row.group, &row.device, &row.id);
        if damaged.name != object_name(&object) {
            let whose = DamageScope { group: Some(row.group.clone()), device: Some(row.device.clone()), snapshot: None };
            return self.found_damaged(damaged, &whose).await.map(drop);
        }
        let whose = DamageScope { group: Some(row.group.clone()), device: Some(row.device.clone()), snapshot: Some(row.id.clone()) };
        if self.found_damaged(damaged, &whose).await? {
            self.republish_newest_damaged(row).await?;
        }
        Ok(())
    }

    /// Lets the operator read that a device's newest snapshot is damaged. Without an attempt, as after the loss of the catalogue, the last
    /// sighting is noted as one. A device without a description has no outcomes.
    pub(crate) async fn republish_newest_damaged(&self, row: &SnapshotRow) -> Result<()> {
        if self.catalogue.device(&row.device).await?.is_none_or(|device| !device.is_described()) {
            return Ok(());
        }
        let newest = self.catalogue.newest_snapshot(&row.device).await?;
        if newest.is_some_and(|newest| newest.id == row.id) && !self.catalogue.has_attempt(&row.device).await? {
            self.note_last_sighting(row).await?;
        }
        Ok(())
    }

    /// Notes that something is sound, if it was noted as damaged. Answers whether it was.
    pub(crate) async fn found_sound(&self, name: &str) -> Result<bool> {
        let is_new = self.catalogue.note_healed(name, self.now()).await?;
        if is_new {
            tracing::warn!(name, "what was damaged is sound again");
        }
        Ok(is_new)
    }

    /// The same for a snapshot. One that was listed without having been read is adopted now, since its row lacks most values.
    pub(crate) async fn found_sound_snapshot(&self, row: &SnapshotRow) -> Result<()> {
        let key = object::object_key(&row.group, &row.device, &row.id);
        if row.driver.is_none() {
            return self.adopt_listed(row).await;
        }
        self.found_sound(&object_name(&key)).await.map(drop)
    }

    /// Notes the last sighting of a snapshot as an attempt.
    async fn note_last_sighting(&self, row: &SnapshotRow) -> Result<()> {
        let Some(group) = self.catalogue.group(&row.group).await? else { return Ok(()) };
        let Ok(group) = self.open_group(group).await else { return Ok(()) };
        let attempt = NewAttempt {
            device: row.device.clone(),
            group: row.group.clone(),
            life: None,
            time: row.seen_at,
            reason: None,
            changed: false,
            sealed: self.seal_message(&group, &row.device, "")?,
            snapshot: None,
            idempotency_key: None,
        };
        Ok(self.catalogue.record_attempt(&attempt).await?)
    }

    /// Measures damage, and records what was found and what was healed in the operation history: each once.
    pub async fn report_damage(&self) -> Result<()> {
        self.note_unreadable().await?;
        let damaged = self.catalogue.damaged_count().await?;
        self.metrics.scrub_damaged.set(i64::try_from(damaged).unwrap_or(i64::MAX));
        let Some(history) = &self.history else { return Ok(()) };
        for row in self.catalogue.unrecorded_damage(BATCH).await? {
            let group = match &row.group {
                Some(incarnation) => self.catalogue.group(incarnation).await?.map(|group| group.group.to_string()),
                None => None,
            };
            let group = group.unwrap_or_default();
            if !row.recorded {
                observe(history, &group, entry(&row, "DAMAGED", row.found_at)).await?;
                self.catalogue.damage_recorded(&row.name).await?;
            }
            if let Some(healed_at) = row.healed_at {
                observe(history, &group, entry(&row, "HEALED", healed_at)).await?;
                self.catalogue.forget_healed(&row.name).await?;
            }
        }
        Ok(())
    }
}

async fn observe(history: &History, group: &str, operation: Operation) -> Result<()> {
    history.observe(group, operation).await.map_err(Error::Refused)
}

/// The entry that something was found damaged or sound again. It has the same id whenever it is sent.
fn entry(row: &DamageRow, reason: &str, at: jiff::Timestamp) -> Operation {
    let id = digest(&SHA256, format!("{reason} {} {}", row.found_at.as_microsecond(), row.name).as_bytes());
    let mut operation = Operation {
        id: id.as_ref().iter().copied().take(ID_BYTES).collect(),
        time: Some(to_wire(at)),
        actor: Some(Actor { kind: ActorKind::Workload.into(), id: Service::Backup.row().host.to_owned() }),
        function: if row.snapshot.is_some() { "snapshots" } else { "catalogue" }.to_owned(),
        target: row.name.clone(),
        reason: reason.to_owned(),
        ..Operation::default()
    };
    operation.set_operation(Verb::View);
    operation.set_result(if reason == "HEALED" { AuditResult::Allowed } else { AuditResult::Failed });
    operation.detail.insert("detail".to_owned(), row.detail.clone());
    operation
}
