use sqlx::postgres::PgDatabaseError;

/// An error of work in a transaction: it may be the database's.
pub trait Failure: From<sqlx::Error> {
    /// The database's error, if it is one.
    fn database(&self) -> Option<&sqlx::Error>;
}

impl Failure for sqlx::Error {
    fn database(&self) -> Option<&sqlx::Error> {
        Some(self)
    }
}

/// Whether a transaction failed because of another one, and may do what it wants if it is tried again.
pub fn is_conflict(error: &sqlx::Error) -> bool {
    // serialization_failure, deadlock_detected
    matches!(code(error), Some("40001" | "40P01"))
}

/// Whether the database did not do what it was asked for reasons that may pass: it is not there, stops, starts, has no connection left, or
/// others were in the way for too long.
pub fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_) => true,
        // classes 08 connection exception, 53 insufficient resources, 57P operator intervention; 25006: it has become a replica
        sqlx::Error::Database(_) => {
            is_conflict(error)
                || code(error).is_some_and(|code| code == "25006" || ["08", "53", "57P"].iter().any(|class| code.starts_with(class)))
        }
        _ => false,
    }
}

/// PostgreSQL's SQLSTATE.
fn code(error: &sqlx::Error) -> Option<&str> {
    Some(error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?.code())
}
