//! Decodes every row of every table.

use tsujiban_database::{Columns, on};

use super::{AttemptRow, Catalogue, CatalogueError, DeviceRow, ErasureRow, GroupRow, KeyRow, LeftoverRow, Rows, SnapshotRow};

impl Catalogue {
    /// Decodes every row of every table.
    pub async fn read_all_rows(&self) -> Result<(), CatalogueError> {
        for table in Rows::ALL {
            self.read_rows(table, None).await?;
        }
        Ok(())
    }

    /// Whether the row of this key can be decoded, or is gone.
    pub async fn is_readable(&self, table: Rows, key: &str) -> Result<bool, CatalogueError> {
        let (rows, readable) = self.read_rows(table, Some(key)).await?;
        Ok(rows == readable)
    }

    async fn read_rows(&self, table: Rows, key: Option<&str>) -> Result<(usize, usize), CatalogueError> {
        on!(self.database.reads(), p => {
            let rows = sqlx::query(table.text()).bind(key).fetch_all(p).await?;
            Ok((rows.len(), self.readable(table, &rows, |row| decode(table, row))?.len()))
        })
    }
}

fn decode(table: Rows, row: &impl Columns) -> Result<(), CatalogueError> {
    match table {
        Rows::Snapshots => SnapshotRow::read(row).map(drop),
        Rows::Devices => DeviceRow::read(row).map(drop),
        Rows::Attempts => AttemptRow::read(row).map(drop),
        Rows::Groups => GroupRow::read(row).map(drop),
        Rows::Keys => KeyRow::read(row).map(drop),
        Rows::Erasures => ErasureRow::read(row).map(drop),
        Rows::Leftovers => LeftoverRow::read(row).map(drop),
    }
}
