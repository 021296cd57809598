use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::decimal;

/// More ranges than any list has.
const MOST: usize = 1000;

/// Numbers of root lists, as ranges: `6-7,5000`. The text is canonical: each set has exactly one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skipped(Vec<(u64, u64)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("these are not the numbers of lists, in order and each once: such as 6-7,5000")]
pub struct InvalidSkipped;

impl Skipped {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, number: u64) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&number))
    }

    pub fn contains_all(&self, numbers: &RangeInclusive<u64>) -> bool {
        self.0.iter().any(|(first, last)| first <= numbers.start() && numbers.end() <= last)
    }

    pub fn insert(&mut self, number: u64) {
        self.insert_range(number..=number);
    }

    pub fn insert_range(&mut self, range: RangeInclusive<u64>) {
        let (mut first, mut last) = range.into_inner();
        if first > last {
            return;
        }
        // ranges that touch become one
        self.0.retain(|(a, b)| {
            let apart = *b < first.saturating_sub(1) || *a > last.saturating_add(1);
            if !apart {
                (first, last) = (first.min(*a), last.max(*b));
            }
            apart
        });
        let at = self.0.partition_point(|(a, _)| *a < first);
        self.0.insert(at, (first, last));
    }

    pub fn extend(&mut self, others: &Self) {
        for (first, last) in &others.0 {
            self.insert_range(*first..=*last);
        }
    }

    /// The first number after this one that is not skipped.
    pub fn next_after(&self, number: u64) -> u64 {
        let next = number.saturating_add(1);
        self.0.iter().find(|(first, last)| (*first..=*last).contains(&next)).map_or(next, |(_, last)| last.saturating_add(1))
    }

    /// The ranges, in order.
    pub fn ranges(&self) -> impl Iterator<Item = RangeInclusive<u64>> + '_ {
        self.0.iter().map(|(first, last)| *first..=*last)
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (first, last)) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            if first == last { write!(f, "{comma}{first}")? } else { write!(f, "{comma}{first}-{last}")? }
        }
        Ok(())
    }
}

impl FromStr for Skipped {
    type Err = InvalidSkipped;
    fn from_str(text: &str) -> Result<Self, InvalidSkipped> {
        let mut skipped = Self::default();
        for part in text.split(',').take(MOST) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text| decimal::parse(text).filter(|number| *number > 0).ok_or(InvalidSkipped);
            skipped.insert_range(number(first)?..=number(last)?);
        }
        if skipped.to_string() == text { Ok(skipped) } else { Err(InvalidSkipped) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_one_text() {
        let mut skipped = Skipped::default();
        for number in [5000, 7, 6, 9] {
            skipped.insert(number);
        }
        assert_eq!(skipped.to_string(), "6-7,9,5000");
        assert_eq!("6-7,9,5000".parse(), Ok(skipped.clone()));
        skipped.insert(8);
        assert_eq!(skipped.to_string(), "6-9,5000");
        for bad in ["", "0", "7-6", "6-6", "6,7", "9,6", "6-7,7", "6,", "a", "06", "6 "] {
            assert!(bad.parse::<Skipped>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_next_number_is_behind_what_is_skipped() {
        let skipped: Skipped = "6-9,5000".parse().unwrap();
        assert_eq!([4, 5, 6, 9, 4999].map(|number| skipped.next_after(number)), [5, 10, 10, 10, 5001]);
        assert!(skipped.contains(6) && skipped.contains(9) && !skipped.contains(10));
    }
}
