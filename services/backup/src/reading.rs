//! Reading snapshots: listing, opening, comparing, verifying.

use std::collections::HashMap;

use tsujiban_core::config::{self, Secrets};
use tsujiban_core::driver::Driver;
use tsujiban_core::history::shown;
use tsujiban_core::id::{IncarnationId, SnapshotId};
use tsujiban_objects::{StoreError, Version};
use tsujiban_proto::error::Kind;
use tsujiban_sealing::DataKey;
use tsujiban_service::caller::GroupScope;
use zeroize::Zeroizing;

use crate::catalogue::{CatalogueError, Rows, SnapshotRow};
use crate::damage::{DamageScope, Damaged};
use crate::device::{Details, OpenGroup, open_device};
use crate::error::{Error, Result};
use crate::object::{self, Opened};
use crate::service::Backup;

/// The detail of the damage of a snapshot whose object is missing.
pub(crate) const NOT_THERE: &str = "it is not in the storage";

/// A snapshot and the device it is of.
pub struct Listed {
    pub row: SnapshotRow,
    /// `None`: the device's description is damaged or missing.
    pub details: Option<Details>,
}

/// One check of a snapshot.
pub struct Check {
    pub name: &'static str,
    pub passed: bool,
    pub detail: String,
}

impl Backup {
    /// Snapshots of a group, newest first, older than `before`; of one device when its serial number or name is given.
    pub async fn list(&self, scope: &GroupScope, device: &str, before: Option<&SnapshotId>, limit: u32) -> Result<Vec<Listed>> {
        let group = self.group(scope).await?;
        let only = match device {
            "" => None,
            device => Some(self.device_called(&group, device).await?),
        };
        let rows = self.page(&group, only.as_ref(), before, limit).await?;
        let mut known: HashMap<IncarnationId, Option<Details>> = HashMap::new();
        let mut listed = Vec::with_capacity(rows.len());
        for row in rows {
            let details = match known.get(&row.device) {
                Some(details) => details.clone(),
                None => match self.details(&group, &row.device).await {
                    // erased since the list was read
                    Err(Error::Catalogue(CatalogueError::Gone)) => continue,
                    details => details?,
                },
            };
            known.entry(row.device.clone()).or_insert_with(|| details.clone());
            listed.push(Listed { row, details });
        }
        Ok(listed)
    }

    /// Reads `limit` rows, if there are so many: the next ones replace rows that cannot be decoded, since a short page would look like the
    /// last.
    async fn page(
        &self,
        group: &OpenGroup,
        only: Option<&IncarnationId>,
        before: Option<&SnapshotId>,
        limit: u32,
    ) -> Result<Vec<SnapshotRow>> {
        let (mut page, mut before) = (Vec::new(), before.cloned());
        loop {
            let missing = limit.saturating_sub(u32::try_from(page.len()).unwrap_or(limit));
            let rows = self.catalogue.snapshots(group.incarnation(), only, before.as_ref(), missing).await?;
            let Some(last) = rows.last() else { return Ok(page) };
            before = Some(last.id.clone());
            page.extend(rows);
        }
    }

    /// The device with this serial number, else the one with this name.
    async fn device_called(&self, group: &OpenGroup, called: &str) -> Result<IncarnationId> {
        let macs = (group.serial_mac(called), group.name_mac(called));
        let found = self.catalogue.devices(group.incarnation(), Some([&macs.0, &macs.1])).await?;
        let by_serial = found.iter().find(|row| row.serial_mac == macs.0);
        // two devices may have a name that was used again; the one that was added later has it now
        let chosen = by_serial.or(found.last()).map(|row| row.incarnation.clone());
        chosen.ok_or_else(|| {
            let shown: String = called.chars().take(80).collect();
            let message = format!("group {} has no snapshots of a device {shown:?}; give its serial number or name", group.row.group);
            Error::refuse(Kind::NotFound, "NO_DEVICE", message)
        })
    }

    /// The description of a device; `None` when it is damaged or missing, which hides none of its snapshots.
    async fn details(&self, group: &OpenGroup, device: &IncarnationId) -> Result<Option<Details>> {
        let row = match self.catalogue.device(device).await {
            Err(CatalogueError::Corrupt { .. }) => {
                self.catalogue.is_readable(Rows::Devices, device.as_str()).await?; // notes the row as unreadable
                return Ok(None);
            }
            row => row?.ok_or(CatalogueError::Gone)?,
        };
        if !row.is_described() {
            return Ok(None);
        }
        match open_device(group, row) {
            Ok(device) => Ok(Some(device.details)),
            Err(Error::Damaged(damaged)) => {
                let whose = DamageScope { group: Some(group.incarnation().clone()), device: Some(device.clone()), snapshot: None };
                self.found_damaged(&damaged, &whose).await?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// A snapshot of the group, without its config.
    pub async fn find(&self, scope: &GroupScope, id: &str) -> Result<Listed> {
        let group = self.group(scope).await?;
        let known = id.parse().map_err(|_| Error::no_snapshot(id))?;
        let row = self.catalogue.snapshot(group.incarnation(), &known).await?.ok_or_else(|| Error::no_snapshot(id))?;
        let details = self.details(&group, &row.device).await?;
        Ok(Listed { row, details })
    }

    /// A snapshot's config. With secrets revealed it is byte for byte what the device sent.
    pub async fn config(&self, scope: &GroupScope, id: &str, secrets: Secrets) -> Result<(Listed, Zeroizing<Vec<u8>>)> {
        let found = self.find(scope, id).await?;
        let opened = self.open_snapshot(&found.row).await?;
        let shown = match secrets {
            Secrets::Revealed => opened.config,
            Secrets::Hidden => Zeroizing::new(config::show(known(&opened, id)?, &opened.config, secrets).into_bytes()),
        };
        Ok((found, shown))
    }

    /// A unified diff of two snapshots of one device.
    pub async fn diff(&self, scope: &GroupScope, old: &str, new: &str, secrets: Secrets) -> Result<String> {
        let (old, new) = (self.find(scope, old).await?, self.find(scope, new).await?);
        let serial = |listed: &Listed| listed.details.as_ref().map(|details| details.serial.clone());
        // a device whose keys were lost has its older snapshots under another incarnation
        if old.row.device != new.row.device && (serial(&old).is_none() || serial(&old) != serial(&new)) {
            let message = "the two snapshots are of different devices; compare two of the same device";
            return Err(Error::refuse(Kind::Invalid, "DIFFERENT_DEVICES", message));
        }
        let (before, after) = (self.open_snapshot(&old.row).await?, self.open_snapshot(&new.row).await?);
        let name = |listed: &Listed| listed.details.as_ref().map_or_else(|| "?".to_owned(), |details| details.name.to_string());
        let title = |listed: &Listed| format!("{} {} {}", name(listed), listed.row.id, shown(listed.row.taken_at));
        known(&before, old.row.id.as_str())?;
        Ok(config::diff(known(&after, new.row.id.as_str())?, (&title(&old), &before.config), (&title(&new), &after.config), secrets))
    }

    /// Reads a snapshot from the storage and checks its lock and its contents.
    pub async fn verify(&self, scope: &GroupScope, id: &str) -> Result<(Listed, Vec<Check>)> {
        let found = self.find(scope, id).await?;
        let checks = vec![self.check_lock(&found.row).await?, self.check_contents(&found.row).await?];
        Ok((found, checks))
    }

    /// Confirms that a snapshot flagged as shrunk is what the device should have.
    pub async fn acknowledge(&self, scope: &GroupScope, id: &str) -> Result<Listed> {
        let found = self.find(scope, id).await?;
        self.catalogue.acknowledge(&found.row.id).await?;
        self.find(scope, id).await
    }

    async fn check_lock(&self, row: &SnapshotRow) -> Result<Check> {
        let object = object::object_key(&row.group, &row.device, &row.id);
        let (passed, detail) = match self.store.head(&object, Some(&row.version)).await {
            Ok(head) => match head.lock {
                Some(lock) if lock.compliance && lock.until >= row.locked_until => (true, format!("locked until {}", lock.until)),
                Some(lock) => {
                    (false, format!("locked until {} instead of {}, compliance {}", lock.until, row.locked_until, lock.compliance))
                }
                None => (false, "the storage shows no lock".to_owned()),
            },
            Err(StoreError::NotFound { .. }) => (false, "the object is not in the storage".to_owned()),
            Err(error) => return Err(error.into()),
        };
        Ok(Check { name: "lock", passed, detail })
    }

    async fn check_contents(&self, row: &SnapshotRow) -> Result<Check> {
        let (passed, detail) = match self.open_snapshot(row).await {
            // an unknown driver: a newer version checked that the config was whole, and the digest matches
            Ok(opened) => match opened.meta.driver.known().map_or(Ok(()), |driver| driver.check_whole(&opened.config)) {
                Ok(()) => (true, format!("{} bytes, sha256 {}", opened.config.len(), opened.meta.sha256)),
                Err(defect) => (false, defect.to_string()),
            },
            Err(Error::Damaged(damaged)) => {
                self.found_damaged_snapshot(row, &damaged).await?;
                (false, damaged.to_string())
            }
            Err(error) => return Err(error),
        };
        if passed {
            self.found_sound_snapshot(row).await?;
        }
        Ok(Check { name: "contents", passed, detail })
    }

    /// Reads a snapshot from the storage and opens it. If it is not what was stored, fails with [`Error::Damaged`], which names it.
    pub(crate) async fn open_snapshot(&self, row: &SnapshotRow) -> Result<Opened> {
        let object = object::object_key(&row.group, &row.device, &row.id);
        if !self.catalogue.has_device(&row.device).await? {
            return Err(CatalogueError::Gone.into());
        }
        match self.open_object(&object, &row.version, &row.device).await {
            Err(Error::Store(StoreError::NotFound { .. })) => Err(Damaged::object(&object, NOT_THERE).into()),
            opened => Ok(opened?.0),
        }
    }

    /// Reads an object of a device and opens it with the key that its header names, which is returned too: the device may have got another
    /// key since. A missing object is [`StoreError::NotFound`].
    pub(crate) async fn open_object(&self, object: &str, version: &Version, device: &IncarnationId) -> Result<(Opened, DataKey)> {
        let bytes = match self.store.get(object, Some(version)).await {
            Err(StoreError::Damaged { detail, .. }) => return Err(Damaged::object(object, detail).into()),
            bytes => bytes?,
        };
        let header = object::header(&bytes).map_err(|error| Damaged::object(object, error.to_string()))?;
        if object::object_key(&header.group, &header.device, &header.snapshot) != object {
            return Err(Damaged::object(object, "it is another object than its name says").into());
        }
        let key = match self.data_key(&header.key, device).await {
            Err(Error::Damaged(key)) => return Err(Damaged::object(object, key.to_string()).into()),
            key => key?,
        };
        let opened = object::open(&bytes, &key).map_err(|error| Damaged::object(object, error.to_string()))?;
        Ok((opened, key))
    }
}

/// The driver, which is needed to find the secrets in a config.
fn known(opened: &Opened, id: &str) -> Result<Driver> {
    opened.meta.driver.known().ok_or_else(|| {
        let driver = opened.meta.driver.as_str();
        let message = format!(
            "snapshot {id} is of driver {driver}, which this version does not know, so that it cannot tell its secrets: \
             show it with secrets (--reveal), or install the version that stored it"
        );
        Error::refuse(Kind::Precondition, "DRIVER_UNKNOWN", message)
    })
}
