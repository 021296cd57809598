//! Figures of commitments that are repeated where constants of Rust cannot be read.

use tsujiban_core::commitments::HISTORY;

const MIGRATIONS: [&str; 4] = [
    include_str!("../../migrations/sqlite/0001_history.sql"),
    include_str!("../../migrations/sqlite/0003_damage.sql"),
    include_str!("../../migrations/postgres/0001_history.sql"),
    include_str!("../../migrations/postgres/0003_damage.sql"),
];

/// C5: the databases let go of a day's entries after the end of the last day on which they are promised, neither before nor never.
#[test]
fn the_databases_guard_the_promised_days() {
    let promised = HISTORY.as_secs() / (24 * 60 * 60);
    let mut guards = 0;
    for text in MIGRATIONS {
        let days = text.split("day + ").skip(1).map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap());
        for days in days {
            assert_eq!(
                days.parse(),
                Ok(promised + 1),
                "a guard of the history's tables; a new migration has to put another one in its place"
            );
            guards += 1;
        }
    }
    assert!(guards >= 7, "{guards} guards were found");
}

/// C5: nobody can delete a root list as long as an entry that it covers is promised, a month for its repetition included.
#[test]
fn what_lies_in_the_bucket_is_locked_for_longer() {
    let locked = tsujiban_audit::roots::LOCKED.as_secs();
    assert!(locked >= i64::try_from(HISTORY.as_secs()).unwrap() + 30 * 24 * 60 * 60, "{locked} s");
}
