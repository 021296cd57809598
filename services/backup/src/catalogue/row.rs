//! From columns to types and back.

use std::str::FromStr;

use jiff::Timestamp;
use tsujiban_database::Columns;

use super::CatalogueError;

type Read<T> = Result<T, CatalogueError>;

pub fn text(row: &impl Columns, column: &'static str) -> Read<String> {
    Ok(row.text(column)?)
}

pub fn bytes(row: &impl Columns, column: &'static str) -> Read<Vec<u8>> {
    Ok(row.bytes(column)?)
}

pub fn flag(row: &impl Columns, column: &'static str) -> Read<bool> {
    Ok(row.flag(column)?)
}

pub fn parsed<T: FromStr>(row: &impl Columns, column: &'static str) -> Read<T> {
    let value = text(row, column)?;
    value.parse().map_err(|_| CatalogueError::Corrupt { column, value })
}

pub fn parsed_or_none<T: FromStr>(row: &impl Columns, column: &'static str) -> Read<Option<T>> {
    let value = row.text_or_none(column)?;
    value.map(|value| value.parse().map_err(|_| CatalogueError::Corrupt { column, value })).transpose()
}

pub fn count(row: &impl Columns, column: &'static str) -> Read<u64> {
    let value = row.integer(column)?;
    u64::try_from(value).map_err(|_| CatalogueError::Corrupt { column, value: value.to_string() })
}

pub fn time(row: &impl Columns, column: &'static str) -> Read<Timestamp> {
    let value = row.integer(column)?;
    Timestamp::from_microsecond(value).map_err(|_| CatalogueError::Corrupt { column, value: value.to_string() })
}

pub fn time_or_none(row: &impl Columns, column: &'static str) -> Read<Option<Timestamp>> {
    let value = row.integer_or_none(column)?;
    value
        .map(|value| Timestamp::from_microsecond(value).map_err(|_| CatalogueError::Corrupt { column, value: value.to_string() }))
        .transpose()
}

pub fn integer(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
