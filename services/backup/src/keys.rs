//! Converts between the keyring's data keys and the rows of the key table.

use jiff::Timestamp;
use tsujiban_core::id::{IncarnationId, KeyId};
use tsujiban_sealing::{DataKey, EpochKey, KeyError, Keyring, Random, Wrapping};

use crate::catalogue::KeyRow;

/// The id of a new data key for a group or device, and its rows for the key table: a wrapping by each epoch key that wraps.
pub fn new_data_key(
    keyring: &Keyring,
    (group, subject): (&IncarnationId, &IncarnationId),
    random: &dyn Random,
    now: Timestamp,
) -> Result<(KeyId, Vec<KeyRow>), KeyError> {
    let new = keyring.new_data_key(subject.as_str(), random, now)?;
    let row = |Wrapping { wrapped, superseded_at }| {
        let (key_id, subject, group) = (new.id.clone(), subject.clone(), group.clone());
        KeyRow { key_id, subject, group, wrapped, superseded_at }
    };
    let rows = new.wrappings.into_iter().map(row).collect();
    Ok((new.id, rows))
}

/// Opens the data key of these rows by any wrapping whose epoch key is mounted. When none opens, the error is that of a damaged wrapping
/// rather than that of a missing epoch key, which may be gone for good.
pub fn unwrap(keyring: &Keyring, rows: &[KeyRow]) -> Result<DataKey, KeyError> {
    let mut failed = KeyError::Destroyed;
    for row in rows {
        match keyring.unwrap(&row.key_id, row.subject.as_str(), [&row.wrapped]) {
            Ok(key) => return Ok(key),
            Err(error) if !matches!(failed, KeyError::Sealing(_)) => failed = error,
            Err(_) => {}
        }
    }
    Err(failed)
}

/// The key of these rows wrapped by another epoch key.
pub fn rewrap(keyring: &Keyring, rows: &[KeyRow], epoch: &EpochKey, random: &dyn Random) -> Result<KeyRow, KeyError> {
    let row = rows.first().ok_or(KeyError::Destroyed)?;
    let wrapped = keyring.rewrap(&row.key_id, row.subject.as_str(), rows.iter().map(|row| &row.wrapped), epoch, random)?;
    Ok(KeyRow { wrapped, superseded_at: None, ..row.clone() })
}
