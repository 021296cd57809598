//! From columns to types and back.

use std::str::FromStr;

use jiff::Timestamp;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::CatalogueError;

type Read<T> = Result<T, CatalogueError>;

pub fn text(row: &SqliteRow, column: &'static str) -> Read<String> {
    Ok(row.try_get(column)?)
}

pub fn bytes(row: &SqliteRow, column: &'static str) -> Read<Vec<u8>> {
    Ok(row.try_get(column)?)
}

pub fn flag(row: &SqliteRow, column: &'static str) -> Read<bool> {
    Ok(row.try_get(column)?)
}

pub fn parsed<T: FromStr>(row: &SqliteRow, column: &'static str) -> Read<T> {
    let value = text(row, column)?;
    value.parse().map_err(|_| CatalogueError::Corrupt { column, value })
}

pub fn parsed_or_none<T: FromStr>(row: &SqliteRow, column: &'static str) -> Read<Option<T>> {
    let value: Option<String> = row.try_get(column)?;
    value.map(|value| value.parse().map_err(|_| CatalogueError::Corrupt { column, value })).transpose()
}

pub fn count(row: &SqliteRow, column: &'static str) -> Read<u64> {
    let value: i64 = row.try_get(column)?;
    u64::try_from(value).map_err(|_| CatalogueError::Corrupt { column, value: value.to_string() })
}

pub fn time(row: &SqliteRow, column: &'static str) -> Read<Timestamp> {
    let value: i64 = row.try_get(column)?;
    Timestamp::from_microsecond(value).map_err(|_| CatalogueError::Corrupt { column, value: value.to_string() })
}

pub fn time_or_none(row: &SqliteRow, column: &'static str) -> Read<Option<Timestamp>> {
    let value: Option<i64> = row.try_get(column)?;
    value
        .map(|value| Timestamp::from_microsecond(value).map_err(|_| CatalogueError::Corrupt { column, value: value.to_string() }))
        .transpose()
}

pub fn integer(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
