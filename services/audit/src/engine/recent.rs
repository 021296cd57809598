//! Which ids were there in the past 48 hours: asked for every entry, and nearly always answered without the database.

use std::collections::VecDeque;

/// How many ids are one segment. An index of them fits into the page cache, so that random ids cost no more than others.
pub const SEGMENT: u64 = 65_536;
/// With 16 bits an id and 8 of them set, under one id in 1,000 is looked for in vain.
const WORDS: usize = 65_536 * 16 / 64;
const MASK: u64 = 65_536 * 16 - 1;

/// For each segment a Bloom filter: an id that it does not have is not in the segment.
#[derive(Debug, Default)]
pub struct Recent(VecDeque<Filter>);

#[derive(Debug)]
struct Filter {
    segment: i64,
    began_us: i64,
    bits: Vec<u64>,
}

impl Recent {
    /// Begins a segment, and forgets those that were followed by another one before this time.
    pub fn begin(&mut self, segment: i64, began_us: i64, forget_before_us: i64) {
        while self.0.get(1).is_some_and(|second| second.began_us < forget_before_us) {
            self.0.pop_front();
        }
        self.0.push_back(Filter { segment, began_us, bits: vec![0; WORDS] });
    }

    /// Notes an id of the newest segment.
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

/// Ids may be chosen by anybody, so they are mixed; a collision costs a look-up and nothing else.
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
