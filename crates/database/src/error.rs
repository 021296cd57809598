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

/// Whether a transaction failed because of another one, and may do what it wants if it is tried again.
pub fn is_conflict(error: &sqlx::Error) -> bool {
    Class::of(error) == Class::Conflict
}

/// Whether the database did not do what it was asked for reasons that may pass.
pub fn is_unavailable(error: &sqlx::Error) -> bool {
    Class::of(error).may_pass()
}
