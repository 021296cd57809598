//! What happens to the finalizer of a Site. Pure.

/// How far the deletion of a Site has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Existing,
    /// It is being deleted, by itself, with its namespace or with its kind, and the history has not acknowledged that yet.
    Deleted,
    /// It is being deleted, and the history has acknowledged that.
    DeletionRecorded,
}

/// Everything that the decision depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    /// Whether there is an operation history, and the Site is in a group's namespace.
    pub is_recorded_here: bool,
    /// Whether the Site has our finalizer.
    pub has_finalizer: bool,
    pub life: Life,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Add the finalizer.
    AddFinalizer,
    /// Say in the status what is recorded.
    WriteStatus,
    /// Keep the finalizer until the deletion is recorded, and say so in the status.
    Wait,
    /// Remove the finalizer.
    RemoveFinalizer,
    /// The Site is being deleted and does not wait for the operator.
    Nothing,
}

/// Decides. Without a history, no Site waits to be recorded.
pub fn decide(evidence: Evidence) -> Decision {
    match (evidence.is_recorded_here, evidence.has_finalizer, evidence.life) {
        (true, false, Life::Existing) => Decision::AddFinalizer,
        (true, true, Life::Existing) | (false, false, Life::Existing) => Decision::WriteStatus,
        (true, true, Life::Deleted) => Decision::Wait,
        (true, true, Life::DeletionRecorded) | (false, true, _) => Decision::RemoveFinalizer,
        (_, false, Life::Deleted | Life::DeletionRecorded) => Decision::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C5: no Site goes unrecorded while there is a history, and none waits where there is none.
    #[test]
    fn every_combination() {
        use Decision::{AddFinalizer, Nothing, RemoveFinalizer, Wait, WriteStatus};
        // recorded here, has the finalizer
        let table = [
            (true, false, Life::Existing, AddFinalizer),
            (true, false, Life::Deleted, Nothing),
            (true, false, Life::DeletionRecorded, Nothing),
            (true, true, Life::Existing, WriteStatus),
            (true, true, Life::Deleted, Wait),
            (true, true, Life::DeletionRecorded, RemoveFinalizer),
            (false, false, Life::Existing, WriteStatus),
            (false, false, Life::Deleted, Nothing),
            (false, false, Life::DeletionRecorded, Nothing),
            (false, true, Life::Existing, RemoveFinalizer),
            (false, true, Life::Deleted, RemoveFinalizer),
            (false, true, Life::DeletionRecorded, RemoveFinalizer),
        ];
        for (is_recorded_here, has_finalizer, life, decision) in table {
            let evidence = Evidence { is_recorded_here, has_finalizer, life };
            assert_eq!(decide(evidence), decision, "{evidence:?}");
        }
    }
}
