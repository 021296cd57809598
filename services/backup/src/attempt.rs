//! Outcomes of attempts: noted for each device, read by the operator, which writes them into Device status.

use std::collections::HashMap;

use tsujiban_core::error::chain;
use tsujiban_core::id::IncarnationId;
use tsujiban_core::outcome::Reason;
use tsujiban_sealing::{Context, KeyError};
use tsujiban_service::caller::GroupScope;
use uuid::Uuid;

use crate::catalogue::{AttemptRow, CatalogueError, DeviceRow, NewAttempt, SnapshotRow};
use crate::damage::{DamageScope, Damaged};
use crate::device::{Declared, Details, Device, OpenGroup, open_device};
use crate::error::{Error, Result};
use crate::service::Backup;

const MESSAGE: &str = "attempt message";

/// An attempt that stored nothing.
pub struct Failed {
    pub device: Declared,
    pub idempotency_key: Uuid,
    pub reason: Reason,
    pub message: String,
    /// Empty: the device showed none.
    pub host_key: String,
}

/// The newest attempt of a device, as the operator reads it.
pub struct Outcome {
    pub row: AttemptRow,
    pub group: tsujiban_core::id::GroupId,
    pub details: Details,
    pub message: String,
    pub newest: Option<SnapshotRow>,
}

impl Backup {
    /// Notes an attempt that stored nothing. A repeated call notes nothing again.
    pub async fn record_attempt(&self, scope: &GroupScope, failed: Failed) -> Result<()> {
        let recorded = self.record_for(scope, &failed).await;
        self.prefer_life_ended(&failed.device.life, recorded).await
    }

    async fn record_for(&self, scope: &GroupScope, failed: &Failed) -> Result<()> {
        let group = self.living_group(scope).await?;
        let key = failed.idempotency_key.to_string();
        if self.catalogue.answered(group.incarnation(), &key).await?.is_some() {
            return Ok(());
        }
        let device = self.device_for(&group, &failed.device).await?;
        let device = self.change_device(&group, device, |details| {
            if !failed.host_key.is_empty() {
                details.observed_host_key.clone_from(&failed.host_key);
            }
        });
        self.note_attempt(&group, &device.await?, Some(failed.reason), &failed.message, Some(key)).await
    }

    pub(crate) async fn note_attempt(
        &self,
        group: &OpenGroup,
        device: &Device,
        reason: Option<Reason>,
        message: &str,
        idempotency_key: Option<String>,
    ) -> Result<()> {
        let attempt = NewAttempt {
            device: device.row.incarnation.clone(),
            group: group.incarnation().clone(),
            life: device.life.clone(),
            time: self.now(),
            reason,
            changed: false,
            sealed: self.seal_message(group, &device.row.incarnation, message)?,
            snapshot: None,
            idempotency_key,
        };
        Ok(self.catalogue.record_attempt(&attempt).await?)
    }

    pub(crate) fn seal_message(&self, group: &OpenGroup, device: &IncarnationId, message: &str) -> Result<Vec<u8>> {
        let context = Context { class: MESSAGE, record: device.as_str().as_bytes() };
        Ok(group.key.seal(context, message.as_bytes(), &self.random)?)
    }

    /// The newest attempt of each device that has one after the cursor, oldest first, and the cursor for the next call.
    pub async fn outcomes_after(&self, cursor: u64, limit: u32) -> Result<(Vec<Outcome>, u64)> {
        let (mut outcomes, mut next) = (Vec::new(), cursor);
        let mut groups: HashMap<IncarnationId, Option<OpenGroup>> = HashMap::new();
        for row in self.catalogue.attempts_after(cursor, limit).await? {
            next = next.max(row.cursor);
            let device = match self.catalogue.device(&row.device).await {
                Err(CatalogueError::Corrupt { .. }) => continue, // the scrub reports the row
                device => device?,
            };
            let Some(device) = device else { continue };
            if !groups.contains_key(&device.group) {
                groups.insert(device.group.clone(), self.group_if_there(&device.group).await?);
            }
            // a device or group that is erased at this moment has no outcome
            let Some(group) = groups.get(&device.group).and_then(Option::as_ref) else { continue };
            match self.outcome(group, device, row).await {
                Ok(outcome) => outcomes.push(outcome),
                // a damaged one must not hide the others
                Err(Error::Damaged(damaged)) => {
                    let whose = DamageScope { group: Some(group.incarnation().clone()), ..DamageScope::default() };
                    self.found_damaged(&damaged, &whose).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok((outcomes, next))
    }

    async fn outcome(&self, group: &OpenGroup, device: DeviceRow, row: AttemptRow) -> Result<Outcome> {
        let context = Context { class: MESSAGE, record: row.device.as_str().as_bytes() };
        let damaged = |detail: String| Damaged { name: format!("the newest attempt of device {}", row.device), detail };
        let message = group.key.open(context, &row.sealed).map_err(|error| damaged(error.to_string()))?;
        let message = String::from_utf8(message.to_vec()).map_err(|_| damaged("its message cannot be read".to_owned()))?;
        let newest = self.catalogue.newest_snapshot(&row.device).await?;
        let details = open_device(group, device)?.details;
        Ok(Outcome { row, group: group.row.group.clone(), details, message, newest })
    }

    async fn group_if_there(&self, incarnation: &IncarnationId) -> Result<Option<OpenGroup>> {
        let Some(row) = self.catalogue.group(incarnation).await? else { return Ok(None) };
        match self.open_group(row).await {
            Ok(group) => Ok(Some(group)),
            Err(Error::Key(KeyError::Destroyed)) => Ok(None),
            // a group that cannot be opened must not hide the outcomes of the others
            Err(error @ (Error::Key(_) | Error::Damaged(_))) => {
                tracing::error!(group = %incarnation, error = chain(&error), "a group cannot be opened; outcomes of its devices are not told");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
