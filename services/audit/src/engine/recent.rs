//! Which ids were added in the past 48 hours: looked up for every entry, and nearly always without the database.

use std::collections::VecDeque;

/// How many ids a segment has. An index of so many fits into the page cache, so that random ids cost no more than sequential ones.
pub const SEGMENT: u64 = 65_536;
/// With 16 bits per id and 8 of them set, fewer than one look-up in 1,000 is a false positive.
const WORDS: usize = 65_536 * 16 / 64;
const MASK: u64 = 65_536 * 16 - 1;

/// A Bloom filter for each segment: an id that is not in the filter is not in the segment.
#[derive(Debug, Default)]
pub struct Recent(VecDeque<Filter>);

#[derive(Debug)]
struct Filter {
    segment: i64,
    began_us: i64,
    bits: Vec<u64>,
}

impl Recent {
    /// Begins a segment, and drops the segments that ended before `forget_before_us`.
    pub fn begin(&mut self, segment: i64, began_us: i64, forget_before_us: i64) {
        while self.0.get(1).is_some_and(|second| second.began_us < forget_before_us) {
            self.0.pop_front();
        }
        self.0.push_back(Filter { segment, began_us, bits: vec![0; WORDS] });
    }

    /// Adds an id to the newest segment.
    pub fn note(&mut self, log: i64, id: &[u8; 16]) {
        if let Some(filter) = self.0.back_mut() {
            for (word, bit) in places(log, id) {
                if let Some(bits) = filter.bits.get_mut(word) {
                    *bits |= bit;
                }
            }
        }
    }

    /// The segments in which the id may be, the newest first.
    pub fn candidates(&self, log: i64, id: &[u8; 16]) -> Vec<i64> {
        let places = places(log, id);
        let has = |filter: &&Filter| places.iter().all(|(word, bit)| filter.bits.get(*word).is_some_and(|bits| bits & bit != 0));
        self.0.iter().rev().filter(has).map(|filter| filter.segment).collect()
    }
}

/// The bits of an id. Callers choose ids freely, so ids are mixed; a collision only costs a look-up.
fn places(log: i64, id: &[u8; 16]) -> [(usize, u64); 8] {
    let (high, low) = (u128::from_be_bytes(*id) >> 64, u128::from_be_bytes(*id));
    let narrow = |wide: u128| u64::try_from(wide & u128::from(u64::MAX)).unwrap_or_default();
    let first = mix(narrow(low) ^ mix(narrow(high) ^ mix(log.cast_unsigned())));
    let step = mix(first) | 1;
    let mut at = first;
    [(); 8].map(|()| {
        at = at.wrapping_add(step);
        let bit = at & MASK;
        (usize::try_from(bit / 64).unwrap_or_default(), 1 << (bit % 64))
    })
}

/// The finalizer of SplitMix64.
fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> [u8; 16] {
        u128::from(mix(n)).to_be_bytes()
    }

    #[test]
    fn what_was_noted_is_found_and_little_else() {
        let mut recent = Recent::default();
        recent.begin(7, 0, 0);
        (0..SEGMENT).for_each(|n| recent.note(1, &id(n)));
        assert!((0..SEGMENT).all(|n| recent.candidates(1, &id(n)) == [7]));
        let wrong = (0..100_000).filter(|n| !recent.candidates(2, &id(*n)).is_empty()).count();
        assert!(wrong < 100, "{wrong}");
    }

    #[test]
    fn a_segment_is_forgotten_when_its_newest_entry_is_too_old() {
        let mut recent = Recent::default();
        recent.begin(0, 0, 0);
        recent.note(1, &id(1));
        recent.begin(1, 100, 50);
        recent.begin(2, 200, 100);
        assert_eq!(recent.candidates(1, &id(1)), [0], "the next segment began at 100, which is not before 100");
        recent.begin(3, 300, 101);
        assert!(recent.candidates(1, &id(1)).is_empty());
    }
}
