//! Where entries are, by their ids.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use tsujiban_database::{Backend, Database};
use tsujiban_history::Day;

use super::load;
use super::rows::Conn;
use super::statement::{Statement, portions};

/// For how many days callers may ask for an entry: longer than callers add one again, and as long as a caller may be unavailable.
const ASKED_FOR_DAYS: i64 = 8;
const DAY_US: i64 = 24 * 60 * 60 * 1_000_000;

/// The caller's number for the group in whose history the id is looked up, and the id.
pub(crate) type Wanted = (usize, [u8; 16]);

/// Where these entries of the past days are: log and sequence. `groups` has the caller's number of the group of each log.
pub(crate) async fn locate(
    database: &Database,
    groups: &HashMap<i64, usize>,
    mut wanted: HashSet<Wanted>,
    now: Timestamp,
) -> Result<HashMap<Wanted, (i64, u64)>, sqlx::Error> {
    let mut found = HashMap::with_capacity(wanted.len());
    let mut take = |wanted: &mut HashSet<Wanted>, (log, id, sequence): (i64, Vec<u8>, i64)| {
        let Ok(id) = <[u8; 16]>::try_from(id) else { return };
        let Some(group) = groups.get(&log) else { return };
        if wanted.remove(&(*group, id)) {
            found.insert((*group, id), (log, sequence.cast_unsigned()));
        }
    };
    match database.reads() {
        Backend::Sqlite(pool) => {
            let mut reader = pool.acquire().await?;
            for segment in recent(&load::segments(&mut Backend::Sqlite(&mut *reader)).await?, now) {
                if wanted.is_empty() {
                    break;
                }
                let ids: Vec<[u8; 16]> = wanted.iter().map(|(_, id)| *id).collect();
                for row in in_segment(&mut Backend::Sqlite(&mut *reader), segment, &ids).await? {
                    take(&mut wanted, row);
                }
            }
        }
        Backend::Postgres(pool) => {
            let today = Day::of(now).number();
            let days: Vec<i64> = (today - ASKED_FOR_DAYS..=today + 1).collect();
            let ids: Vec<Vec<u8>> = wanted.iter().map(|(_, id)| id.to_vec()).collect();
            let logs: Vec<i64> = groups.keys().copied().collect();
            let rows: Vec<(i64, Vec<u8>, i64)> =
                sqlx::query_as("SELECT log, id, sequence FROM entries WHERE segment = ANY($1) AND id = ANY($2) AND log = ANY($3)")
                    .bind(days)
                    .bind(ids)
                    .bind(logs)
                    .fetch_all(pool)
                    .await?;
            for row in rows {
                take(&mut wanted, row);
            }
        }
    }
    Ok(found)
}

/// The segments with entries of the past days, the newest first: nearly all wanted entries are in that one.
fn recent(segments: &[(i64, i64)], now: Timestamp) -> Vec<i64> {
    let since_us = now.as_microsecond() - ASKED_FOR_DAYS * DAY_US;
    // a segment ends where the next one begins
    let ended = segments.iter().skip(1).take_while(|(_, began_us)| *began_us < since_us).count();
    segments.iter().skip(ended).rev().map(|(segment, _)| *segment).collect()
}

/// SQLite only.
async fn in_segment(conn: &mut Conn<'_>, segment: i64, ids: &[[u8; 16]]) -> Result<Vec<(i64, Vec<u8>, i64)>, sqlx::Error> {
    static OF: Statement = Statement::new("SELECT log, id, sequence FROM entries WHERE segment = ? AND id IN (VALUES", 1, ")");
    let mut found = Vec::new();
    let mut ids = ids.iter();
    for portion in portions(ids.len()) {
        let text = OF.text(conn, portion);
        let Backend::Sqlite(c) = conn else { break };
        let mut query = sqlx::query_as(text).bind(segment);
        for id in ids.by_ref().take(portion) {
            query = query.bind(id.to_vec());
        }
        found.extend(query.fetch_all(&mut **c).await?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_of_the_past_days_are_looked_through_from_new_to_old() {
        let day = |n: i64| n * DAY_US;
        let now = Timestamp::from_microsecond(day(20)).unwrap();
        // the second began long ago, and was written to until the third began
        assert_eq!(recent(&[(0, day(1)), (1, day(2)), (2, day(13)), (3, day(20))], now), [3, 2, 1]);
        assert_eq!(recent(&[(0, day(1))], now), [0]);
        assert_eq!(recent(&[], now), [0_i64; 0]);
    }
}
