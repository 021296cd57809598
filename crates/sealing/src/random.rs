use ring::rand::SecureRandom;

use crate::SealingError;

/// A source of bytes that nobody can guess.
pub trait Random: Send + Sync {
    fn fill(&self, buf: &mut [u8]) -> Result<(), SealingError>;
}

impl<R: Random + ?Sized> Random for std::sync::Arc<R> {
    fn fill(&self, buf: &mut [u8]) -> Result<(), SealingError> {
        (**self).fill(buf)
    }
}

/// The operating system's random numbers.
#[derive(Debug, Clone)]
pub struct SystemRandom(ring::rand::SystemRandom);

impl SystemRandom {
    pub fn new() -> Self {
        Self(ring::rand::SystemRandom::new())
    }
}

impl Default for SystemRandom {
    fn default() -> Self {
        Self::new()
    }
}

impl Random for SystemRandom {
    fn fill(&self, buf: &mut [u8]) -> Result<(), SealingError> {
        self.0.fill(buf).map_err(|_| SealingError::NoRandomness)
    }
}
