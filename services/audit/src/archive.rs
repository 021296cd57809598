//! The archive: the entries of every log and the wrapped keys of their days, in the bucket beside the root lists. A database that is lost,
//! or older than the lists, is restored from it ([`crate::rebuild`]).
//!
//! Before each root list the service puts one part with the new entries of the list's logs. Bodies in a part are sealed as in the database.
//! The key of the root lists signs the parts, so that foreign objects are detected.

mod awaited;
mod collect;
mod keys;
mod part;
mod read;
mod record;
mod waiting;

pub(crate) use self::awaited::Waiting;
pub(crate) use self::collect::{Collected, Span};
pub use self::part::{Above, ArchivedEntry, KeyCopy, Part, PartError, Section};
pub(crate) use self::record::{Batch, lock_day};

use jiff::SignedDuration;

/// The prefixes of the objects of parts, and of sets of keys.
pub(crate) const PARTS: &str = "archive/";
pub(crate) const KEYS: &str = "day-keys/";

/// How long the lock on a part lasts: as long as the lock on its root list.
pub(crate) const LOCKED: SignedDuration = crate::roots::LOCKED;
/// How long before the lock on a part ends its content is put again.
pub(crate) const REPEATED_BEFORE: SignedDuration = SignedDuration::from_hours(24 * 25);

/// The name of a part: the number of its list, and a digest, so that a part whose list was never put blocks no other part.
pub(crate) fn part_name(number: u64, digest: &tsujiban_history::Hash) -> String {
    let digest = digest.as_bytes().first_chunk::<8>().copied().unwrap_or_default();
    format!("{PARTS}{number:012}-{}", hex::encode(digest))
}

/// The number of the list with which a part was put.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    let (number, digest) = name.strip_prefix(PARTS)?.split_once('-')?;
    (number.len() >= 12 && digest.len() == 16).then(|| number.parse().ok()).flatten()
}
