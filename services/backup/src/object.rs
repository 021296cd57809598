//! A snapshot as it lies in the bucket: an envelope whose clear header has ids, times and lengths, and nothing a customer typed.

use bytes::Bytes;
use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use tsujiban_core::config::stable_lines;
use tsujiban_core::driver::{Driver, StoredDriver};
use tsujiban_core::id::{EnvironmentName, GroupId, IncarnationId, KeyId, SerialNumber, SnapshotId};
use tsujiban_core::retention;
use tsujiban_objects::LockUntil;
use tsujiban_sealing::{Context, DataKey, Random, SealingError};
use zeroize::Zeroizing;

use crate::envelope::{self, InvalidEnvelope};

/// The largest config that is stored, in bytes.
pub const MAX_CONFIG_BYTES: usize = 16 * 1024 * 1024;
/// Where all snapshots lie.
pub const PREFIX: &str = "v1/";

const CLASS: &str = "snapshot object";
const STABLE: &str = "stable config";
const LEVEL: i32 = 3;

/// The clear header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub environment: EnvironmentName,
    pub group: IncarnationId,
    pub device: IncarnationId,
    pub snapshot: SnapshotId,
    pub key: KeyId,
    pub taken_at: Timestamp,
    /// The size of the config.
    pub bytes: u64,
    /// The size of what follows the header.
    pub sealed_bytes: u64,
}

/// What is sealed beside the config, so that the catalogue can be rebuilt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    pub group: GroupId,
    pub serial: SerialNumber,
    pub name: String,
    pub driver: StoredDriver,
    /// The host key that the device showed.
    pub host_key: String,
    /// The host key that was pinned for it.
    pub pinned_host_key: String,
    pub model: String,
    pub firmware: String,
    pub sha256: String,
}

/// A snapshot, opened and checked against its header and digest.
#[derive(Debug)]
pub struct Opened {
    pub header: Header,
    pub meta: Meta,
    pub config: Zeroizing<Vec<u8>>,
}

/// Why an object is no snapshot that can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    #[error("the object is damaged: {0}")]
    Envelope(#[from] InvalidEnvelope),
    #[error("the object cannot be opened: {0}")]
    Sealed(#[from] SealingError),
    #[error("the object is damaged: {0}")]
    Contents(&'static str),
}

/// The ids that identify an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectIds {
    pub group: IncarnationId,
    pub device: IncarnationId,
    pub snapshot: SnapshotId,
}

pub fn object_key(group: &IncarnationId, device: &IncarnationId, snapshot: &SnapshotId) -> String {
    format!("{PREFIX}{group}/{device}/{snapshot}")
}

/// The ids in an object's key; `None` for an object that is no snapshot.
pub fn ids_of_key(key: &str) -> Option<ObjectIds> {
    let mut parts = key.strip_prefix(PREFIX)?.split('/');
    let ids = ObjectIds { group: parts.next()?.parse().ok()?, device: parts.next()?.parse().ok()?, snapshot: parts.next()?.parse().ok()? };
    parts.next().is_none().then_some(ids)
}

/// When a snapshot was taken, by its id alone, which begins with the milliseconds since 1970 (UUID version 7).
pub fn time_of(snapshot: &SnapshotId) -> Option<Timestamp> {
    let millis = i64::from_str_radix(snapshot.as_str().get(..12)?, 16).ok()?;
    Timestamp::from_millisecond(millis).ok()
}

/// The lock of a snapshot that was seen at this moment (C23).
pub fn lock_of_sighting(seen: Timestamp) -> LockUntil {
    LockUntil::at_least(retention::retain_until(seen))
}

/// SHA-256 in hexadecimal digits.
pub fn sha256(data: &[u8]) -> String {
    hex::encode(digest(&SHA256, data))
}

/// Compresses and seals a config. The header's lengths are filled in here.
pub fn seal(mut header: Header, meta: &Meta, config: &[u8], key: &DataKey, random: &dyn Random) -> Result<Bytes, ObjectError> {
    let meta = Zeroizing::new(serde_json::to_vec(meta).map_err(|_| ObjectError::Contents("its description cannot be written"))?);
    let length = u32::try_from(meta.len()).map_err(|_| ObjectError::Contents("its description is too long"))?;
    let packed = zstd::bulk::compress(config, LEVEL).map(Zeroizing::new).map_err(|_| ObjectError::Contents("it cannot be compressed"))?;
    let plain = Zeroizing::new([&length.to_be_bytes()[..], &meta, &packed].concat());
    header.bytes = u64::try_from(config.len()).unwrap_or(u64::MAX);
    header.sealed_bytes = u64::try_from(plain.len()).unwrap_or(u64::MAX).saturating_add(tsujiban_sealing::OVERHEAD);
    let clear = envelope::clear_part(&header)?;
    let sealed = key.seal(Context { class: CLASS, record: &clear }, &plain, random)?;
    Ok(Bytes::from([clear, sealed].concat()))
}

/// Reads the clear header.
pub fn header(object: &[u8]) -> Result<Header, ObjectError> {
    Ok(envelope::split(object)?.0)
}

/// Opens an object and checks that it is whole.
pub fn open(object: &[u8], key: &DataKey) -> Result<Opened, ObjectError> {
    let (header, parts) = envelope::split::<Header>(object)?;
    let plain = key.open(Context { class: CLASS, record: parts.clear }, parts.sealed)?;
    let (length, rest) = plain.split_first_chunk::<4>().ok_or(ObjectError::Contents("its description is missing"))?;
    let split = usize::try_from(u32::from_be_bytes(*length)).ok().and_then(|length| rest.split_at_checked(length));
    let (meta, packed) = split.ok_or(ObjectError::Contents("its description is cut"))?;
    let meta: Meta = serde_json::from_slice(meta).map_err(|_| ObjectError::Contents("its description cannot be read"))?;
    let bytes = usize::try_from(header.bytes).ok().filter(|bytes| *bytes <= MAX_CONFIG_BYTES);
    let bytes = bytes.ok_or(ObjectError::Contents("its config is larger than any that is stored"))?;
    let config = zstd::bulk::decompress(packed, bytes).map(Zeroizing::new);
    let config = config.map_err(|_| ObjectError::Contents("its config cannot be unpacked"))?;
    if config.len() != bytes || sha256(&config) != meta.sha256 {
        return Err(ObjectError::Contents("its config is not the one that was stored"));
    }
    Ok(Opened { header, meta, config })
}

/// Equal for configs that differ only in lines that change by themselves.
pub(crate) fn stable_mac(key: &DataKey, driver: Driver, config: &[u8]) -> Vec<u8> {
    key.mac_parts(STABLE, stable_lines(driver, config)).to_vec()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tsujiban_sealing::SystemRandom;

    use super::*;

    fn example(config: &[u8]) -> (Header, Meta) {
        let ids = IncarnationId::from_bytes([1; 16]);
        let header = Header {
            environment: "test".parse().unwrap(),
            group: ids.clone(),
            device: ids,
            snapshot: SnapshotId::from_bytes([2; 16]),
            key: KeyId::from_bytes([3; 16]),
            taken_at: "2026-11-23T00:00:00Z".parse().unwrap(),
            bytes: 0,
            sealed_bytes: 0,
        };
        let meta = Meta {
            group: "acme".parse().unwrap(),
            serial: "SN-1".parse().unwrap(),
            name: "tokyo".into(),
            driver: Driver::Frr.into(),
            host_key: "ssh-ed25519 AAAA".into(),
            pinned_host_key: String::new(),
            model: String::new(),
            firmware: String::new(),
            sha256: sha256(config),
        };
        (header, meta)
    }

    proptest! {
        #[test]
        fn there_and_back(config in proptest::collection::vec(any::<u8>(), 0..300)) {
            let key = DataKey::generate(&SystemRandom::new()).unwrap();
            let (header, meta) = example(&config);
            let object = seal(header, &meta, &config, &key, &SystemRandom::new()).unwrap();
            let opened = open(&object, &key).unwrap();
            prop_assert_eq!((&*opened.config, &opened.meta), (&config, &meta));
            let (_, parts) = envelope::split::<Header>(&object).unwrap();
            prop_assert_eq!(opened.header.sealed_bytes, u64::try_from(parts.sealed.len()).unwrap());
        }

        /// C22: neither the clear header nor what is sealed can be changed unnoticed.
        #[test]
        fn any_changed_byte_is_noticed(at in any::<prop::sample::Index>(), by in 1..=255u8) {
            let key = DataKey::generate(&SystemRandom::new()).unwrap();
            let (header, meta) = example(b"hostname r1\n");
            let mut object = seal(header, &meta, b"hostname r1\n", &key, &SystemRandom::new()).unwrap().to_vec();
            let at = at.index(object.len());
            object[at] ^= by;
            prop_assert!(open(&object, &key).is_err());
        }
    }

    /// After a rollback what the newer version stored is read and listed; only what needs its driver is not.
    #[test]
    fn an_object_of_a_driver_of_a_newer_version_opens() {
        let key = DataKey::generate(&SystemRandom::new()).unwrap();
        let (header, meta) = example(b"hostname r1\n");
        let meta = Meta { driver: StoredDriver::try_from("OfNextYear".to_owned()).unwrap(), ..meta };
        let object = seal(header, &meta, b"hostname r1\n", &key, &SystemRandom::new()).unwrap();
        let opened = open(&object, &key).unwrap();
        assert_eq!((opened.meta.driver.as_str(), opened.meta.driver.known()), ("OfNextYear", None));
        assert!(StoredDriver::try_from("no driver".to_owned()).is_err() && StoredDriver::try_from(String::new()).is_err());
    }

    /// C22: nothing a customer typed stands in the clear.
    #[test]
    fn the_header_tells_nothing_about_the_customer() {
        let key = DataKey::generate(&SystemRandom::new()).unwrap();
        let (header, meta) = example(b"hostname r1\n");
        let object = seal(header, &meta, b"hostname r1\n", &key, &SystemRandom::new()).unwrap();
        for typed in ["acme", "SN-1", "tokyo", "hostname", "AAAA", &meta.sha256] {
            assert!(!object.windows(typed.len()).any(|bytes| bytes == typed.as_bytes()), "{typed}");
        }
    }

    #[test]
    fn keys_of_objects_lead_back() {
        let ids = ObjectIds {
            group: IncarnationId::from_bytes([1; 16]),
            device: IncarnationId::from_bytes([2; 16]),
            snapshot: SnapshotId::from_bytes([3; 16]),
        };
        assert_eq!(ids_of_key(&object_key(&ids.group, &ids.device, &ids.snapshot)), Some(ids));
        for other in ["v1/a/b/c", "v1/", "key-table", "v2/x"] {
            assert_eq!(ids_of_key(other), None, "{other}");
        }
    }
}
