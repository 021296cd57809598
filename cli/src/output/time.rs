//! Points in time and amounts, as people read them.

use jiff::Timestamp;
use tsujiban_core::history::shown;

/// A time in JST, as RFC 3339 to the second. Empty when there is none.
pub fn jst(time: Option<Timestamp>) -> String {
    time.map(shown).unwrap_or_default()
}

/// An amount of bytes with at most one decimal, in steps of 1,000.
pub fn bytes(amount: u64) -> String {
    let (mut whole, mut tenths, mut unit) = (amount, 0, "B");
    for larger in ["kB", "MB", "GB", "TB"] {
        if whole < 1000 {
            break;
        }
        (tenths, whole, unit) = (whole % 1000 / 100, whole / 1000, larger);
    }
    if unit == "B" { format!("{whole} B") } else { format!("{whole}.{tenths} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_japan() {
        assert_eq!(jst(Some("2026-11-22T15:04:05.678Z".parse().unwrap())), "2026-11-23T00:04:05+09:00");
        assert_eq!(jst(None), "");
    }

    #[test]
    fn amounts_are_short() {
        let shown = [0, 999, 1000, 12_345, 4_900_000, u64::MAX].map(bytes);
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "12.3 kB", "4.9 MB", "18446744.0 TB"]);
    }
}
