//! Which key signs from now on.

/// Which of the available keys has signed the newest root list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signer {
    /// There is no list.
    NoLists,
    /// None of the available keys has signed a list.
    Nobody,
    Database,
    /// The copy in the bucket at this position.
    Bucket(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    Database,
    Bucket(usize),
    /// This is the first start.
    New,
    /// There are lists, but no key that signed one: with another key they would be foreign.
    Refuse,
}

pub(super) fn choose(has_database: bool, has_bucket: bool, signer: Signer) -> Choice {
    match signer {
        Signer::Database => Choice::Database,
        Signer::Bucket(at) => Choice::Bucket(at),
        // the lists are not of this database: the comparison reports it, and the history stays readable
        Signer::Nobody | Signer::NoLists if has_database => Choice::Database,
        Signer::Nobody => Choice::Refuse,
        Signer::NoLists if has_bucket => Choice::Bucket(0),
        Signer::NoLists => Choice::New,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_made_at_the_first_start_only() {
        for (has_database, has_bucket, signer, wanted) in [
            (false, false, Signer::NoLists, Choice::New),
            (false, true, Signer::NoLists, Choice::Bucket(0)),
            (true, false, Signer::NoLists, Choice::Database),
            (true, true, Signer::NoLists, Choice::Database),
            (false, false, Signer::Nobody, Choice::Refuse),
            (false, true, Signer::Nobody, Choice::Refuse),
            (true, true, Signer::Nobody, Choice::Database),
            (true, true, Signer::Database, Choice::Database),
            (true, true, Signer::Bucket(1), Choice::Bucket(1)),
            (false, true, Signer::Bucket(0), Choice::Bucket(0)),
        ] {
            assert_eq!(choose(has_database, has_bucket, signer), wanted, "{has_database} {has_bucket} {signer:?}");
        }
    }
}
