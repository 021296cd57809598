use tsujiban_core::id::{IncarnationId, KeyId};
use tsujiban_database::{Columns, on, transaction};

use super::{Catalogue, CatalogueError, KeyRow, Rows, lives, row};
use crate::life::DeviceUidHash;

/// A device. Serial number, name and host keys are in `sealed`; the MACs are there to find it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRow {
    pub incarnation: IncarnationId,
    pub group: IncarnationId,
    pub key_id: KeyId,
    pub serial_mac: Vec<u8>,
    pub name_mac: Vec<u8>,
    pub sealed: Vec<u8>,
}

impl DeviceRow {
    /// A device that is known only by its objects.
    pub fn undescribed(incarnation: IncarnationId, group: IncarnationId, key_id: KeyId) -> Self {
        let serial_mac = incarnation.as_str().as_bytes().to_vec(); // unique per device; a MAC equals 32 hexadecimal digits only by chance
        Self { incarnation, group, key_id, serial_mac, name_mac: Vec::new(), sealed: Vec::new() }
    }

    pub fn is_described(&self) -> bool {
        !self.sealed.is_empty()
    }

    pub(super) fn read(row: &impl Columns) -> Result<Self, CatalogueError> {
        Ok(Self {
            incarnation: row::parsed(row, "incarnation")?,
            group: row::parsed(row, "group_incarnation")?,
            key_id: row::parsed(row, "key_id")?,
            serial_mac: row::bytes(row, "serial_mac")?,
            name_mac: row::bytes(row, "name_mac")?,
            sealed: row::bytes(row, "sealed")?,
        })
    }
}

impl Catalogue {
    pub async fn device(&self, incarnation: &IncarnationId) -> Result<Option<DeviceRow>, CatalogueError> {
        let text = "SELECT * FROM devices WHERE incarnation = $1";
        on!(self.database.reads(), p => {
            let row = sqlx::query(text).bind(incarnation.as_str()).fetch_optional(p).await?;
            row.as_ref().map(DeviceRow::read).transpose()
        })
    }

    pub async fn has_device(&self, incarnation: &IncarnationId) -> Result<bool, CatalogueError> {
        let text = "SELECT EXISTS (SELECT 1 FROM devices WHERE incarnation = $1) AS known";
        on!(self.database.reads(), p => row::flag(&sqlx::query(text).bind(incarnation.as_str()).fetch_one(p).await?, "known"))
    }

    pub async fn device_by_serial(&self, group: &IncarnationId, serial_mac: &[u8]) -> Result<Option<DeviceRow>, CatalogueError> {
        let text = "SELECT * FROM devices WHERE group_incarnation = $1 AND serial_mac = $2";
        on!(self.database.reads(), p => {
            let row = sqlx::query(text).bind(group.as_str()).bind(serial_mac).fetch_optional(p).await?;
            row.as_ref().map(DeviceRow::read).transpose()
        })
    }

    /// The devices of a group; with `macs` those with this serial number, earlier ones included, or this name.
    pub async fn devices(&self, group: &IncarnationId, macs: Option<[&[u8]; 2]>) -> Result<Vec<DeviceRow>, CatalogueError> {
        let text = match macs {
            Some(_) => "SELECT * FROM devices WHERE group_incarnation = $1 AND (serial_mac = $2 OR name_mac = $2 OR name_mac = $3)",
            None => "SELECT * FROM devices WHERE group_incarnation = $1",
        };
        on!(self.database.reads(), p => {
            let query = sqlx::query(text).bind(group.as_str());
            let query = match macs {
                Some([serial, name]) => query.bind(serial).bind(name),
                None => query,
            };
            self.readable(Rows::Devices, &query.fetch_all(p).await?, DeviceRow::read)
        })
    }

    /// Adds a device with the wrappings of its key, or with none if the key table has the key. `false`: the device, or one with its serial
    /// number, exists already.
    pub async fn add_device(&self, device: &DeviceRow, key: &[KeyRow], life: Option<&DeviceUidHash>) -> Result<bool, CatalogueError> {
        let text =
            "INSERT INTO devices (incarnation, group_incarnation, key_id, serial_mac, name_mac, sealed) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT DO NOTHING";
        transaction!(self.database, tx => {
            lives::admit(tx, life).await?;
            let added = on!(tx.on(), c => {
                let query = sqlx::query(text).bind(device.incarnation.as_str()).bind(device.group.as_str()).bind(device.key_id.as_str());
                query.bind(&device.serial_mac).bind(&device.name_mac).bind(&device.sealed).execute(c).await?.rows_affected()
            });
            if added == 0 {
                return Ok(false);
            }
            for wrapping in key {
                wrapping.put(tx).await?;
            }
            if !key.is_empty() {
                super::keys::changed(tx).await?;
            }
            Ok(true)
        })
    }

    /// Describes a device that was known only by its objects. `false`: it has a description, or another device has its serial number.
    pub async fn describe_device(&self, device: &DeviceRow) -> Result<bool, CatalogueError> {
        let text = "UPDATE devices SET serial_mac = $3, name_mac = $4, sealed = $5 WHERE incarnation = $1 AND length(sealed) = 0
                 AND NOT EXISTS (SELECT 1 FROM devices WHERE group_incarnation = $2 AND serial_mac = $3)";
        transaction!(self.database, tx => {
            let described = on!(tx.on(), c => {
                let query = sqlx::query(text).bind(device.incarnation.as_str()).bind(device.group.as_str());
                query.bind(&device.serial_mac).bind(&device.name_mac).bind(&device.sealed).execute(c).await?.rows_affected()
            });
            Ok(described > 0)
        })
    }

    /// Gives a device a new key; the key table keeps the old one. `false`: the device's key has changed since `device` was read.
    pub async fn renew_key(
        &self,
        device: &DeviceRow,
        key_id: &KeyId,
        key: &[KeyRow],
        life: Option<&DeviceUidHash>,
    ) -> Result<bool, CatalogueError> {
        let text = "UPDATE devices SET key_id = $3 WHERE incarnation = $1 AND key_id = $2";
        transaction!(self.database, tx => {
            lives::admit(tx, life).await?;
            let renewed = on!(tx.on(), c => {
                let query = sqlx::query(text).bind(device.incarnation.as_str()).bind(device.key_id.as_str()).bind(key_id.as_str());
                query.execute(c).await?.rows_affected()
            });
            if renewed == 0 {
                return Ok(false);
            }
            for wrapping in key {
                wrapping.put(tx).await?;
            }
            super::keys::changed(tx).await?;
            Ok(true)
        })
    }

    /// Notes the key that the newest object of a device was sealed with.
    pub async fn follow_key(&self, device: &IncarnationId, key_id: &KeyId) -> Result<(), CatalogueError> {
        let text = "UPDATE devices SET key_id = $2 WHERE incarnation = $1 AND key_id <> $2";
        transaction!(self.database, tx => {
            on!(tx.on(), c => sqlx::query(text).bind(device.as_str()).bind(key_id.as_str()).execute(c).await.map(drop))?;
            Ok(())
        })
    }

    /// Changes a device's description, if its sealed one is still `read`. `false`: it has changed meanwhile; read it again.
    pub async fn update_device(&self, device: &DeviceRow, read: &[u8], life: Option<&DeviceUidHash>) -> Result<bool, CatalogueError> {
        let text = "UPDATE devices SET name_mac = $3, sealed = $4 WHERE incarnation = $1 AND sealed = $2";
        transaction!(self.database, tx => {
            lives::admit(tx, life).await?;
            let updated = on!(tx.on(), c => {
                let query = sqlx::query(text).bind(device.incarnation.as_str()).bind(read).bind(&device.name_mac).bind(&device.sealed);
                query.execute(c).await?.rows_affected()
            });
            Ok(updated > 0)
        })
    }
}
