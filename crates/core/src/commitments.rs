//! Every figure that is promised to customers, in one table.
//!
//! Code names the constants; documents and tests iterate over [`TABLE`]. To change a promise, change it here. What cannot read these constants repeats a
//! figure, and a test compares it: the history's databases guard C5 by their own clocks (`services/audit/migrations`), so another figure for C5 needs a new
//! migration too (`services/audit/tests/it/figures.rs`).

use std::time::Duration;

use crate::workload::Service;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// C1: how many consecutive failed logins lock an account.
pub const LOGIN_FAILURES: u32 = 3;
/// C1: how long a locked account stays locked.
pub const LOGIN_LOCKOUT: Duration = Duration::from_secs(30 * MINUTE);
/// C2: how long a session lives without an operation.
pub const SESSION_IDLE: Duration = Duration::from_secs(30 * MINUTE);
/// C5: how long an operation stays readable, counted in JST days.
pub const HISTORY: Duration = Duration::from_secs(365 * DAY);
/// C6: how long after the last login the first reminder goes out.
pub const FIRST_REMINDER: Duration = Duration::from_secs(180 * DAY);
/// C6: the time between later reminders.
pub const NEXT_REMINDER: Duration = Duration::from_secs(90 * DAY);
/// C15, C19: how far ahead a planned outage is announced.
pub const OUTAGE_NOTICE: Duration = Duration::from_secs(14 * DAY);
/// C18: how soon after its detection a failure is announced.
pub const FAILURE_NOTICE: Duration = Duration::from_secs(HOUR);
/// C19: the availability promised to Prime groups, in thousandths.
pub const SLO_PER_MILLE: u32 = 995;
/// C23: how far back snapshots are always there; also how long the recovery backup area keeps what was erased.
pub const SNAPSHOTS: Duration = Duration::from_secs(35 * DAY);
/// C24, table 1: the limit for UTM security logs.
pub const UTM_LOG: Duration = Duration::from_secs(90 * DAY);
/// C24, table 1: the limit for alarms and tasks of Free groups.
pub const ALARMS_FREE: Duration = Duration::from_secs(60 * DAY);
/// C24, table 1: the limit for alarms and tasks of Prime groups.
pub const ALARMS_PRIME: Duration = Duration::from_secs(365 * DAY);

/// The part of the system that keeps a commitment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Audit,
    Auth,
    Backup,
    Fleet,
    Notification,
    Slo,
}

impl Part {
    /// The name of the service that is, or will be, this part.
    const fn name(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Auth => "auth",
            Self::Backup => "backup",
            Self::Fleet => "fleet",
            Self::Notification => "notification",
            Self::Slo => "slo",
        }
    }

    /// Whether this version has the service: a row of this name. From then on each figure of the part needs a test under `/// Cn: ...`, or
    /// the build fails.
    pub fn exists(self) -> bool {
        Service::of_name(self.name()).is_some()
    }
}

/// What a figure measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    Count(u32),
    Lasts(Duration),
    PerMille(u32),
}

/// One promised figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commitment {
    /// The id under which it is published, `C1` to `C28`.
    pub id: &'static str,
    pub promise: &'static str,
    pub figure: Figure,
    pub kept_by: Part,
}

const fn row(id: &'static str, promise: &'static str, figure: Figure, kept_by: Part) -> Commitment {
    Commitment { id, promise, figure, kept_by }
}

/// All figures, in the order of their ids.
pub const TABLE: &[Commitment] = &[
    row("C1", "failed logins that lock an account", Figure::Count(LOGIN_FAILURES), Part::Auth),
    row("C1", "lock-out", Figure::Lasts(LOGIN_LOCKOUT), Part::Auth),
    row("C2", "idle time that ends a session", Figure::Lasts(SESSION_IDLE), Part::Auth),
    row("C5", "operation history", Figure::Lasts(HISTORY), Part::Audit),
    row("C6", "first reminder to log in", Figure::Lasts(FIRST_REMINDER), Part::Auth),
    row("C6", "between later reminders", Figure::Lasts(NEXT_REMINDER), Part::Auth),
    row("C15", "notice of a planned outage", Figure::Lasts(OUTAGE_NOTICE), Part::Notification),
    row("C18", "notice of a failure", Figure::Lasts(FAILURE_NOTICE), Part::Notification),
    row("C19", "availability of Prime", Figure::PerMille(SLO_PER_MILLE), Part::Slo),
    row("C23", "snapshots", Figure::Lasts(SNAPSHOTS), Part::Backup),
    row("C24", "UTM security log", Figure::Lasts(UTM_LOG), Part::Fleet),
    row("C24", "alarms and tasks, Free", Figure::Lasts(ALARMS_FREE), Part::Fleet),
    row("C24", "alarms and tasks, Prime", Figure::Lasts(ALARMS_PRIME), Part::Fleet),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_of_the_published_list_and_in_order() {
        let numbers: Vec<u32> = TABLE.iter().map(|c| c.id.trim_start_matches('C').parse().unwrap()).collect();
        assert!(numbers.iter().all(|n| (1..=28).contains(n)));
        assert!(numbers.is_sorted());
    }

    #[test]
    fn the_published_figures() {
        let days = |d: Duration| d.as_secs() / DAY;
        assert_eq!((LOGIN_FAILURES, LOGIN_LOCKOUT.as_secs(), SESSION_IDLE.as_secs()), (3, 1800, 1800));
        assert_eq!((days(HISTORY), days(SNAPSHOTS), days(OUTAGE_NOTICE)), (365, 35, 14));
        assert_eq!((days(UTM_LOG), days(ALARMS_FREE), days(ALARMS_PRIME)), (90, 60, 365));
        assert_eq!((days(FIRST_REMINDER), days(NEXT_REMINDER), FAILURE_NOTICE.as_secs(), SLO_PER_MILLE), (180, 90, 3600, 995));
    }
}
