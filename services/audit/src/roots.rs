//! Root lists in the bucket: how far every log has come, signed, chained, and locked for 400 days. What is older than they say, or other
//! than they say, is not the history: it is not written to.
//!
//! A history that is read-only stays so, also across restarts, until a check of all of it finds that it is what the lists say.

mod check;
mod compare;
mod covered;
mod gap;
mod publish;
mod refuse;
mod standing;
mod survey;

pub use self::gap::GapScope;
pub(crate) use self::survey::Survey;

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use tsujiban_database::on;
use tsujiban_history::LogId;
use tsujiban_history::merkle::Hash;
use tsujiban_history::roots::Skipped;

use crate::engine::Standing;
use crate::error::{Error, Result};
use crate::service::Audit;

/// For how long nobody can delete a list: longer than any entry can be read.
pub const LOCKED: SignedDuration = SignedDuration::from_hours(400 * 24);
pub(crate) const PREFIX: &str = "roots/";

/// The newest list that this database knows.
#[derive(Debug, Clone)]
pub struct Known {
    pub number: u64,
    pub hash: Hash,
    pub at: Timestamp,
}

/// What reads everything and did not suffice is not begun anew before this time has passed.
const AGAIN_AFTER: SignedDuration = SignedDuration::from_mins(10);

/// What is kept of the lists between looks at them. Whoever holds it is alone in comparing, putting lists and declaring gaps.
#[derive(Debug, Default)]
pub struct Listing {
    /// Numbers that a signed list says are not lists of this chain.
    skipped: Skipped,
    /// When the archive was last asked for all that is missing.
    rebuilt_at: Option<Timestamp>,
    /// Whether it was looked up in the bucket which groups were erased.
    knows_erasures: bool,
    /// When the logs that are refused were last healed as far as that was possible.
    readmitted_at: Option<Timestamp>,
    /// Logs that are left out of lists, since their entries do not lead to their heads.
    faulty: BTreeSet<LogId>,
}

impl Audit {
    /// Compares the history with the newest list, and lists what has changed. Once a minute. A read-only history is brought back from the
    /// archive, checked as a whole, and goes on if it is what the lists say.
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

    /// The comparison at start, before anybody is answered: every log with the newest full list and those after it, and with itself. A log that
    /// does not hold together is refused alone; where it is doubted which history is the newest, all of it is read-only.
    pub async fn compare_at_start(&self) -> Result<()> {
        let mut listing = self.listing.lock().await;
        match self.compare_all(&mut listing).await {
            // what is damaged keeps nobody from reading the rest
            Err(Error::Damaged(what)) => self.turn_read_only(&what).await,
            compared => compared,
        }
    }

    async fn known(&self) -> Result<Option<Known>> {
        const NEWEST: &str = "SELECT number, hash, at FROM root_lists ORDER BY number DESC LIMIT 1";
        let row: Option<(i64, Vec<u8>, i64)> = on!(self.database.reads(), p => sqlx::query_as(NEWEST).fetch_optional(p).await)?;
        row.map(|(number, hash, at)| {
            let damaged = || Error::Damaged(format!("root list {number}"));
            let hash = hash.try_into().map(Hash::from_bytes).map_err(|_| damaged())?;
            Ok(Known { number: number.cast_unsigned(), hash, at: Timestamp::from_microsecond(at).map_err(|_| damaged())? })
        })
        .transpose()
    }
}
