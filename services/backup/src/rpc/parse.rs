//! Parses the fields of requests into checked types.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tsujiban_core::driver::Driver;
use tsujiban_proto::backup::v1 as wire;
use tsujiban_proto::error::ServiceError;
use tsujiban_service::parse::device_uid_or_none;
pub use tsujiban_service::parse::{id, id_or_none, invalid};
use uuid::Uuid;

use crate::device::{Declared, Named};
use crate::life::DeviceUidHash;

type Parsed<T> = Result<T, ServiceError>;

/// The longest host key: an RSA key of 16,384 bits has under 3,000 characters.
const MAX_HOST_KEY: usize = 8 * 1024;
const MAX_LABEL: usize = 128;
const MAX_MESSAGE: usize = 512;

/// The device of a request. Its group is checked by the caller's scope.
pub fn device(device: Option<&wire::DeviceRef>) -> Parsed<(&str, &wire::DeviceRef)> {
    device.map(|device| (device.group.as_str(), device)).ok_or_else(|| invalid("the request names no device; fill in field device"))
}

/// The device of a request that adds data.
pub fn declared(device: &wire::DeviceRef) -> Parsed<Declared> {
    let named = Named { serial: id(&device.serial)?, name: id(&device.name)? };
    let life = life_or_none(&device.uid)?;
    let life = life.ok_or_else(|| invalid("the device has no uid; send the metadata.uid of the Device that was listed"))?;
    Ok(Declared { named, life })
}

/// The life of the Device with this uid.
pub fn life_or_none(uid: &str) -> Parsed<Option<DeviceUidHash>> {
    Ok(device_uid_or_none(uid)?.as_ref().map(DeviceUidHash::of))
}

pub fn driver(name: &str) -> Parsed<Driver> {
    let known = || Driver::ALL.map(Driver::as_str).join(", ");
    let shown = || name.chars().take(80).collect::<String>();
    Driver::from_name(name).ok_or_else(|| invalid(format!("there is no driver {:?}; use one of {}", shown(), known())))
}

pub fn idempotency_key(key: &str) -> Parsed<Uuid> {
    Uuid::parse_str(key)
        .map_err(|_| invalid("the idempotency key is no UUID; make a new one for each call and keep it when the call is repeated"))
}

/// A host key in OpenSSH format without comment, or none.
pub fn host_key_or_none(key: &str) -> Parsed<String> {
    if key.is_empty() { Ok(String::new()) } else { host_key(key) }
}

pub fn host_key(key: &str) -> Parsed<String> {
    let wrong = || invalid("the host key is not in OpenSSH format without comment, such as \"ssh-ed25519 AAAA...\"");
    let (kind, blob) = key.split_once(' ').filter(|_| key.len() <= MAX_HOST_KEY).ok_or_else(wrong)?;
    let kind_ok = !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b"-@.".contains(&b));
    match STANDARD.decode(blob) {
        Ok(blob) if kind_ok && !blob.is_empty() => Ok(key.to_owned()),
        _ => Err(wrong()),
    }
}

/// The model or firmware that a device reports.
pub fn label(text: &str) -> Parsed<String> {
    if text.chars().count() > MAX_LABEL {
        return Err(invalid(format!("model and firmware have at most {MAX_LABEL} characters")));
    }
    Ok(one_line(text))
}

pub fn message(text: &str) -> Parsed<String> {
    if text.chars().count() > MAX_MESSAGE {
        return Err(invalid(format!("the message has more than {MAX_MESSAGE} characters; cut it")));
    }
    Ok(one_line(text))
}

/// The size of a page: 0 means the default.
pub fn page_size(asked: u32, default: u32) -> Parsed<u32> {
    match asked {
        0 => Ok(default),
        1..=1000 => Ok(asked),
        _ => Err(invalid("at most 1,000 can be asked for at once; ask for the rest with the token or cursor of the answer")),
    }
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_keys() {
        assert!(host_key("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA").is_ok());
        for bad in ["", "ssh-ed25519", "ssh-ed25519 ", "ssh-ed25519 AAAA comment", "ssh ed25519", "a\nb AAAA", " AAAA"] {
            assert!(host_key(bad).is_err(), "{bad}");
        }
        assert!(host_key(&format!("ssh-rsa {}", "A".repeat(MAX_HOST_KEY))).is_err());
        assert_eq!(host_key_or_none("").unwrap(), "");
    }

    #[test]
    fn texts_stay_on_one_line() {
        assert_eq!(message("a\nb\u{7}").unwrap(), "a b ");
        assert!(message(&"x".repeat(513)).is_err());
        assert!(label(&"x".repeat(129)).is_err());
    }

    #[test]
    fn page_sizes() {
        assert_eq!((page_size(0, 100).unwrap(), page_size(7, 100).unwrap()), (100, 7));
        assert!(page_size(1001, 100).is_err());
    }
}
