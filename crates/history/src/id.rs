//! Opaque ids of 16 bytes. Their text is 32 lower-case hexadecimal digits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tsujiban_core::id::KeyId;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {value:?} is not valid: 32 hexadecimal digits, lower case")]
pub struct InvalidId {
    pub kind: &'static str,
    pub value: String,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; 16]);

        impl $name {
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let invalid = || InvalidId { kind: $kind, value: text.chars().take(40).collect() };
                let mut bytes = [0; 16];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| invalid())?;
                if text.bytes().any(|b| b.is_ascii_uppercase()) { Err(invalid()) } else { Ok(Self(bytes)) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }
    };
}

id!(
    /// One log: random, made at the first entry of a group's incarnation, so that public texts name no customer.
    LogId,
    "log id"
);
id!(
    /// One operation. An intent and its outcome share it; an entry appended again under the same id is the same entry.
    EntryId,
    "entry id"
);
id!(
    /// The data key of a log's JST day, as leaves name it.
    DayKeyId,
    "key id"
);

impl From<DayKeyId> for KeyId {
    fn from(id: DayKeyId) -> Self {
        Self::from_bytes(id.0)
    }
}

impl TryFrom<&KeyId> for DayKeyId {
    type Error = InvalidId;
    fn try_from(id: &KeyId) -> Result<Self, InvalidId> {
        id.as_str().parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_text() {
        let text = "00112233445566778899aabbccddeeff";
        let id: LogId = text.parse().unwrap();
        assert_eq!((id.to_string(), id.as_bytes()[15]), (text.to_owned(), 0xff));
        assert_eq!(KeyId::from(DayKeyId::from_bytes(*id.as_bytes())).as_str(), text);
        assert_eq!(DayKeyId::try_from(&text.parse::<KeyId>().unwrap()).unwrap().to_string(), text);
        for bad in ["", &text[1..], &text.to_uppercase(), "../../../../../../../etc/passwd!!", &format!("{text}0")] {
            assert!(bad.parse::<LogId>().is_err(), "{bad}");
        }
    }
}
