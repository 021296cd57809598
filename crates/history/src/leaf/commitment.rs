use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac::{HMAC_SHA256, Key, sign, verify};

/// HMAC-SHA256 of a body under its opening. Without the opening it reveals nothing about the body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Commitment([u8; 32]);

/// The key of one commitment. Readers of the entry get it: they can verify this entry, and cannot guess the bodies of other
/// entries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Opening([u8; 32]);

/// The key from which the openings of one log's JST day are derived. It is destroyed when the day expires.
#[derive(Clone)]
pub struct DayMac(Key);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an opening is 32 bytes in base64")]
pub struct InvalidOpening;

impl Commitment {
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether this is the commitment to `body`.
    pub fn is_to(&self, body: &[u8], opening: &Opening) -> bool {
        verify(&Key::new(HMAC_SHA256, &opening.0), body, &self.0).is_ok()
    }
}

impl DayMac {
    pub fn new(day_mac_key: &[u8; 32]) -> Self {
        Self(Key::new(HMAC_SHA256, day_mac_key))
    }

    /// `HMAC-SHA256(day mac key, "entry" || sequence)`, the sequence in eight bytes, big endian.
    pub fn opening(&self, sequence: u64) -> Opening {
        let mut message = *b"entry\0\0\0\0\0\0\0\0";
        message.iter_mut().skip(5).zip(sequence.to_be_bytes()).for_each(|(to, from)| *to = from);
        Opening(tag(&self.0, &message))
    }
}

impl Opening {
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub fn commit(&self, body: &[u8]) -> Commitment {
        Commitment(tag(&Key::new(HMAC_SHA256, &self.0), body))
    }

    pub fn to_base64(self) -> String {
        STANDARD.encode(self.0)
    }

    pub fn from_base64(text: &str) -> Result<Self, InvalidOpening> {
        STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or(InvalidOpening)
    }
}

fn tag(key: &Key, message: &[u8]) -> [u8; 32] {
    let mut tag = [0; 32];
    tag.iter_mut().zip(sign(key, message).as_ref()).for_each(|(to, from)| *to = *from);
    tag
}

impl fmt::Debug for Commitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").finish_non_exhaustive()
    }
}

impl fmt::Debug for DayMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DayMac").finish_non_exhaustive()
    }
}
