//! Classifies errors of the database, so that callers know whether to try again, to split the batch, or to report damage.

use std::io;

use sqlx::postgres::PgDatabaseError;
use sqlx::sqlite::SqliteError;

use crate::files::FileReplaced;

/// What kind of failure an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Another transaction conflicted. A retry may succeed at once.
    Conflict,
    /// The disk is full. It works again when there is space.
    Full,
    /// The database failed for a reason that may pass: it is unreachable, stops, starts, cannot read or write its disk, or has no
    /// connection left.
    Unavailable,
    /// The file of the database was removed or replaced while it was open.
    Replaced,
    /// What the database holds is not what was written.
    Damaged,
    /// The database works, and refuses what it was given: a constraint, a trigger, a value that does not fit.
    Rejected,
    /// Anything else, such as a missing table or right.
    Other,
}

impl Class {
    /// Classifies an error of either database.
    pub fn of(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Io(io) if io.get_ref().and_then(|inner| inner.downcast_ref::<FileReplaced>()).is_some() => Self::Replaced,
            sqlx::Error::Io(io) if matches!(io.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => Self::Full,
            sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Io(_)
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed
            // a connection whose transaction failed; it is replaced by the next one
            | sqlx::Error::InvalidSavePointStatement => Self::Unavailable,
            sqlx::Error::Encode(_) => Self::Rejected,
            sqlx::Error::Database(database) => {
                if let Some(postgres) = database.try_downcast_ref::<PgDatabaseError>() {
                    return of_postgres(postgres.code());
                }
                let is_sqlite = database.try_downcast_ref::<SqliteError>().is_some();
                let code = database.code().filter(|_| is_sqlite).and_then(|code| code.parse().ok());
                code.map_or(Self::Other, of_sqlite)
            }
            _ => Self::Other,
        }
    }

    /// Whether the same request may succeed later.
    pub const fn may_pass(self) -> bool {
        matches!(self, Self::Conflict | Self::Full | Self::Unavailable)
    }

    /// Whether the database as a whole fails, rather than this request.
    pub const fn is_of_the_database(self) -> bool {
        matches!(self, Self::Full | Self::Unavailable | Self::Replaced | Self::Damaged)
    }

    /// What people can do about a database that cannot be written. `damage_advice` is the advice for damage, which differs from service to
    /// service.
    pub const fn advice(self, damage_advice: &'static str) -> &'static str {
        match self {
            Self::Full => "its disk is full: make the volume larger or free space on it; the service goes on by itself",
            Self::Conflict | Self::Unavailable => {
                "it cannot be reached, read or written: look at the volume or at PostgreSQL; it is tried again"
            }
            Self::Replaced => {
                "its file was removed or replaced while the service ran: bring the newest file back with its -wal, if there is one, and restart the pod"
            }
            Self::Damaged => damage_advice,
            Self::Rejected | Self::Other => "it refuses what the service writes: look at the service's log",
        }
    }
}

/// Why a database cannot be written, and what to do, for people.
pub fn why_unwritable(error: &sqlx::Error, damage_advice: &'static str) -> String {
    format!("the database cannot be written ({error}): {}", Class::of(error).advice(damage_advice))
}

/// By SQLite's result code, which may be an extended one: its low byte is the primary code (<https://www.sqlite.org/rescode.html>).
fn of_sqlite(code: i32) -> Class {
    match code {
        // BUSY_SNAPSHOT: another connection wrote since this one began to read
        517 => Class::Conflict,
        // IOERR_DATA and IOERR_CORRUPTFS: the disk answered, and not with what was written
        8202 | 8458 => Class::Damaged,
        _ => match code & 0xff {
            // CORRUPT, NOTADB
            11 | 26 => Class::Damaged,
            // FULL
            13 => Class::Full,
            // BUSY, LOCKED, NOMEM, READONLY, INTERRUPT, IOERR (6410 among them: no folder for temporary files), CANTOPEN, PROTOCOL
            5 | 6 | 7 | 8 | 9 | 10 | 14 | 15 => Class::Unavailable,
            // TOOBIG, CONSTRAINT (triggers that refuse among them), MISMATCH, RANGE
            18 | 19 | 20 | 25 => Class::Rejected,
            _ => Class::Other,
        },
    }
}

/// By PostgreSQL's SQLSTATE (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
fn of_postgres(code: &str) -> Class {
    match code {
        // serialization_failure, deadlock_detected
        "40001" | "40P01" => Class::Conflict,
        // disk_full
        "53100" => Class::Full,
        // data_corrupted, index_corrupted
        "XX001" | "XX002" => Class::Damaged,
        // read_only_sql_transaction: it has become a replica
        "25006" => Class::Unavailable,
        // raise_exception: one of our triggers
        "P0001" => Class::Rejected,
        // 57014: a query that was cancelled
        _ if ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class)) => Class::Unavailable,
        // 22 data exception, 23 integrity constraint violation
        _ if ["22", "23"].iter().any(|class| code.starts_with(class)) => Class::Rejected,
        _ => Class::Other,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn codes_of_sqlite() {
        for (code, class) in [
            (1, Class::Other),
            (5, Class::Unavailable),
            (8, Class::Unavailable),
            (10, Class::Unavailable),
            // READONLY_DBMOVED, IOERR_GETTEMPPATH, IOERR_WRITE, CANTOPEN_ISDIR
            (1032, Class::Unavailable),
            (6410, Class::Unavailable),
            (778, Class::Unavailable),
            (526, Class::Unavailable),
            (11, Class::Damaged),
            // CORRUPT_INDEX, NOTADB, IOERR_DATA, IOERR_CORRUPTFS
            (779, Class::Damaged),
            (26, Class::Damaged),
            (8202, Class::Damaged),
            (8458, Class::Damaged),
            (13, Class::Full),
            (517, Class::Conflict),
            // CONSTRAINT_UNIQUE, CONSTRAINT_TRIGGER
            (2067, Class::Rejected),
            (1811, Class::Rejected),
            (18, Class::Rejected),
        ] {
            assert_eq!(of_sqlite(code), class, "{code}");
        }
    }

    #[test]
    fn codes_of_postgresql() {
        for (code, class) in [
            ("40001", Class::Conflict),
            ("40P01", Class::Conflict),
            ("53100", Class::Full),
            ("53300", Class::Unavailable),
            ("57P01", Class::Unavailable),
            ("58030", Class::Unavailable),
            ("08006", Class::Unavailable),
            ("25006", Class::Unavailable),
            ("XX001", Class::Damaged),
            ("XX002", Class::Damaged),
            ("XX000", Class::Other),
            ("23505", Class::Rejected),
            ("22021", Class::Rejected),
            ("P0001", Class::Rejected),
            ("42501", Class::Other),
        ] {
            assert_eq!(of_postgres(code), class, "{code}");
        }
    }

    #[test]
    fn errors_without_a_code() {
        let replaced = sqlx::Error::Io(io::Error::other(FileReplaced { path: PathBuf::from("a.db") }));
        assert_eq!(Class::of(&replaced), Class::Replaced);
        assert_eq!(Class::of(&sqlx::Error::Io(io::ErrorKind::ConnectionRefused.into())), Class::Unavailable);
        assert_eq!(Class::of(&sqlx::Error::Io(io::ErrorKind::StorageFull.into())), Class::Full);
        assert_eq!(Class::of(&sqlx::Error::InvalidSavePointStatement), Class::Unavailable);
        assert_eq!(Class::of(&sqlx::Error::RowNotFound), Class::Other);
        assert!(Class::Full.may_pass() && !Class::Damaged.may_pass() && !Class::Replaced.may_pass());
    }
}
