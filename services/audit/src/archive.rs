//! The archive: the entries of every log and the wrapped keys of their days, in the bucket beside the root lists. A database that is lost,
//! or older than the lists, comes back from there ([`crate::rebuild`]).
//!
//! With each root list goes one part, put before it, with what is new in the logs of the list. What it holds is as sealed as in the database.
//! Parts are signed by the key of the root lists, so that what somebody else puts there is told from them.

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

/// Where parts lie, and sets of keys.
pub(crate) const PARTS: &str = "archive/";
pub(crate) const KEYS: &str = "day-keys/";

/// For how long nobody can delete a part: as long as the list with which it was put.
pub(crate) const LOCKED: SignedDuration = crate::roots::LOCKED;
/// So long before its lock ends, what a part holds is put once more.
pub(crate) const REPEATED_BEFORE: SignedDuration = SignedDuration::from_hours(24 * 25);

/// The name of a part: the number of its list, and a digest, so that a part whose list was never put stands in nobody's way.
pub(crate) fn part_name(number: u64, digest: &tsujiban_history::Hash) -> String {
    let digest = digest.as_bytes().first_chunk::<8>().copied().unwrap_or_default();
    format!("{PARTS}{number:012}-{}", hex::encode(digest))
}

/// The number of the list with which a part was put.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    let (number, digest) = name.strip_prefix(PARTS)?.split_once('-')?;
    (number.len() >= 12 && digest.len() == 16).then(|| number.parse().ok()).flatten()
}
