/// The longest entry: its length is encoded in 16 bits.
pub const MAX_ENTRY: usize = 0xffff;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBundle {
    #[error("an entry of {0} bytes is longer than 65,535")]
    TooLong(usize),
    #[error("the bundle ends within its entry {0}")]
    Cut(usize),
    #[error("the bundle has {found} entries, not {wanted}")]
    Width { found: usize, wanted: usize },
}

/// Each entry after its length in two bytes, big endian.
pub fn encode_bundle<'a>(entries: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<u8>, InvalidBundle> {
    let mut bundle = Vec::new();
    for entry in entries {
        let length = u16::try_from(entry.len()).map_err(|_| InvalidBundle::TooLong(entry.len()))?;
        bundle.extend_from_slice(&length.to_be_bytes());
        bundle.extend_from_slice(entry);
    }
    Ok(bundle)
}

/// The entries of a bundle that has exactly `width` of them.
pub fn parse_bundle(bundle: &[u8], width: u16) -> Result<Vec<&[u8]>, InvalidBundle> {
    let wanted = usize::from(width);
    let mut entries = Vec::with_capacity(wanted);
    let mut rest = bundle;
    while !rest.is_empty() {
        let cut = || InvalidBundle::Cut(entries.len());
        let (length, after) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
        let (entry, after) = after.split_at_checked(u16::from_be_bytes(*length).into()).ok_or_else(cut)?;
        entries.push(entry);
        if entries.len() > wanted {
            break;
        }
        rest = after;
    }
    if entries.len() == wanted { Ok(entries) } else { Err(InvalidBundle::Width { found: entries.len(), wanted }) }
}
