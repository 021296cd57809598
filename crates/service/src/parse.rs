//! Parses the values that requests to every service have into checked types.

use std::str::FromStr;

use tsujiban_core::id::InvalidId;
use tsujiban_proto::error::{Kind, ServiceError};
use uuid::Uuid;

pub fn invalid(message: impl Into<String>) -> ServiceError {
    ServiceError::new(Kind::Invalid, "INVALID", message)
}

pub fn id<T: FromStr<Err = InvalidId>>(value: &str) -> Result<T, ServiceError> {
    value.parse().map_err(|error: InvalidId| invalid(error.to_string()))
}

pub fn id_or_none<T: FromStr<Err = InvalidId>>(value: &str) -> Result<Option<T>, ServiceError> {
    if value.is_empty() { Ok(None) } else { id(value).map(Some) }
}

/// The uid of a Device resource.
pub fn device_uid_or_none(uid: &str) -> Result<Option<Uuid>, ServiceError> {
    if uid.is_empty() {
        return Ok(None);
    }
    let no_uuid = |_| invalid("the uid of the device is no UUID; send the metadata.uid of the Device as it is");
    Uuid::parse_str(uid).map(Some).map_err(no_uuid)
}
