//! What happens to the finalizer of a Site. Pure.

/// How far the life of a Site has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Standing,
    /// It is being deleted, by itself, with its namespace or with its kind, and the history has not acknowledged that yet.
    Deleted,
    /// It is being deleted, and the history has acknowledged that.
    DeletionRecorded,
}

/// All that decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    /// Whether there is an operation history, and the Site stands in a group's namespace.
    pub is_recorded_here: bool,
    /// Whether the Site carries our finalizer.
    pub is_held: bool,
    pub life: Life,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Add the finalizer.
    Hold,
    /// Say in the status what is recorded.
    Observe,
    /// Keep the finalizer until the deletion is recorded, and say so in the status.
    Wait,
    /// Remove the finalizer.
    Release,
    /// The Site is being deleted and does not wait for the operator.
    Nothing,
}

/// Decides. No Site waits for a history that is not there.
pub fn decide(evidence: Evidence) -> Decision {
    match (evidence.is_recorded_here, evidence.is_held, evidence.life) {
        (true, false, Life::Standing) => Decision::Hold,
        (true, true, Life::Standing) | (false, false, Life::Standing) => Decision::Observe,
        (true, true, Life::Deleted) => Decision::Wait,
        (true, true, Life::DeletionRecorded) | (false, true, _) => Decision::Release,
        (_, false, Life::Deleted | Life::DeletionRecorded) => Decision::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C5: no Site goes unrecorded while there is a history, and none waits where there is none.
    #[test]
    fn every_combination() {
        use Decision::{Hold, Nothing, Observe, Release, Wait};
        // recorded here, held
        let table = [
            (true, false, Life::Standing, Hold),
            (true, false, Life::Deleted, Nothing),
            (true, false, Life::DeletionRecorded, Nothing),
            (true, true, Life::Standing, Observe),
            (true, true, Life::Deleted, Wait),
            (true, true, Life::DeletionRecorded, Release),
            (false, false, Life::Standing, Observe),
            (false, false, Life::Deleted, Nothing),
            (false, false, Life::DeletionRecorded, Nothing),
            (false, true, Life::Standing, Release),
            (false, true, Life::Deleted, Release),
            (false, true, Life::DeletionRecorded, Release),
        ];
        for (is_recorded_here, is_held, life, decision) in table {
            let evidence = Evidence { is_recorded_here, is_held, life };
            assert_eq!(decide(evidence), decision, "{evidence:?}");
        }
    }
}
