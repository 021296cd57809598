//! Randomness for jitter and idempotency keys, from one seed that is injected.

use std::sync::Mutex;

use ring::digest::{SHA256, digest};
use ring::error::Unspecified;
use ring::rand::{SecureRandom, SystemRandom};
use uuid::{Builder, Uuid};

/// A deterministic stream of numbers from a seed. Not for keys: only for jitter and the names of attempts.
#[derive(Debug)]
pub struct Random(Mutex<[u8; 32]>);

impl Random {
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(Mutex::new(seed))
    }

    /// Seeded by the operating system.
    pub fn from_system() -> Result<Self, Unspecified> {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed)?;
        Ok(Self::from_seed(seed))
    }

    fn bytes(&self) -> [u8; 16] {
        let mut state = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Ok(next) = digest(&SHA256, state.as_ref()).as_ref().try_into() {
            *state = next;
        }
        std::array::from_fn(|i| state.get(i).copied().unwrap_or_default())
    }

    /// A number from 0 to `most`.
    pub fn up_to(&self, most: u64) -> u64 {
        let number = u128::from_be_bytes(self.bytes()) % (u128::from(most) + 1);
        u64::try_from(number).unwrap_or(most)
    }

    /// A UUID that no other attempt has.
    pub fn uuid(&self) -> Uuid {
        Builder::from_random_bytes(self.bytes()).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_and_nothing_repeats() {
        let draw = |seed| {
            let random = Random::from_seed([seed; 32]);
            (0..100).map(|_| random.uuid()).collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_eq!(draw(1).union(&draw(2)).count(), 200);
    }

    #[test]
    fn stays_within_its_bound() {
        let random = Random::from_seed([0; 32]);
        let drawn: Vec<u64> = (0..200).map(|_| random.up_to(3)).collect();
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&0), Some(&3)));
        assert_eq!(random.up_to(0), 0);
    }
}
