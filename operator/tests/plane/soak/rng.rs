//! Numbers that look random and are the same for the same seed on every machine and for ever (SplitMix64).

/// The source of everything that a sequence chooses.
pub struct Rng(u64);

impl Rng {
    /// One stream for each seed, purpose and number.
    pub fn new(seed: u64, purpose: &str, number: u64) -> Self {
        let mut rng = Self(seed);
        for part in purpose.bytes().map(u64::from).chain([number]) {
            rng.0 = rng.next() ^ part;
        }
        rng
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From `least` to `most`, both included.
    pub fn between(&mut self, least: usize, most: usize) -> usize {
        let span = u64::try_from(most - least).unwrap() + 1;
        least + usize::try_from(self.next() % span).unwrap()
    }

    pub fn percent(&mut self, chance: usize) -> bool {
        self.between(1, 100) <= chance
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.between(0, from.len() - 1)]
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.between(0, last));
        }
    }
}
