//! Devices and their groups, opened: the rows of the catalogue with their sealed parts decrypted.

use serde::{Deserialize, Serialize};
use tsujiban_core::id::{DeviceName, GroupId, IncarnationId, SerialNumber};
use tsujiban_proto::error::Kind;
use tsujiban_sealing::{Context, DataKey};
use tsujiban_service::caller::GroupScope;

use crate::catalogue::{DeviceRow, GroupRow, GroupState};
use crate::damage::Damaged;
use crate::error::{Error, Result};
use crate::keys;
use crate::life::DeviceUidHash;
use crate::service::Backup;

const DETAILS: &str = "device";
const SERIAL: &str = "device serial number";
const NAME: &str = "device name";
const EARLIER: &str = "earlier device";

/// A group that has data, and the key that seals what its customer typed.
pub struct OpenGroup {
    pub row: GroupRow,
    pub key: DataKey,
}

/// A device as a caller names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub serial: SerialNumber,
    pub name: DeviceName,
}

/// A device as a collector names it: as a Device resource declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    pub named: Named,
    pub life: DeviceUidHash,
}

/// What is sealed of a device in the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    pub serial: SerialNumber,
    pub name: DeviceName,
    pub model: String,
    pub firmware: String,
    /// Empty: none is pinned.
    pub pinned_host_key: String,
    /// Empty: it was never reached.
    pub observed_host_key: String,
}

#[derive(Clone)]
pub struct Device {
    pub row: DeviceRow,
    pub details: Details,
    /// The Device for which something is written; `None` when it is not for one, as in a rebuild.
    pub life: Option<DeviceUidHash>,
}

impl Details {
    pub fn new(named: &Named) -> Self {
        Self {
            serial: named.serial.clone(),
            name: named.name.clone(),
            model: String::new(),
            firmware: String::new(),
            pinned_host_key: String::new(),
            observed_host_key: String::new(),
        }
    }
}

impl OpenGroup {
    pub fn incarnation(&self) -> &IncarnationId {
        &self.row.incarnation
    }

    pub fn serial_mac(&self, serial: &str) -> [u8; 32] {
        self.key.mac(SERIAL, serial.as_bytes())
    }

    /// The `serial_mac` of an earlier device, whose serial number another device has now.
    pub fn earlier_mac(&self, incarnation: &IncarnationId) -> [u8; 32] {
        self.key.mac(EARLIER, incarnation.as_str().as_bytes())
    }

    pub fn name_mac(&self, name: &str) -> [u8; 32] {
        self.key.mac(NAME, name.as_bytes())
    }
}

impl Backup {
    /// A group that has data: living or retained.
    pub(crate) async fn group(&self, scope: &GroupScope) -> Result<OpenGroup> {
        let row = self.catalogue.present_group(scope.group()).await?.ok_or_else(|| unknown_group(scope.group()))?;
        self.open_group(row).await
    }

    /// A group whose Tenant exists, so that data may be added.
    pub(crate) async fn living_group(&self, scope: &GroupScope) -> Result<OpenGroup> {
        let Some(row) = self.catalogue.present_group(scope.group()).await? else {
            let message =
                format!("group {} is not prepared, or was erased; the operator prepares it when its Tenant is made", scope.group());
            return Err(Error::refuse(Kind::Precondition, "GROUP_NOT_PREPARED", message));
        };
        if row.state == GroupState::Living {
            return self.open_group(row).await;
        }
        let message = format!("group {} is {}; its Tenant has to come back before anything is added", scope.group(), row.state);
        Err(Error::refuse(Kind::Precondition, "GROUP_NOT_LIVING", message))
    }

    pub(crate) async fn open_group(&self, row: GroupRow) -> Result<OpenGroup> {
        let key = self.data_key(&row.key_id, &row.incarnation).await?;
        Ok(OpenGroup { row, key })
    }

    pub(crate) async fn find_device(&self, group: &OpenGroup, serial: &SerialNumber) -> Result<Option<Device>> {
        let mac = group.serial_mac(serial.as_str());
        match self.catalogue.device_by_serial(group.incarnation(), &mac).await? {
            Some(row) => open_device(group, row).map(Some),
            None => Ok(None),
        }
    }

    /// The device with this serial number, added when the group has none, and renamed to the declared name.
    pub(crate) async fn device_for(&self, group: &OpenGroup, declared: &Declared) -> Result<Device> {
        let Declared { named, life } = declared;
        loop {
            if let Some(device) = self.find_device(group, &named.serial).await? {
                // checked after the row was found: if this Device was erased, the row may be that of a later Device
                self.check_alive(life).await?;
                let device = Device { life: Some(life.clone()), ..device };
                if device.details.name == named.name {
                    return Ok(device);
                }
                return self.change_device(group, device, |details| details.name = named.name.clone()).await;
            }
            let incarnation = IncarnationId::from_bytes(self.random_id()?);
            let (key_id, wrappings) = keys::new_data_key(&self.keyring, (group.incarnation(), &incarnation), &self.random, self.now())?;
            let details = Details::new(named);
            let row = self.seal_device(group, incarnation, key_id, &details)?;
            if self.catalogue.add_device(&row, &wrappings, Some(life)).await? {
                return Ok(Device { row, details, life: Some(life.clone()) });
            }
        }
    }

    /// Changes a device's description, and retries when others change it at the same time.
    pub(crate) async fn change_device(
        &self,
        group: &OpenGroup,
        device: Device,
        change: impl Fn(&mut Details) + Send + Sync,
    ) -> Result<Device> {
        self.try_change_device(group, device, |details| {
            change(details);
            Ok(())
        })
        .await
    }

    /// The same with a change that can fail.
    pub(crate) async fn try_change_device(
        &self,
        group: &OpenGroup,
        mut device: Device,
        change: impl Fn(&mut Details) -> Result<()> + Send + Sync,
    ) -> Result<Device> {
        loop {
            let mut details = device.details.clone();
            change(&mut details)?;
            if details == device.details {
                return Ok(device);
            }
            let row = self.seal_device(group, device.row.incarnation.clone(), device.row.key_id.clone(), &details)?;
            let life = device.life;
            if self.catalogue.update_device(&row, &device.row.sealed, life.as_ref()).await? {
                return Ok(Device { row, details, life });
            }
            let found = self.find_device(group, &device.details.serial).await?.ok_or(crate::catalogue::CatalogueError::Gone)?;
            device = Device { life, ..found };
        }
    }

    pub(crate) fn seal_device(
        &self,
        group: &OpenGroup,
        incarnation: IncarnationId,
        key_id: tsujiban_core::id::KeyId,
        details: &Details,
    ) -> Result<DeviceRow> {
        let plain = serde_json::to_vec(details).map_err(|_| crate::object::ObjectError::Contents("a device cannot be written"))?;
        let sealed = group.key.seal(Context { class: DETAILS, record: incarnation.as_str().as_bytes() }, &plain, &self.random)?;
        Ok(DeviceRow {
            incarnation,
            group: group.incarnation().clone(),
            key_id,
            serial_mac: group.serial_mac(details.serial.as_str()).to_vec(),
            name_mac: group.name_mac(details.name.as_str()).to_vec(),
            sealed,
        })
    }
}

pub(crate) fn open_device(group: &OpenGroup, row: DeviceRow) -> Result<Device> {
    let plain = group.key.open(Context { class: DETAILS, record: row.incarnation.as_str().as_bytes() }, &row.sealed);
    let plain = plain.map_err(|error| Damaged::device(&row.incarnation, error.to_string()))?;
    let details = serde_json::from_slice(&plain).map_err(|_| Damaged::device(&row.incarnation, "it cannot be read"))?;
    Ok(Device { row, details, life: None })
}

fn unknown_group(group: &GroupId) -> Error {
    Error::refuse(
        Kind::NotFound,
        "NO_GROUP",
        format!("there is no data of group {group}; the operator prepares it when its Tenant is made"),
    )
}
