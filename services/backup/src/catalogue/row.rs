//! From columns to types and back.

use std::str::FromStr;

use jiff::Timestamp;
use tsujiban_database::Columns;

use super::CatalogueError;

type Read<T> = Result<T, CatalogueError>;

/// SQLite stores any value in any column, whatever the column's type: a value of another type is reported as corrupt.
fn of_its_type<T>(column: &'static str, read: Result<T, sqlx::Error>) -> Read<T> {
    read.map_err(|error| match error {
        sqlx::Error::ColumnDecode { source, .. } => CatalogueError::Corrupt { column, value: source.to_string() },
        error => error.into(),
    })
}

pub fn text(row: &impl Columns, column: &'static str) -> Read<String> {
    of_its_type(column, row.text(column))
}

pub fn bytes(row: &impl Columns, column: &'static str) -> Read<Vec<u8>> {
    of_its_type(column, row.bytes(column))
}

pub fn flag(row: &impl Columns, column: &'static str) -> Read<bool> {
    of_its_type(column, row.flag(column))
}

pub fn parsed<T: FromStr>(row: &impl Columns, column: &'static str) -> Read<T> {
    let value = text(row, column)?;
    value.parse().map_err(|_| CatalogueError::Corrupt { column, value })
}

pub fn parsed_or_none<T: FromStr>(row: &impl Columns, column: &'static str) -> Read<Option<T>> {
    let value = of_its_type(column, row.text_or_none(column))?;
    value.map(|value| value.parse().map_err(|_| CatalogueError::Corrupt { column, value })).transpose()
}

pub fn count(row: &impl Columns, column: &'static str) -> Read<u64> {
    let value = of_its_type(column, row.integer(column))?;
    u64::try_from(value).map_err(|_| CatalogueError::Corrupt { column, value: value.to_string() })
}

pub fn time(row: &impl Columns, column: &'static str) -> Read<Timestamp> {
    let value = of_its_type(column, row.integer(column))?;
    Timestamp::from_microsecond(value).map_err(|_| CatalogueError::Corrupt { column, value: value.to_string() })
}

pub fn time_or_none(row: &impl Columns, column: &'static str) -> Read<Option<Timestamp>> {
    let value = of_its_type(column, row.integer_or_none(column))?;
    value
        .map(|value| Timestamp::from_microsecond(value).map_err(|_| CatalogueError::Corrupt { column, value: value.to_string() }))
        .transpose()
}

pub fn integer(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
