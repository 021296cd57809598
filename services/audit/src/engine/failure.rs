//! What to do with a batch that was not written. Pure.

use tsujiban_database::Class;

use super::EngineError;

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Answer all requests with the error.
    Refuse,
    /// One of the requests may be the cause: try the first so many without the others, and then the others.
    Split(usize),
}

/// Halves a batch that failed because of its content, until the request that is the cause is alone and is refused alone. Does not split
/// when the database itself failed: half of the batch would fail as well.
pub fn next(error: &EngineError, requests: usize) -> Next {
    let is_of_a_request = match error {
        EngineError::Database(error) => Class::of(error) == Class::Rejected,
        EngineError::Key(_)
        | EngineError::TooLarge(_)
        | EngineError::Damaged(_)
        | EngineError::OtherOwner(_)
        | EngineError::LogRefused { .. }
        | EngineError::Unclaimed
        | EngineError::NoLeaf(_) => true,
        EngineError::ReadOnly(_) | EngineError::Overloaded | EngineError::Stopped | EngineError::Start(_) => false,
    };
    if is_of_a_request && requests > 1 { Next::Split(requests / 2) } else { Next::Refuse }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn only_what_a_request_may_have_caused_is_split() {
        let database = |error| EngineError::Database(Arc::new(error));
        let (damaged, away) = (EngineError::Damaged(7), || database(sqlx::Error::Io(io::ErrorKind::ConnectionRefused.into())));
        for (error, requests, wanted) in [
            (damaged.clone(), 9, Next::Split(4)),
            (damaged.clone(), 2, Next::Split(1)),
            (damaged, 1, Next::Refuse),
            (database(sqlx::Error::Encode("too long".into())), 4096, Next::Split(2048)),
            (away(), 4096, Next::Refuse),
            (database(sqlx::Error::PoolTimedOut), 2, Next::Refuse),
            (database(sqlx::Error::Io(io::ErrorKind::StorageFull.into())), 2, Next::Refuse),
            // a missing table is missing for all
            (database(sqlx::Error::RowNotFound), 2, Next::Refuse),
            (EngineError::Stopped, 2, Next::Refuse),
            (EngineError::ReadOnly("older".into()), 2, Next::Refuse),
        ] {
            assert_eq!(next(&error, requests), wanted, "{error} {requests}");
        }
    }
}
