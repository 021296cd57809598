//! What happens to the finalizer of a Site. Pure.

/// All that decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    /// Whether there is an operation history, and the Site stands in a group's namespace.
    pub is_recorded_here: bool,
    /// Whether the Site carries our finalizer.
    pub is_held: bool,
    /// Whether the Site is being deleted: by itself, with its namespace, or with its kind.
    pub is_deleted: bool,
    /// Whether the history has acknowledged the deletion.
    pub is_deletion_recorded: bool,
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
    match evidence {
        Evidence { is_recorded_here: true, is_deleted: false, is_held: false, .. } => Decision::Hold,
        Evidence { is_recorded_here: true, is_deleted: true, is_held: true, is_deletion_recorded: false } => Decision::Wait,
        Evidence { is_recorded_here: false, is_held: true, .. } | Evidence { is_deleted: true, is_held: true, .. } => Decision::Release,
        Evidence { is_deleted: false, .. } => Decision::Observe,
        Evidence { is_deleted: true, is_held: false, .. } => Decision::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C5: no Site goes unrecorded while there is a history, and none waits where there is none.
    #[test]
    fn every_combination() {
        use Decision::{Hold, Nothing, Observe, Release, Wait};
        // recorded here, held, deleted, deletion recorded
        let table = [
            (true, false, false, false, Hold),
            (true, false, false, true, Hold),
            (true, false, true, false, Nothing),
            (true, false, true, true, Nothing),
            (true, true, false, false, Observe),
            (true, true, false, true, Observe),
            (true, true, true, false, Wait),
            (true, true, true, true, Release),
            (false, false, false, false, Observe),
            (false, false, false, true, Observe),
            (false, false, true, false, Nothing),
            (false, false, true, true, Nothing),
            (false, true, false, false, Release),
            (false, true, false, true, Release),
            (false, true, true, false, Release),
            (false, true, true, true, Release),
        ];
        for (is_recorded_here, is_held, is_deleted, is_deletion_recorded, decision) in table {
            let evidence = Evidence { is_recorded_here, is_held, is_deleted, is_deletion_recorded };
            assert_eq!(decide(evidence), decision, "{evidence:?}");
        }
    }
}
