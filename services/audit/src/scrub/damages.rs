//! Known damage: one row for each damaged thing, from when it is found until the history records that it was healed.

use tsujiban_database::on;

use crate::error::Result;
use crate::reading::{Bundle, Slot, Wrong};
use crate::service::Audit;

/// How many runs of entries are recorded separately.
const RUNS: usize = 64;

/// Records a damaged head that was healed at once, in the transaction that healed it: log, what was wrong, and when.
pub(crate) const PUT_HEALED_HEAD: &str = "INSERT INTO damages (log, place, kind, first, beyond, wrong, found_at, healed_at, is_recorded)
     VALUES ($1, 'head', 'head', 0, 1, $2, $3, $3, FALSE) ON CONFLICT (log, place) DO UPDATE SET healed_at = excluded.healed_at";

/// The kind of a damaged thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Entries,
    Hash,
    Key,
    Head,
    List,
    Database,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Entries => "entries",
            Self::Hash => "hash",
            Self::Key => "key",
            Self::Head => "head",
            Self::List => "list",
            Self::Database => "database",
        }
    }
}

/// A thing that is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damaged {
    pub place: String,
    /// Of entries and lists: the first one, and the one past the last.
    pub first: u64,
    pub beyond: u64,
    pub wrong: String,
}

impl Damaged {
    /// Adjacent entries with the same fault.
    fn entries((first, beyond, wrong): (u64, u64, Wrong)) -> Self {
        let place = if beyond - first == 1 { format!("entry {first}") } else { format!("entries {first} to {}", beyond - 1) };
        Self { place, first, beyond, wrong: wrong.as_str().to_owned() }
    }

    /// Entries with the same fault, each run of adjacent ones as one thing. Runs beyond [`RUNS`] are merged into the last one.
    pub fn runs(sequences: impl IntoIterator<Item = u64>, wrong: Wrong) -> Vec<Self> {
        let mut runs = runs(sequences.into_iter().map(|sequence| (sequence, wrong)));
        let beyond = runs.last().map(|(_, beyond, _)| *beyond);
        runs.truncate(RUNS);
        if let (Some(last), Some(beyond)) = (runs.last_mut(), beyond) {
            last.1 = beyond;
        }
        runs.into_iter().map(Self::entries).collect()
    }

    /// A thing that is neither an entry nor a list.
    pub fn thing(place: String, wrong: &str) -> Self {
        Self { place, first: 0, beyond: 1, wrong: wrong.to_owned() }
    }
}

/// Runs of adjacent entries with the same fault: the first entry, and the one past the last.
fn runs(found: impl Iterator<Item = (u64, Wrong)>) -> Vec<(u64, u64, Wrong)> {
    let mut runs: Vec<(u64, u64, Wrong)> = Vec::new();
    for (sequence, wrong) in found {
        match runs.last_mut() {
            Some((_, beyond, same)) if *beyond == sequence && *same == wrong => *beyond = sequence + 1,
            _ => runs.push((sequence, sequence + 1, wrong)),
        }
    }
    runs
}

/// The damaged entries of a bundle, each run of adjacent ones with the same fault as one thing. A missing epoch key is no damage.
pub(super) fn entries(bundle: &Bundle) -> Vec<Damaged> {
    let damaged = |slot: &Slot| Some((slot.sequence, slot.wrong.filter(|wrong| *wrong != Wrong::NotMounted)?));
    runs(bundle.slots.iter().filter_map(damaged)).into_iter().map(Damaged::entries).collect()
}

impl Audit {
    /// Records all damage of a kind that was found in a span: adds new damage, and marks known damage that was not found again as healed.
    pub(crate) async fn note_damage(&self, log: i64, kind: Kind, (begin, end): (u64, u64), found: &[Damaged]) -> Result<()> {
        const KNOWN: &str = "SELECT place FROM damages WHERE log = $1 AND kind = $2 AND first >= $3 AND first < $4 AND healed_at IS NULL";
        let known: Vec<String> = on!(self.database.reads(), p => sqlx::query_scalar(KNOWN)
            .bind(log)
            .bind(kind.as_str())
            .bind(begin.cast_signed())
            .bind(end.cast_signed())
            .fetch_all(p)
            .await)?;
        for damaged in found.iter().filter(|damaged| !known.contains(&damaged.place)) {
            self.note_found(log, kind, damaged).await?;
        }
        for place in known.into_iter().filter(|place| !found.iter().any(|damaged| damaged.place == *place)) {
            self.note_sound(log, place).await?;
        }
        Ok(())
    }

    async fn note_found(&self, log: i64, kind: Kind, damaged: &Damaged) -> Result<()> {
        const PUT: &str = "INSERT INTO damages (log, place, kind, first, beyond, wrong, found_at, healed_at, is_recorded)
             VALUES ($1, $2, $3, $4, $5, $6, $7, NULL, FALSE)
             ON CONFLICT (log, place) DO UPDATE SET wrong = excluded.wrong, healed_at = NULL";
        tracing::error!(log, place = damaged.place, wrong = damaged.wrong, "a part of the history is damaged where it is stored");
        on!(self.database.writes(), p => sqlx::query(PUT)
            .bind(log)
            .bind(damaged.place.clone())
            .bind(kind.as_str())
            .bind(damaged.first.cast_signed())
            .bind(damaged.beyond.cast_signed())
            .bind(damaged.wrong.clone())
            .bind(self.now().as_microsecond())
            .execute(p)
            .await
            .map(drop))?;
        Ok(())
    }

    async fn note_sound(&self, log: i64, place: String) -> Result<()> {
        const HEAL: &str = "UPDATE damages SET healed_at = $3 WHERE log = $1 AND place = $2";
        tracing::warn!(log, place, "a part of the history that was damaged is healed");
        let now = self.now().as_microsecond();
        on!(self.database.writes(), p => sqlx::query(HEAL).bind(log).bind(place).bind(now).execute(p).await.map(drop))?;
        Ok(())
    }

    /// Records damage that was found and healed at once.
    pub(crate) async fn note_healed(&self, log: i64, kind: Kind, damaged: &Damaged) -> Result<()> {
        self.note_found(log, kind, damaged).await?;
        self.note_sound(log, damaged.place.clone()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_follow_each_other_are_one_thing() {
        let places = |sequences: Vec<u64>| Damaged::runs(sequences, Wrong::Missing).into_iter().map(|run| run.place).collect::<Vec<_>>();
        assert_eq!(places(vec![3, 4, 5, 9]), ["entries 3 to 5", "entry 9"]);
        assert!(places(Vec::new()).is_empty());
        let many = places((0..200).map(|n| n * 2).collect());
        assert_eq!((many.len(), many.last().unwrap().as_str()), (RUNS, "entries 126 to 398"));
    }
}
