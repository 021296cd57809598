//! Root lists in the bucket: the head of every log, signed, chained, and locked for 400 days. A database that is older than the lists, or
//! differs from them, is not the history: it becomes read-only.
//!
//! A read-only history stays read-only, also across restarts, until a check of all of it finds that it agrees with the lists.

mod check;
mod compare;
mod covered;
mod gap;
mod listing;
mod missing;
mod publish;
mod refuse;
mod standing;
mod survey;

pub use self::gap::GapScope;
pub use self::listing::Listing;
pub(crate) use self::listing::PREFIX;
pub(crate) use self::survey::{Lost, Survey};

use jiff::{SignedDuration, Timestamp};
use tsujiban_core::history::BUCKET_LOCK;
use tsujiban_database::on;
use tsujiban_history::merkle::Hash;

use crate::engine::Standing;
use crate::error::{Error, Result};
use crate::service::Audit;

/// How long a list is locked against deletion: longer than any entry is readable.
pub const LOCKED: SignedDuration = BUCKET_LOCK;

/// A list that this database has recorded.
#[derive(Debug, Clone)]
pub struct ListRow {
    pub number: u64,
    pub hash: Hash,
    pub at: Timestamp,
}

/// A list as it is stored: number, hash, time.
type NotedRow = (i64, Vec<u8>, i64);

impl ListRow {
    fn from_row((number, hash, at): NotedRow) -> Result<Self> {
        let damaged = || Error::Damaged(format!("what the database says of root list {number}"));
        let hash = hash.try_into().map(Hash::from_bytes).map_err(|_| damaged())?;
        Ok(Self { number: number.cast_unsigned(), hash, at: Timestamp::from_microsecond(at).map_err(|_| damaged())? })
    }
}

/// How long to wait before an unsuccessful recovery, which reads everything, is tried again.
const AGAIN_AFTER: SignedDuration = SignedDuration::from_mins(10);

impl Audit {
    /// Makes the next list repeat the content of a damaged one, unless a list has done so. Returns whether a list has done so already.
    pub(crate) async fn repeat_list(&self, number: u64) -> bool {
        let mut listing = self.listing.lock().await;
        listing.repeat(number);
        listing.skipped.contains(number) && !listing.damaged.contains(&number)
    }

    /// Compares the history with the newest list, and lists what has changed. Runs once a minute. Restores a read-only history from the
    /// archive, checks it as a whole, and makes it writable again if it agrees with the lists.
    pub async fn follow_roots(&self) -> Result<()> {
        let mut listing = self.listing.lock().await;
        self.recall_refused().await?;
        if self.engine.standing() == Standing::Sound {
            self.compare(&mut listing).await?;
        } else {
            self.recover(&mut listing).await?;
        }
        if self.engine.standing() == Standing::Sound {
            self.readmit(&mut listing).await?;
        }
        if self.engine.standing() == Standing::Sound {
            self.publish(&mut listing).await?;
            if !listing.knows_erasures {
                // the database may be one from before a group was erased
                self.recall_erasures().await?;
                listing.knows_erasures = true;
            }
            self.archive_erasures().await?;
        }
        Ok(())
    }

    /// The comparison at start, before the service answers calls: checks every log against the newest full list and those after it, and for
    /// consistency. Refuses only the inconsistent logs; if it is uncertain which history is the newest, all of it becomes read-only.
    pub async fn compare_at_start(&self) -> Result<()> {
        let mut listing = self.listing.lock().await;
        self.bring_newest_keys().await?;
        match self.compare_all(&mut listing).await {
            // damage must not prevent callers from reading the rest
            Err(Error::Damaged(what)) => self.turn_read_only(&what).await,
            compared => compared,
        }
    }

    /// The newest list that this database has recorded.
    async fn known(&self) -> Result<Option<ListRow>> {
        self.known_before(u64::MAX).await
    }

    /// The newest list that this database has recorded before a number.
    async fn known_before(&self, number: u64) -> Result<Option<ListRow>> {
        const NEWEST: &str = "SELECT number, hash, at FROM root_lists WHERE number < $1 ORDER BY number DESC LIMIT 1";
        let before = i64::try_from(number).unwrap_or(i64::MAX);
        let row: Option<NotedRow> = on!(self.database.reads(), p => sqlx::query_as(NEWEST).bind(before).fetch_optional(p).await)?;
        row.map(ListRow::from_row).transpose()
    }
}
