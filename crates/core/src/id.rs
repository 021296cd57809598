//! Ids. Each is a type of its own, checked when it is made, so that a wrong call does not compile.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {value:?} is not valid: {rule}")]
pub struct InvalidId {
    pub kind: &'static str,
    pub value: String,
    pub rule: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(s: &str) -> Result<Self, InvalidId> {
                let check: fn(&str) -> bool = $check;
                if check(s) {
                    Ok(Self(s.to_owned()))
                } else {
                    Err(InvalidId { kind: $kind, value: s.chars().take(80).collect(), rule: $rule })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(s: String) -> Result<Self, InvalidId> {
                s.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// The immutable id of a group: the name of its Tenant.
    GroupId,
    "group id",
    "3 to 40 characters a-z, 0-9 and '-', starting with a letter and not ending with '-'",
    |s| (3..=40).contains(&s.len()) && is_label(s) && s.starts_with(|c: char| c.is_ascii_lowercase())
);
id!(
    /// The name of a Device inside its group's namespace. Names can be used again; identity is the serial number.
    DeviceName,
    "device name",
    "1 to 52 characters a-z, 0-9 and '-', starting and ending with a letter or digit",
    |s| (1..=52).contains(&s.len()) && is_label(s)
);
id!(
    /// The serial number printed on a device, unique in the cluster.
    SerialNumber,
    "serial number",
    "1 to 64 characters A-Z, a-z, 0-9, '.', '_', ':' and '-'",
    |s| (1..=64).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b))
);
id!(
    /// The life of one group or device in the services' data, from its preparation to its erasure.
    IncarnationId,
    "incarnation id",
    "32 hexadecimal digits",
    |s| is_hex(s, 32)
);
id!(
    /// A data key, an epoch key or the master key.
    KeyId,
    "key id",
    "32 hexadecimal digits",
    |s| is_hex(s, 32)
);
id!(
    /// A stored snapshot. Ordered by the time at which it was taken.
    SnapshotId,
    "snapshot id",
    "32 hexadecimal digits",
    |s| is_hex(s, 32)
);
id!(
    /// The name of an environment such as `production` or `staging` (C12).
    EnvironmentName,
    "environment name",
    "1 to 40 characters a-z, 0-9 and '-', starting and ending with a letter or digit",
    |s| (1..=40).contains(&s.len()) && is_label(s)
);

/// RFC 1123: lower-case letters, digits and inner hyphens.
fn is_label(s: &str) -> bool {
    s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') && !s.starts_with('-') && !s.ends_with('-')
}

fn is_hex(s: &str, len: usize) -> bool {
    s.len() == len && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

macro_rules! from_bytes {
    ($($name:ident),*) => {$(
        impl $name {
            /// An id from 16 bytes, such as random ones or a UUID.
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(hex::encode(bytes))
            }
        }
    )*};
}
from_bytes!(IncarnationId, KeyId, SnapshotId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_ids() {
        for good in ["abc", "acme-tokyo", "a23"] {
            assert!(good.parse::<GroupId>().is_ok(), "{good}");
        }
        for bad in ["", "ab", "1bc", "-bc", "ab-", "Abc", "a_c", "a.c", "日本語", &"a".repeat(41)] {
            assert!(bad.parse::<GroupId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn serial_numbers_refuse_what_could_leave_a_path() {
        for bad in ["", "a/b", "a b", "a\nb", &"x".repeat(65)] {
            assert!(bad.parse::<SerialNumber>().is_err(), "{bad}");
        }
        assert!("JN1:2.3_4-5".parse::<SerialNumber>().is_ok());
    }

    #[test]
    fn a_stored_id_is_checked_when_it_is_read() {
        assert!(serde_json::from_str::<SnapshotId>("\"../../etc\"").is_err());
        let id = SnapshotId::from_bytes([7; 16]);
        assert_eq!(serde_json::from_str::<SnapshotId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
    }
}
