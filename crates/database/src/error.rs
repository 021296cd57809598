use crate::Class;

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

/// Whether a transaction failed because of a concurrent one, so that a retry may succeed.
pub fn is_conflict(error: &sqlx::Error) -> bool {
    Class::of(error) == Class::Conflict
}

/// Whether the database failed for a reason that may pass.
pub fn is_unavailable(error: &sqlx::Error) -> bool {
    Class::of(error).may_pass()
}
