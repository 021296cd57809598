//! Condition ClockSynchronised: whether the operation history's times are reliable (C20). It does not affect condition Ready: operations
//! are recorded with an inaccurate clock, too, and a group's owner can do nothing about it.

use crate::condition::Verdict;

/// The verdict, if there is one: until the audit service has reported, the existing condition stays.
pub fn verdict(has_history: bool, was_said: bool, synchronised: Option<bool>) -> Option<Verdict> {
    match (has_history, synchronised) {
        (true, Some(true)) => {
            Some(Verdict::holds("Synchronised", "the clock by which the operation history is written follows a precise source"))
        }
        // no figure: a message with one would keep changing, and be written to every Tenant again and again
        (true, Some(false)) => Some(Verdict::fails(
            "NotSynchronised",
            "the clock by which the operation history is written follows no precise source, so its times may be off; staff set up time \
             synchronisation (NTP or PTP) on the nodes of the audit service",
        )),
        (true, None) => None,
        (false, _) => was_said.then(|| Verdict::unknown("NoHistory", "there is no operation history")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_the_audit_service_reports_and_stays_while_that_is_silent() {
        let reason = |history, was_said, synchronised| verdict(history, was_said, synchronised).map(|verdict| verdict.reason);
        assert_eq!(reason(true, false, Some(true)).as_deref(), Some("Synchronised"));
        assert_eq!(reason(true, true, Some(false)).as_deref(), Some("NotSynchronised"));
        assert_eq!(reason(true, true, None), None);
        assert_eq!(reason(false, true, None).as_deref(), Some("NoHistory"));
        assert_eq!(reason(false, false, None), None, "nobody asks about a history that never was");
    }
}
