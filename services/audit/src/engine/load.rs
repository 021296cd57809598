//! The engine's reads from the database.

use tsujiban_core::id::KeyId;
use tsujiban_database::{Backend, on};
use tsujiban_sealing::WrappedKey;

use super::rows::Conn;
use super::statement::{Statement, portions};
use crate::log_row::{LogTuple, logs};

type Read<T> = Result<T, sqlx::Error>;

/// A log as it is in the database.
#[derive(Debug, Clone)]
pub struct LoadedLog {
    pub number: i64,
    pub log_id: Vec<u8>,
    pub group: String,
    pub size: i64,
    pub peaks: Vec<u8>,
    pub day: i64,
    pub seal: Option<Vec<u8>>,
}

/// A wrapping of a day's key.
#[derive(Debug, Clone)]
pub struct LoadedKey {
    pub day: i64,
    pub log: i64,
    pub key_id: Vec<u8>,
    pub wrapped: WrappedKey,
}

macro_rules! get {
    ($conn:expr, $statement:expr, $row:ty, $items:expr, |$query:ident, $item:pat_param| $bound:expr) => {{
        let mut found = Vec::new();
        let mut items = $items.iter();
        for portion in portions(items.len()) {
            let text = $statement.text($conn, portion);
            on!(&mut *$conn, c => {
                let mut $query = sqlx::query_as::<_, $row>(text);
                for $item in items.by_ref().take(portion) {
                    $query = $bound;
                }
                found.extend($query.fetch_all(&mut **c).await?);
            });
        }
        found
    }};
}

fn log((number, log_id, group, size, peaks, day, seal): LogTuple) -> LoadedLog {
    LoadedLog { number, log_id, group, size, peaks, day, seal }
}

/// The newest log of each of these owners, if it has one.
pub async fn newest_logs(conn: &mut Conn<'_>, owners: &[&str]) -> Read<Vec<LoadedLog>> {
    static OF: Statement = Statement::new(
        logs!("WHERE NOT EXISTS (SELECT 1 FROM logs n WHERE n.group_id = l.group_id AND n.number > l.number) AND l.group_id IN (VALUES"),
        1,
        ")",
    );
    Ok(get!(conn, OF, LogTuple, owners, |q, owner| q.bind((*owner).to_owned())).into_iter().map(log).collect())
}

/// These logs.
pub async fn logs(conn: &mut Conn<'_>, numbers: &[i64]) -> Read<Vec<LoadedLog>> {
    static OF: Statement = Statement::new(logs!("WHERE l.number IN (VALUES"), 1, ")");
    Ok(get!(conn, OF, LogTuple, numbers, |q, number| q.bind(*number)).into_iter().map(log).collect())
}

/// Locks the heads of these logs until the end of the transaction, in ascending order. Returns size, peaks and day. PostgreSQL only.
pub async fn lock_heads(conn: &mut Conn<'_>, numbers: &[i64]) -> Read<Vec<(i64, i64, Vec<u8>, i64)>> {
    static OF: Statement = Statement::new("SELECT log, size, peaks, day FROM heads WHERE log IN (VALUES", 1, ") ORDER BY log FOR UPDATE");
    Ok(get!(conn, OF, (i64, i64, Vec<u8>, i64), numbers, |q, number| q.bind(*number)))
}

/// The wrappings of the keys of these days, the current ones first.
pub async fn day_keys(conn: &mut Conn<'_>, days: &[(i64, i64)]) -> Read<Vec<LoadedKey>> {
    static OF: Statement = Statement::new(
        "SELECT day, log, epoch, key_id, wrapped FROM day_keys WHERE (day, log) IN (VALUES",
        2,
        ") ORDER BY superseded_at IS NOT NULL",
    );
    let found = get!(conn, OF, (i64, i64, String, Vec<u8>, Vec<u8>), days, |q, (day, log)| q.bind(*day).bind(*log));
    let key = |(day, log, epoch, key_id, bytes): (i64, i64, String, Vec<u8>, Vec<u8>)| {
        // no epoch key has an invalid id
        let epoch = epoch.parse::<KeyId>().ok()?;
        Some(LoadedKey { day, log, key_id, wrapped: WrappedKey { epoch, bytes } })
    };
    Ok(found.into_iter().filter_map(key).collect())
}

/// The number and the time of an entry with this id.
pub async fn by_id(conn: &mut Conn<'_>, segment: i64, log: i64, id: &[u8; 16]) -> Read<Option<(i64, i64)>> {
    on!(conn, c => sqlx::query_as("SELECT sequence, appended_us FROM entries WHERE segment = $1 AND id = $2 AND log = $3")
        .bind(segment).bind(id.to_vec()).bind(log).fetch_optional(&mut **c).await)
}

/// Like [`by_id`], for several ids and segments at once. PostgreSQL only.
pub async fn by_ids(conn: &mut Conn<'_>, segments: &[i64], ids: Vec<Vec<u8>>) -> Read<Vec<(i64, Vec<u8>, i64, i64)>> {
    let Backend::Postgres(c) = conn else { return Ok(Vec::new()) };
    sqlx::query_as("SELECT log, id, sequence, appended_us FROM entries WHERE segment = ANY($1) AND id = ANY($2)")
        .bind(segments.to_vec())
        .bind(ids)
        .fetch_all(&mut **c)
        .await
}

/// Locks the making of logs until the end of the transaction. Waits for other transactions that hold the lock. PostgreSQL only.
pub async fn lock_making(conn: &mut Conn<'_>) -> Read<()> {
    if let Backend::Postgres(c) = conn {
        sqlx::query("SELECT pg_advisory_xact_lock(7239847301)").execute(&mut **c).await?;
    }
    Ok(())
}

/// The largest number of a log, 0 when there is none.
pub async fn newest_number(conn: &mut Conn<'_>) -> Read<i64> {
    on!(conn, c => sqlx::query_scalar("SELECT COALESCE(MAX(number), 0) FROM logs").fetch_one(&mut **c).await)
}

/// The log with this id.
pub async fn by_log_id(conn: &mut Conn<'_>, id: &[u8; 16]) -> Read<Option<i64>> {
    on!(conn, c => sqlx::query_scalar("SELECT number FROM logs WHERE log_id = $1").bind(id.to_vec()).fetch_optional(&mut **c).await)
}

/// The segments, from old to new, and when each began.
pub async fn segments(conn: &mut Conn<'_>) -> Read<Vec<(i64, i64)>> {
    on!(conn, c => sqlx::query_as("SELECT segment, began_at FROM segments ORDER BY segment").fetch_all(&mut **c).await)
}

/// Logs and ids of a segment.
pub async fn ids_of(conn: &mut Conn<'_>, segment: i64) -> Read<Vec<(i64, Vec<u8>)>> {
    let query = "SELECT log, id FROM entries WHERE segment = $1 AND id IS NOT NULL";
    on!(conn, c => sqlx::query_as(query).bind(segment).fetch_all(&mut **c).await)
}

/// Intents without an outcome: log and operation.
pub async fn open_intents(conn: &mut Conn<'_>) -> Read<Vec<(i64, Vec<u8>)>> {
    on!(conn, c => sqlx::query_as("SELECT log, operation FROM intents").fetch_all(&mut **c).await)
}

/// How many entries there are. SQLite only, since its row numbers have no holes.
pub async fn newest_row(conn: &mut Conn<'_>) -> Read<i64> {
    let Backend::Sqlite(c) = conn else { return Ok(0) };
    sqlx::query_scalar("SELECT COALESCE(MAX(rowid), 0) FROM entries").fetch_one(&mut **c).await
}

/// The newest log of a group, unless the group was erased.
pub async fn present(conn: &mut Conn<'_>, owner: &str) -> Read<Option<i64>> {
    const OF: &str = "SELECT number FROM logs WHERE group_id = $1 AND state <> 'erased'";
    on!(conn, c => sqlx::query_scalar(OF).bind(owner.to_owned()).fetch_optional(&mut **c).await)
}
