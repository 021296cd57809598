use sqlx::sqlite::SqliteRow;
use tsujiban_core::id::{IncarnationId, KeyId};

use super::{Catalogue, CatalogueError, KeyRow, row};
use crate::life::Life;

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
    fn read(row: &SqliteRow) -> Result<Self, CatalogueError> {
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
        let query = sqlx::query("SELECT * FROM devices WHERE incarnation = $1").bind(incarnation.as_str());
        query.fetch_optional(&self.readers).await?.as_ref().map(DeviceRow::read).transpose()
    }

    pub async fn device_by_serial(&self, group: &IncarnationId, serial_mac: &[u8]) -> Result<Option<DeviceRow>, CatalogueError> {
        let query = sqlx::query("SELECT * FROM devices WHERE group_incarnation = $1 AND serial_mac = $2");
        let row = query.bind(group.as_str()).bind(serial_mac).fetch_optional(&self.readers).await?;
        row.as_ref().map(DeviceRow::read).transpose()
    }

    /// The devices of a group, or those with a serial number or name.
    pub async fn devices(&self, group: &IncarnationId, macs: Option<[&[u8]; 2]>) -> Result<Vec<DeviceRow>, CatalogueError> {
        let rows = match macs {
            Some([serial, name]) => {
                let query = sqlx::query("SELECT * FROM devices WHERE group_incarnation = $1 AND (serial_mac = $2 OR name_mac = $3)");
                query.bind(group.as_str()).bind(serial).bind(name).fetch_all(&self.readers).await?
            }
            None => sqlx::query("SELECT * FROM devices WHERE group_incarnation = $1").bind(group.as_str()).fetch_all(&self.readers).await?,
        };
        rows.iter().map(DeviceRow::read).collect()
    }

    /// Notes a new device, with the wrappings of its key; none when the key is there already. `false`: a device with this serial
    /// number was faster.
    pub async fn add_device(&self, device: &DeviceRow, key: &[KeyRow], life: Option<&Life>) -> Result<bool, CatalogueError> {
        let mut tx = self.write_for(life).await?;
        let added = sqlx::query(
            "INSERT INTO devices (incarnation, group_incarnation, key_id, serial_mac, name_mac, sealed) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT DO NOTHING",
        )
        .bind(device.incarnation.as_str())
        .bind(device.group.as_str())
        .bind(device.key_id.as_str())
        .bind(&device.serial_mac)
        .bind(&device.name_mac)
        .bind(&device.sealed)
        .execute(&mut *tx)
        .await?;
        if added.rows_affected() == 0 {
            return Ok(false);
        }
        for wrapping in key {
            wrapping.put(&mut tx).await?;
        }
        if !key.is_empty() {
            super::keys::changed(&mut tx).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    /// Changes what is known about a device, unless somebody else did since it was read. `false`: read again.
    pub async fn update_device(&self, device: &DeviceRow, read: &[u8], life: Option<&Life>) -> Result<bool, CatalogueError> {
        let mut tx = self.write_for(life).await?;
        let query = sqlx::query("UPDATE devices SET name_mac = $3, sealed = $4 WHERE incarnation = $1 AND sealed = $2");
        let query = query.bind(device.incarnation.as_str()).bind(read).bind(&device.name_mac).bind(&device.sealed);
        let updated = query.execute(&mut *tx).await?.rows_affected() > 0;
        tx.commit().await?;
        Ok(updated)
    }
}
