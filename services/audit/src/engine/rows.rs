//! The rows that a batch writes, all in one transaction.

use sqlx::{PgConnection, SqliteConnection};
use tsujiban_database::{Backend, on};
use tsujiban_history::merkle::{Hash, Node};
use tsujiban_history::tile::HEIGHT;

use super::statement::{Statement, portions};

/// A connection of either database.
pub type Conn<'a> = Backend<&'a mut SqliteConnection, &'a mut PgConnection>;

/// The rows that a batch adds.
#[derive(Debug, Default)]
pub struct Rows {
    pub logs: Vec<LogRow>,
    pub segments: Vec<(i64, i64)>,
    pub keys: Vec<KeyRow>,
    pub entries: Vec<EntryRow>,
    /// Entries that are restored. Existing rows stay as they are: a log may have lost its head but not its rows.
    pub restored: Vec<EntryRow>,
    pub heads: Vec<HeadRow>,
    /// Roots of whole subtrees that tiles store, above the leaves.
    pub nodes: Vec<(i64, Node, Hash)>,
    pub restored_nodes: Vec<(i64, Node, Hash)>,
    /// Intents that began, and operations that ended.
    pub begun: Vec<(i64, [u8; 16], i64)>,
    pub ended: Vec<(i64, [u8; 16])>,
    /// Days whose keys and bodies are destroyed: log, day, first and last sequence.
    pub gone: Vec<GoneDay>,
}

#[derive(Debug)]
pub struct LogRow {
    pub number: i64,
    pub log_id: [u8; 16],
    pub group: String,
    pub incarnation: Option<String>,
    pub made_at: i64,
    /// Proves that the log is this group's.
    pub seal: Option<[u8; 32]>,
}

#[derive(Debug, Clone)]
pub struct KeyRow {
    pub day: i64,
    pub log: i64,
    pub epoch: String,
    pub key_id: [u8; 16],
    pub first: i64,
    pub wrapped: Vec<u8>,
    pub superseded_at: Option<i64>,
}

#[derive(Debug)]
pub struct EntryRow {
    pub log: i64,
    pub sequence: i64,
    pub day: i64,
    pub time_us: i64,
    pub appended_us: i64,
    pub segment: i64,
    pub id: Option<[u8; 16]>,
    pub leaf: Vec<u8>,
    pub sealed: Option<Vec<u8>>,
}

#[derive(Debug)]
pub struct HeadRow {
    pub log: i64,
    pub size: i64,
    pub peaks: Vec<u8>,
    pub day: i64,
}

/// A log's day that has expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoneDay {
    pub log: i64,
    pub day: i64,
    pub first: i64,
    pub last: i64,
}

static LOGS: Statement = Statement::new("INSERT INTO logs (state, number, log_id, group_id, incarnation, made_at) VALUES", 6, "");
static SEALS: Statement = Statement::new("INSERT INTO log_seals (log, seal) VALUES", 2, "ON CONFLICT DO NOTHING");
static SEGMENTS: Statement = Statement::new("INSERT INTO segments (segment, began_at) VALUES", 2, "ON CONFLICT DO NOTHING");
static KEYS: Statement =
    Statement::new("INSERT INTO day_keys (day, log, epoch, key_id, first, wrapped, superseded_at) VALUES", 7, "ON CONFLICT DO NOTHING");
static ENTRIES: Statement =
    Statement::new("INSERT INTO entries (log, sequence, day, time_us, appended_us, segment, id, leaf, sealed) VALUES", 9, "");
static RESTORED: Statement = Statement::new(
    "INSERT INTO entries (log, sequence, day, time_us, appended_us, segment, id, leaf, sealed) VALUES",
    9,
    "ON CONFLICT DO NOTHING",
);
static HEADS: Statement = Statement::new(
    "INSERT INTO heads (log, size, peaks, day) VALUES",
    4,
    "ON CONFLICT (log) DO UPDATE SET size = excluded.size, peaks = excluded.peaks, day = excluded.day",
);
static NODES: Statement = Statement::new("INSERT INTO nodes (log, level, number, hash) VALUES", 4, "");
static RESTORED_NODES: Statement = Statement::new("INSERT INTO nodes (log, level, number, hash) VALUES", 4, "ON CONFLICT DO NOTHING");
static BEGUN: Statement = Statement::new("INSERT INTO intents (log, operation, sequence) VALUES", 3, "ON CONFLICT DO NOTHING");
static ENDED: Statement = Statement::new("DELETE FROM intents WHERE (log, operation) IN (VALUES", 2, ")");

/// Writes rows in portions: `put!(conn, STATEMENT, rows, |query, row| query.bind(row.a))`.
macro_rules! put {
    ($conn:expr, $statement:expr, $rows:expr, |$query:ident, $row:pat_param| $bound:expr) => {{
        let mut rows = $rows.into_iter();
        for portion in portions(rows.len()) {
            let text = $statement.text($conn, portion);
            on!(&mut *$conn, c => {
                let mut $query = sqlx::query(text);
                for $row in rows.by_ref().take(portion) {
                    $query = $bound;
                }
                $query.execute(&mut **c).await?;
            });
        }
    }};
}

impl Rows {
    /// Writes everything. The transaction is the caller's.
    pub async fn write(self, conn: &mut Conn<'_>) -> Result<(), sqlx::Error> {
        let seals: Vec<(i64, [u8; 32])> = self.logs.iter().filter_map(|row| Some((row.number, row.seal?))).collect();
        put!(conn, SEALS, seals, |q, (log, seal)| q.bind(log).bind(seal.to_vec()));
        put!(conn, LOGS, self.logs, |q, row| q
            .bind("living")
            .bind(row.number)
            .bind(row.log_id.to_vec())
            .bind(row.group)
            .bind(row.incarnation)
            .bind(row.made_at));
        put!(conn, SEGMENTS, self.segments, |q, (segment, began)| q.bind(segment).bind(began));
        put!(conn, KEYS, self.keys, |q, row| q
            .bind(row.day)
            .bind(row.log)
            .bind(row.epoch)
            .bind(row.key_id.to_vec())
            .bind(row.first)
            .bind(row.wrapped)
            .bind(row.superseded_at));
        put!(conn, HEADS, self.heads, |q, row| q.bind(row.log).bind(row.size).bind(row.peaks).bind(row.day));
        for (statement, entries) in [(&ENTRIES, self.entries), (&RESTORED, self.restored)] {
            put!(conn, statement, entries, |q, row| q
                .bind(row.log)
                .bind(row.sequence)
                .bind(row.day)
                .bind(row.time_us)
                .bind(row.appended_us)
                .bind(row.segment)
                .bind(row.id.map(|id| id.to_vec()))
                .bind(row.leaf)
                .bind(row.sealed));
        }
        for (statement, nodes) in [(&NODES, self.nodes), (&RESTORED_NODES, self.restored_nodes)] {
            put!(conn, statement, nodes, |q, (log, node, hash)| q
                .bind(log)
                .bind(i64::from(node.level / HEIGHT))
                .bind(node.index.cast_signed())
                .bind(hash.as_bytes().to_vec()));
        }
        put!(conn, BEGUN, self.begun, |q, (log, operation, sequence)| q.bind(log).bind(operation.to_vec()).bind(sequence));
        put!(conn, ENDED, self.ended, |q, (log, operation)| q.bind(log).bind(operation.to_vec()));
        for gone in self.gone {
            gone.destroy(conn).await?;
        }
        Ok(())
    }
}

impl GoneDay {
    /// Destroys the day's keys and bodies. The database refuses it for a day that has not expired by its own clock.
    async fn destroy(self, conn: &mut Conn<'_>) -> Result<(), sqlx::Error> {
        match conn {
            Backend::Sqlite(c) => {
                sqlx::query("DELETE FROM day_keys WHERE day = ? AND log = ?").bind(self.day).bind(self.log).execute(&mut **c).await?;
                sqlx::query("UPDATE entries SET sealed = NULL WHERE log = ? AND sequence >= ? AND sequence <= ? AND day = ?")
                    .bind(self.log)
                    .bind(self.first)
                    .bind(self.last)
                    .bind(self.day)
                    .execute(&mut **c)
                    .await?;
                sqlx::query("UPDATE healed_entries SET sealed = NULL WHERE log = ? AND day = ? AND sealed IS NOT NULL")
                    .bind(self.log)
                    .bind(self.day)
                    .execute(&mut **c)
                    .await?;
            }
            Backend::Postgres(c) => {
                sqlx::query("SELECT destroy_expired_day($1, $2)").bind(self.log).bind(self.day).execute(&mut **c).await?;
                sqlx::query("SELECT destroy_healed_day($1, $2)").bind(self.log).bind(self.day).execute(&mut **c).await?;
            }
        }
        Ok(())
    }
}
