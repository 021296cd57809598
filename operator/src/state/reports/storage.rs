//! What a service says of its storage: whether it can write, and whether what it holds is as it was written.

use tsujiban_proto::lifecycle::v1 as wire;

/// Whether a service can store what it is asked to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writing {
    Able,
    /// The reason, and what to do.
    Unable(String),
}

impl Writing {
    pub fn from_wire(report: &wire::Writing) -> Self {
        if report.able { Self::Able } else { Self::Unable(report.reason.clone()) }
    }
}

/// What a scrub has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Integrity {
    /// No scrub has completed yet, and nothing damaged was found so far.
    Unchecked,
    Intact,
    Damaged {
        /// The names of some damaged items.
        names: Vec<String>,
        /// How many items are damaged.
        count: u64,
    },
}

impl Integrity {
    /// The time of the check is left out: it changes with each scrub, and would be written to every Tenant each time.
    pub fn from_wire(report: &wire::Integrity) -> Self {
        match report.state() {
            wire::IntegrityState::Damaged => {
                let names = report.damaged.clone();
                let count = report.damaged_count.max(u64::try_from(names.len()).unwrap_or(u64::MAX));
                Self::Damaged { names, count }
            }
            wire::IntegrityState::Intact if report.checked_at.is_some() => Self::Intact,
            wire::IntegrityState::Intact | wire::IntegrityState::Unspecified => Self::Unchecked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Intact is only what a whole scrub has seen; damaged is also what was found before the scrub came to its end.
    #[test]
    fn nothing_is_intact_before_all_of_it_was_read() {
        let checked_at = Some(tsujiban_proto::time::to_wire(jiff::Timestamp::UNIX_EPOCH));
        let integrity = |state: wire::IntegrityState, checked_at, damaged: &[&str], damaged_count| {
            let damaged = damaged.iter().map(|name| (*name).to_owned()).collect();
            Integrity::from_wire(&wire::Integrity { state: state.into(), damaged, damaged_count, checked_at })
        };
        let unspecified = wire::IntegrityState::Unspecified;
        assert_eq!(integrity(unspecified, None, &[], 0), Integrity::Unchecked);
        assert_eq!(integrity(unspecified, checked_at, &[], 0), Integrity::Unchecked);
        assert_eq!(integrity(wire::IntegrityState::Intact, None, &[], 0), Integrity::Unchecked);
        assert_eq!(integrity(wire::IntegrityState::Intact, checked_at, &[], 0), Integrity::Intact);
        let damaged = |count| Integrity::Damaged { names: vec!["a".into()], count };
        assert_eq!(integrity(wire::IntegrityState::Damaged, None, &["a"], 12), damaged(12));
        assert_eq!(integrity(wire::IntegrityState::Damaged, checked_at, &["a"], 0), damaged(1));
    }

    #[test]
    fn who_cannot_write_says_why() {
        let integrity = |able, reason: &str| Writing::from_wire(&wire::Writing { able, reason: reason.into(), since: None });
        assert_eq!(integrity(true, ""), Writing::Able);
        assert_eq!(integrity(false, "the disk is full"), Writing::Unable("the disk is full".into()));
    }
}
