//! The layout of sealed objects in the bucket: magic bytes, a clear header of ids, times and lengths, then the sealed part. The clear part
//! is bound to the sealed one, so that neither can be exchanged.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Says what the file is, and the version of this layout.
const MAGIC: &[u8; 8] = b"tsujiban";
const LAYOUT: u8 = 1;
/// Headers are some hundred bytes; more is damage.
const MAX_HEADER: usize = 64 * 1024;

/// Why bytes are not an envelope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEnvelope {
    #[error("it does not begin as a sealed object of this service does")]
    NotOurs,
    #[error("its layout has version {0}; a newer version of the service wrote it")]
    Layout(u8),
    #[error("its header cannot be read")]
    Header,
}

/// The two parts of an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts<'a> {
    /// Everything before what is sealed: the associated data of the seal.
    pub clear: &'a [u8],
    pub sealed: &'a [u8],
}

/// The clear part of an envelope with this header.
pub fn clear_part(header: &impl Serialize) -> Result<Vec<u8>, InvalidEnvelope> {
    let header = serde_json::to_vec(header).map_err(|_| InvalidEnvelope::Header)?;
    let length = u32::try_from(header.len()).map_err(|_| InvalidEnvelope::Header)?;
    Ok([&MAGIC[..], &[LAYOUT], &length.to_be_bytes(), &header].concat())
}

/// Splits an envelope into its header and its two parts.
pub fn split<H: DeserializeOwned>(envelope: &[u8]) -> Result<(H, Parts<'_>), InvalidEnvelope> {
    let rest = envelope.strip_prefix(MAGIC).ok_or(InvalidEnvelope::NotOurs)?;
    let (&layout, rest) = rest.split_first().ok_or(InvalidEnvelope::NotOurs)?;
    if layout != LAYOUT {
        return Err(InvalidEnvelope::Layout(layout));
    }
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(InvalidEnvelope::Header)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok().filter(|length| *length <= MAX_HEADER).ok_or(InvalidEnvelope::Header)?;
    let (header, sealed) = rest.split_at_checked(length).ok_or(InvalidEnvelope::Header)?;
    let header = serde_json::from_slice(header).map_err(|_| InvalidEnvelope::Header)?;
    let clear = envelope.get(..envelope.len() - sealed.len()).ok_or(InvalidEnvelope::Header)?;
    Ok((header, Parts { clear, sealed }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn there_and_back(header in ".{0,40}", sealed in proptest::collection::vec(any::<u8>(), 0..40)) {
            let clear = clear_part(&header).unwrap();
            let whole = [clear.clone(), sealed.clone()].concat();
            let (read, parts) = split::<String>(&whole).unwrap();
            prop_assert_eq!(read, header);
            prop_assert_eq!(parts, Parts { clear: &clear, sealed: &sealed });
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = split::<String>(&bytes);
            let _ = split::<String>(&[&MAGIC[..], &[LAYOUT], &bytes].concat());
        }
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        assert_eq!(split::<String>(b"PK\x03\x04").unwrap_err(), InvalidEnvelope::NotOurs);
        assert_eq!(split::<String>(b"tsujiban\x02").unwrap_err(), InvalidEnvelope::Layout(2));
        assert_eq!(split::<String>(b"tsujiban\x01\xff\xff\xff\xff").unwrap_err(), InvalidEnvelope::Header);
        assert_eq!(split::<String>(b"tsujiban\x01\x00\x00\x00\x09\"a\"").unwrap_err(), InvalidEnvelope::Header);
    }
}
